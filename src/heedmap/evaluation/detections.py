"""What a detector finds in pictures, and what each method says of every find: one forward pass for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heedmap import api
from heedmap.context import context_of
from heedmap.errors import InputError
from heedmap.evaluation.coco import Collection, numbers
from heedmap.evaluation.localisation import share, spread
from heedmap.families import Model
from heedmap.families.answering import Found, certainties, window
from heedmap.layouts import Shown, Window
from heedmap.records import Explanation
from heedmap.targets.expressions import Logit
from heedmap.zoo.regions import corners

DETECTS = "object-detection"
PLACES = ("itself", "same kind", "others", "ground")  # where relevance may lie; each pixel is in the first that has it
SAME = 0.5  # a box that overlaps an object's less (intersection over union) has found something else


@dataclass(frozen=True, eq=False)
class Seen:
    """One picture: the queries that are sure, surest first, those that are not, and what each method says of a find."""

    sure: tuple[Found, ...]
    unsure: tuple[Found, ...]
    said: Mapping[str, tuple[Explanation, ...]]  # by method, one of each sure query
    fed: tuple[int, int]  # height and width in which the model was given it


def check_detector(model: Model) -> None:
    if model.task != DETECTS:
        raise InputError(f"{model.source!r} does {model.task}. heedmap expected a detector, such as zoo:detr.")


def classes(model: Model, collection: Collection) -> dict[int, int]:
    """The category of each class that the model has."""
    return numbers(model.labels, len(model.config.id2label), collection)


def seen(
    model: Model, images: Sequence[Any], methods: Sequence[str], threshold: float, known: Mapping[int, int]
) -> list[Seen]:
    """Pictures of one size, together. Every query over `threshold` is explained, also two of one object.

    What is explained is the logit of the query's likeliest class; a class that is not `known` is nobody's object.
    """
    inputs, shown = model.inputs(list(images))
    with torch.no_grad():
        output = model.module(**inputs)
    values, classes = certainties(output, context_of(model.module, inputs, causal=False)).max(-1)
    boxes = corners(output.pred_boxes.detach().float()).clamp(0, 1)
    found = [_queries(*each, known) for each in zip(values, classes, boxes, strict=True)]
    sure = [[one for one in many if one.value > threshold] for many in found]
    said = {name: _explained(model, inputs, shown, sure, name) for name in methods}
    height, width = inputs["pixel_values"].shape[-2:]
    return [
        Seen(
            tuple(sure[i]),
            tuple(one for one in many if one.value <= threshold),
            {name: tuple(each[i]) for name, each in said.items()},
            (height, width),
        )
        for i, many in enumerate(found)
    ]


def _queries(values: Tensor, classes: Tensor, boxes: Tensor, known: Mapping[int, int]) -> list[Found]:
    order = values.argsort(descending=True, stable=True).tolist()
    found = [Found(query, int(classes[query]), float(values[query]), window(boxes[query])) for query in order]
    return [one for one in found if one.index in known]


def _explained(
    model: Model, inputs: Mapping[str, Tensor], shown: Sequence[Shown], sure: Sequence[Sequence[Found]], method: str
) -> list[list[Explanation]]:
    """For each picture one explanation of each find: target r is the r-th find of every picture that has any."""
    rows = [i for i, many in enumerate(sure) if many]
    told: list[list[Explanation]] = [[] for _ in sure]
    if not rows:
        return told
    some = {name: value[rows] for name, value in inputs.items()}
    targets = []
    for place in range(max(map(len, sure))):
        one = [sure[i][min(place, len(sure[i]) - 1)] for i in rows]  # who has fewer says the last one again
        targets.append(Logit(tuple(each.index for each in one), query=tuple(each.query for each in one)))
    together = api.explain_each(model.module, some, targets, method=method)
    for example, i in enumerate(rows):
        told[i] = [_alone(each, example, shown[i]) for each in together[: len(sure[i])]]
    return told


def _alone(explanation: Explanation, example: int, shown: Shown) -> Explanation:
    """One example of a batch, by itself, with what its tokens are."""
    one = slice(example, example + 1)
    return replace(
        explanation,
        value=explanation.value[one],
        relevance={name: flowed[one] for name, flowed in explanation.relevance.items()},
        starts={name: start[one] for name, start in explanation.starts.items()},
        predicted=None,
        shown=(shown,),
    )


# ---- which object each find is


def objects(
    finds: Sequence[Found], given: Sequence[Mapping[str, Any]], size: tuple[int, int], known: Mapping[int, int]
) -> dict[int, int]:
    """Of each find, the place of the object that it is; surest first, each object once, crowds never."""
    taken: dict[int, int] = {}
    for i, find in enumerate(finds):
        fitting = {
            place: _overlap(find.box, one["bbox"], size)
            for place, one in enumerate(given)
            if one["category_id"] == known[find.index] and not one["iscrowd"] and place not in taken.values()
        }
        best = max(fitting, key=lambda place: fitting[place], default=None)
        if best is not None and fitting[best] >= SAME:
            taken[i] = best
    return taken


def _overlap(box: Window, given: Sequence[float], size: tuple[int, int]) -> float:
    """Intersection over union of shares of a picture with a left upper corner, a width and a height in pixels."""
    (height, width), (left, top, across, down) = size, given
    a = np.asarray(box) * (width, height, width, height)
    both = max(min(a[2], left + across) - max(a[0], left), 0) * max(min(a[3], top + down) - max(a[1], top), 0)
    return float(both / max((a[2] - a[0]) * (a[3] - a[1]) + across * down - both, 1e-9))


def shares(explanation: Explanation, masks: Sequence[np.ndarray]) -> list[float]:
    """How much of what speaks for a find lies in each of PLACES, `masks` being those before the ground."""
    values = spread(explanation, shape=masks[0].shape)
    left = np.ones_like(masks[0])
    found = []
    for mask in (*masks, left.copy()):
        found.append(share(values, mask & left))
        left &= ~mask
    return found
