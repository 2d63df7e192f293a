"""How well a detector detects: COCO's box AP on held-out scenes, and whether its regions tell what is in the scene."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from heedmap import menagerie
from heedmap.zoo.regions import Regions, corners, regions

__all__ = ["Regions", "detections", "ground_truth", "measure", "regions", "score"]

HELD_OUT = 200_000  # the first scene seed of the detection figures
SCENES = 500


def measure(path: Path, n: int = SCENES) -> dict[str, float]:
    """COCOeval's figures, and the share of scenes of which the regions name exactly the animals there are."""
    from transformers import AutoImageProcessor, DetrForObjectDetection

    model = DetrForObjectDetection.from_pretrained(path).eval()
    processor = AutoImageProcessor.from_pretrained(path)
    truths, found, named = [], [], 0
    scenes = list(menagerie.scenes(n, HELD_OUT))
    for start in range(0, n, 50):
        some = scenes[start : start + 50]
        pixels = processor(images=[scene.image for scene in some], return_tensors="pt")["pixel_values"]
        truths += [ground_truth(scene) for scene in some]
        found += detections(model, pixels)
        named += sum(map(_names_all, regions(model, pixels), some))
    return score(truths, found, some[0].size) | {"scenes read exactly": named / n}


def ground_truth(scene: menagerie.Scene) -> list[tuple[int, tuple[int, int, int, int]]]:
    """The label and box (left, top, right, bottom, pixels) of every animal one sees."""
    return [(menagerie.KINDS.index(animal.kind), animal.box) for animal in scene.animals]


def detections(model: torch.nn.Module, pixel_values: Tensor) -> list[list[tuple[int, float, list[float]]]]:
    """Every query's label, score and relative box, as `post_process_object_detection` gives them at threshold 0."""
    with torch.no_grad():
        output = model(pixel_values)
    scores, labels = output.logits.softmax(-1)[..., :-1].max(-1)
    columns = labels.tolist(), scores.tolist(), corners(output.pred_boxes).tolist()
    return [list(zip(*rows, strict=True)) for rows in zip(*columns, strict=True)]


def score(truths: Sequence, found: Sequence, size: int) -> dict[str, float]:
    """Box AP (mean over IoU 0.50 to 0.95) and AP50, by COCOeval."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = [
        _entry(image, label, box) | {"area": (box[2] - box[0]) * (box[3] - box[1]), "iscrowd": 0}
        for image, animals in enumerate(truths)
        for label, box in animals
    ]
    answers = [
        _entry(image, label, [side * size for side in box]) | {"score": sure}
        for image, objects in enumerate(found)
        for label, sure, box in objects
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks
        truth = COCO()
        truth.dataset = {
            "images": [{"id": image, "width": size, "height": size} for image in range(len(truths))],
            "categories": [{"id": label, "name": kind} for label, kind in enumerate(menagerie.KINDS)],
            "annotations": [entry | {"id": i} for i, entry in enumerate(annotations, start=1)],
        }
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(answers), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {"box AP": float(run.stats[0]), "box AP50": float(run.stats[1])}


def _entry(image: int, label: int, box: Sequence[float]) -> dict:
    left, top, right, bottom = box
    return {"image_id": image, "category_id": label, "bbox": [left, top, right - left, bottom - top]}


def _names_all(seen: Regions, scene: menagerie.Scene) -> bool:
    return sorted(seen.labels.tolist()) == sorted(label for label, _ in ground_truth(scene))
