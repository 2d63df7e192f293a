"""What a detector sees as a list of regions: box, kind, score and the features by which another model reads them.

The feature of a region is the last state of its object query, as the box and class heads read it. The zoo's detector
was also taught to name the colour of its animals from that state, so it carries kind and colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DetrForObjectDetection

SAME = 0.7  # two boxes that overlap more (intersection over union) are one animal seen twice


@dataclass(frozen=True)
class Regions:
    """The regions of one image, surest first."""

    boxes: Tensor  # (n, 4): left, top, right, bottom, each relative to the image, 0 .. 1
    labels: Tensor  # (n,)
    scores: Tensor  # (n,)
    features: Tensor  # (n, d)

    def __len__(self) -> int:
        return len(self.labels)


def regions(model: DetrForObjectDetection, pixel_values: Tensor, threshold: float = 0.5) -> list[Regions]:
    """The objects the detector is sure of in each image, each once.

    An image without a sure object gives the likeliest one: who reads regions needs at least one.
    """
    import torch

    with torch.no_grad():
        output = model(pixel_values)
    scores, labels = output.logits.softmax(-1)[..., :-1].max(-1)
    boxes = corners(output.pred_boxes).clamp(0, 1)
    found = []
    for each, score, label, feature in zip(boxes, scores, labels, output.last_hidden_state, strict=True):
        keep = _kept(each, score, threshold)
        found.append(Regions(each[keep], label[keep], score[keep], feature[keep]))
    return found


def corners(boxes: Tensor) -> Tensor:
    """Centre, width and height to left, top, right, bottom."""
    import torch

    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box in `a` (..., n, 4) with every box in `b` (..., m, 4): (..., n, m)."""
    a, b = a.unsqueeze(-2), b.unsqueeze(-3)
    both = (a[..., 2:].minimum(b[..., 2:]) - a[..., :2].maximum(b[..., :2])).clamp(min=0).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b))
    return both / (area_a + area_b - both).clamp(min=1e-9)


def _kept(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    order = scores.argsort(descending=True, stable=True).tolist()
    sure = [i for i in order if scores[i] >= threshold] or order[:1]
    same = overlap(boxes, boxes) > SAME
    kept: list[int] = []
    for i in sure:
        if not any(same[i, j] for j in kept):
            kept.append(i)
    return kept
