"""The menagerie on disk, as the field reads it: an ImageFolder, COCO instances, VQA v2 questions and annotations.

The same options write the same bytes. An export is made beside its folder and moved there when it is whole, so the
folder never holds half of one.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from .asking import Question, answers, questions
from .cast import KINDS
from .rle import encode
from .stage import Animal, Scene, scenes

MANIFEST = "heedmap.json"  # says what wrote the folder, with which options, and lists its files
BATCH = 32  # pictures described at once
ANIMALS = {"classification": (1, 1), "detection": (1, 4)}
ANSWERS_EACH = 10  # VQA v2 has ten people answer each question
ANSWER_TYPES = {"exists": "yes/no", "both": "yes/no", "count": "number"}

Pictures = Sequence[Image.Image]


@dataclass(frozen=True)
class Features:
    """What describes the regions of pictures, and the name under which that is recorded.

    `describe(pictures)` gives for each picture its boxes (region, 4), which are left, top, right and bottom from 0 to
    1, and their features (region, feature).
    """

    source: str
    describe: Callable[[Pictures], Sequence[tuple[np.ndarray, np.ndarray]]]


def export(
    task: str,
    count: int,
    seed: int,
    out: str | Path,
    size: int = 96,
    animals: tuple[int, int] | None = None,
    features: Features | None = None,
) -> Path:
    """Write `count` scenes of the seeds from `seed` on, for one of TASKS; the folder is returned.

    `animals` (fewest, most) is for classification and detection, `features` for questions. A folder with anything in it
    is refused unless it is an export: that one is replaced, and files put there since stay.
    """
    _check(task, count, animals, features)
    out = Path(out).resolve()
    before = _files_before(out)
    options = {"task": task, "count": count, "seed": seed, "size": size}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        made = Path(folder)
        if task == "questions":
            write_questions(made, questions(count, seed, size), f"seeds {seed} to {seed + count - 1}", features)
            options["features"] = features.source if features else None
        else:
            options["animals"] = animals or ANIMALS[task]
            WRITERS[task](made, scenes(count, seed, animals=options["animals"], size=size))
        _write_json(made / MANIFEST, {"written by": "heedmap.menagerie", **options, "files": _files(made)}, indent=1)
        _replace(out, before, made)
    return out


# ----------------------------------------------------------------------------------------------------- one task each


def write_classification(out: Path, drawn: Iterator[Scene]) -> None:
    """An ImageFolder: a picture lies in the folder of its first animal's kind; metadata.jsonl names all its animals."""
    lines = []
    for scene in drawn:
        first = scene.animals[0]
        name = f"{first.kind}/{scene.seed}.png"
        _save(scene, out / name)
        lines.append({
            "file_name": name,
            "label": first.kind,
            "kinds": [animal.kind for animal in scene.animals],
            "colours": [animal.colour for animal in scene.animals],
            "background": scene.background,
            "seed": scene.seed,
        })  # fmt: skip
    (out / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (out / "classes.txt").write_text("".join(kind + "\n" for kind in KINDS), encoding="utf-8")


def write_detection(out: Path, drawn: Iterator[Scene]) -> None:
    """COCO instances. An annotation also has the animal's colour and the masks of its parts."""
    images, annotations = [], []
    for scene in drawn:
        images.append(_image(scene, out))
        for animal in scene.animals:
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": scene.seed,
                **_outline(animal),
                "iscrowd": 0,
                "colour": animal.colour,
                "parts": {part: encode(mask) for part, mask in animal.parts.items()},
            })  # fmt: skip
    categories = [{"id": i + 1, "name": kind, "supercategory": "animal"} for i, kind in enumerate(KINDS)]
    record = {"info": _info(), "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    _write_json(out / "annotations" / "instances.json", record)


def write_questions(
    out: Path, asked: Iterator[tuple[Scene, Question]], seeds: str, features: Features | None = None
) -> None:
    """VQA v2: questions.json, annotations.json, images/, and region features where something describes regions.

    An annotation also has the animals that decide the answer. features.npz has a row for each region: the picture it is
    in, its box and its feature.
    """
    entries, annotations, described = [], [], []
    while batch := list(islice(asked, BATCH)):
        for scene, question in batch:
            _save(scene, out / _file_name(scene))
            entries.append({"image_id": scene.seed, "question": question.text, "question_id": scene.seed})
            annotations.append(_annotation(scene, question))
        if features:
            described += features.describe([scene.image for scene, _ in batch])
    head = {"info": _info(), "license": {}, "data_type": "menagerie", "data_subtype": seeds}
    _write_json(out / "questions.json", {**head, "task_type": "Open-Ended", "questions": entries})
    _write_json(out / "annotations.json", {**head, "annotations": annotations})
    (out / "answers.txt").write_text("".join(answer + "\n" for answer in answers()), encoding="utf-8")
    if features:
        boxes, values = (np.concatenate(arrays) for arrays in zip(*described, strict=True))
        ids = np.repeat([entry["image_id"] for entry in entries], [len(each) for each, _ in described])
        np.savez(out / "features.npz", image_id=ids, boxes=boxes, features=values, source=np.array(features.source))


WRITERS: dict[str, Callable[[Path, Iterator[Scene]], None]] = {
    "classification": write_classification,
    "detection": write_detection,
}
TASKS = (*WRITERS, "questions")


# ------------------------------------------------------------------------------------------------------------ records


def _annotation(scene: Scene, question: Question) -> dict[str, object]:
    each = {"answer": question.answer, "answer_confidence": "yes"}
    return {
        "question_id": scene.seed,
        "image_id": scene.seed,
        "question_type": question.type,
        "answer_type": ANSWER_TYPES.get(question.type, "other"),
        "multiple_choice_answer": question.answer,
        "answers": [{**each, "answer_id": i + 1} for i in range(ANSWERS_EACH)],
        "regions": [{"animal": i, **_outline(scene.animals[i])} for i in question.regions],
    }


def _outline(animal: Animal) -> dict[str, object]:
    left, top, right, bottom = animal.box
    return {
        "category_id": KINDS.index(animal.kind) + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(animal.mask.sum()),
        "segmentation": encode(animal.mask),
    }


def _image(scene: Scene, out: Path) -> dict[str, object]:
    name = _file_name(scene)
    _save(scene, out / name)
    place = {"id": scene.seed, "file_name": Path(name).name, "width": scene.size, "height": scene.size}
    return {**place, "seed": scene.seed, "background": scene.background}


def _info() -> dict[str, str]:
    return {"description": "heedmap.menagerie: drawn animals with exact masks", "version": "1"}


# -------------------------------------------------------------------------------------------------------------- files


def _check(task: str, count: int, animals: tuple[int, int] | None, features: Features | None) -> None:
    if task not in TASKS:
        raise ValueError(f"'{task}' is not a task: they are {', '.join(TASKS)}.")
    if count < 1:
        raise ValueError(f"count {count} leaves nothing to write. It is 1 or more.")
    if animals is not None and task == "questions":
        raise ValueError("animals has no use for questions: each question decides how many animals its scene has.")
    if features is not None and task != "questions":
        raise ValueError(f"features have no use for {task}: they belong to questions.")


def _files_before(out: Path) -> list[str]:
    """The files of the export that is there; a folder with anything else in it is refused."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file. Name a folder that is new, empty, or an earlier export.")
    if not out.exists() or not any(out.iterdir()):
        return []
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        return list(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise FileExistsError(
            f"{out} is not empty and not an earlier export. Name a folder that is new, empty, or an earlier export."
        ) from None


def _replace(out: Path, before: list[str], made: Path) -> None:
    """Put what was made in place of the export that was there."""
    out.mkdir(exist_ok=True)
    folders = set()
    for name in before:
        path = out / name
        if path.resolve().is_relative_to(out.resolve()):  # a manifest may have been edited
            path.unlink(missing_ok=True)
            folders.add(path.parent)
    for folder in sorted(folders - {out}, key=lambda folder: -len(folder.parts)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    for name in _files(made):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made / name, out / name)


def _files(folder: Path) -> list[str]:
    """The manifest last: without it, a folder is not an export."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [*(name for name in names if name != MANIFEST), MANIFEST]


def _file_name(scene: Scene) -> str:
    return f"images/{scene.seed:012}.png"


def _save(scene: Scene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene.image.save(path)


def _write_json(path: Path, record: object, indent: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=indent) + "\n", encoding="utf-8")
