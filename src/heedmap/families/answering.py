"""What a model answers: labels with their probabilities, and where the objects are that it found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heedmap.layouts import Window
from heedmap.targets import Context
from heedmap.targets.fields import class_logits

SAME = 0.7  # two boxes of one kind that overlap more (intersection over union) are one object seen twice


@dataclass(frozen=True)
class Answer:
    """A label, how probable the model finds it, and for a detector the box, as shares of the picture."""

    label: str
    value: float
    box: Window | None = None


@dataclass(frozen=True)
class Found:
    """An object that a detector sees: its query, its class, how sure it is, and where."""

    query: int
    index: int
    value: float
    box: Window


def answers(
    output: Any,
    context: Context,
    task: str,
    config: Any,
    name: Callable[[int], str],
    top: int,
    positions: Sequence[int] | None = None,
) -> list[tuple[Answer, ...]]:
    """The likeliest answers of each example, likeliest first."""
    if task == "object-detection":
        return [
            tuple(Answer(name(one.index), one.value, one.box) for one in found[:top])
            for found in objects(output, context, 0.0)
        ]
    logits, axis, _ = class_logits(output, context)
    if axis == "position" and positions is not None:
        logits = logits[torch.arange(len(logits)), list(positions)]
    shares = probabilities(logits, task, config)
    if axis == "position" and positions is None:  # every token has an answer of its own
        best, index = shares.max(-1)
        return [
            tuple(Answer(name(i), value) for i, value in zip(row, values, strict=True))
            for row, values in zip(index.tolist(), best.tolist(), strict=True)
        ]
    best, index = shares.topk(min(top, shares.shape[-1]))
    return [
        tuple(Answer(name(i), value) for i, value in zip(row, values, strict=True))
        for row, values in zip(index.tolist(), best.tolist(), strict=True)
    ]


def probabilities(logits: Tensor, task: str, config: Any) -> Tensor:
    """Of classes that exclude one another, or of each by itself, as the model was trained; a single number as it is."""
    if logits.shape[-1] == 1 and task in ("text-classification", "image-classification"):
        return logits.float()
    alone = getattr(config, "problem_type", None) == "multi_label_classification"
    if alone or config.model_type in ("vilt", "siglip", "siglip2"):
        return logits.float().sigmoid()
    return logits.float().softmax(-1)


def objects(output: Any, context: Context, threshold: float) -> list[list[Found]]:
    """What a detector sees in each picture, surest first, each object once."""
    from heedmap.zoo.regions import corners, overlap

    values, index = certainties(output, context).max(-1)
    boxes = corners(output.pred_boxes.detach().float()).clamp(0, 1)
    found = []
    for each, value, label in zip(boxes, values, index, strict=True):
        same = (overlap(each, each) > SAME) & (label[:, None] == label)
        kept: list[int] = []
        for query in value.argsort(descending=True, stable=True).tolist():
            if value[query] >= threshold and not any(same[query, other] for other in kept):
                kept.append(query)
        found.append([Found(query, int(label[query]), float(value[query]), window(each[query])) for query in kept])
    return found


def certainties(output: Any, context: Context) -> Tensor:
    """How sure a detector is of each class at each of its queries, (batch, query, class)."""
    logits, _, nothing = class_logits(output, context)
    return logits.float().softmax(-1)[..., :-1] if nothing else logits.float().sigmoid()


def window(box: Tensor) -> Window:
    left, top, right, bottom = box.tolist()
    return left, top, right, bottom
