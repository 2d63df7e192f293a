"""How well masks fit outlined objects, as COCOeval counts it, and how far the numbers may be off.

COCOeval finds which detection fits which object. Its averages are then taken again over resampled pictures: what it
found is kept, and a picture that was drawn twice counts twice.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heedmap.evaluation.coco import Annotated, indexed
from heedmap.evaluation.statistics import Mean
from heedmap.installs import extra

NUMBERS = {"AP": 0, "AP_m": 4, "AP_l": 5, "AR": 8, "AR_m": 10, "AR_l": 11}  # where COCOeval's summary has each
IOUS = np.linspace(0.2, 0.95, 16)  # the least overlaps, from 0.2 instead of COCO's 0.5
SIZES = ("all", "medium", "large")
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # detections of a category that count in a picture
ROUNDS = 200


@dataclass(frozen=True, eq=False)
class Scores:
    """The six numbers, from 0 to 1, NaN where there is no such object; `drawn` (round, number) are the resampled."""

    values: Mapping[str, float]
    drawn: np.ndarray = field(repr=False)
    pictures: int

    def number(self, name: str) -> Mean:
        found = self._mean(self.values[name], self.drawn[:, list(NUMBERS).index(name)])
        return Mean(found.value, max(found.low, 0.0), min(found.high, 1.0), found.count)

    def less(self, other: Scores, name: str) -> Mean:
        """By how much a number exceeds another's, on the same pictures each time."""
        column = list(NUMBERS).index(name)
        return self._mean(self.values[name] - other.values[name], self.drawn[:, column] - other.drawn[:, column])

    def _mean(self, value: float, drawn: np.ndarray) -> Mean:
        """With the middle 95 % of the resampled, moved so that their mean is the value.

        Precision at a recall is the best at any higher one, and the best of what scatters more is higher: resampled
        averages are a little too high throughout.
        """
        told = drawn[~np.isnan(drawn)]
        if self.pictures < 2 or not len(told):
            return Mean(float(value), float("nan"), float("nan"), self.pictures)
        low, high = np.quantile(told - told.mean() + value, (0.025, 0.975))
        return Mean(float(value), float(low), float(high), self.pictures)


def scores(
    pictures: Sequence[Annotated],
    categories: Mapping[int, str],
    detections: Sequence[Mapping[str, Any]],
    units: Mapping[int, float] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Scores:
    """`detections` have image_id, category_id, score and segmentation (run lengths).

    `units` says of each picture by what its areas are multiplied before COCO's ranges of sizes look at them.
    """
    area = extra("pycocotools.mask").area
    unit = dict.fromkeys((one.id for one in pictures), 1.0) | dict(units or {})
    truth = [{**one, "area": one["area"] * unit[each.id]} for each in pictures for one in each.objects]
    made = [
        {**one, "area": float(area(one["segmentation"])) * unit[one["image_id"]], "bbox": [0, 0, 0, 0], "iscrowd": 0}
        for one in detections
    ]
    evaluator = _evaluated(indexed(pictures, categories, truth), indexed(pictures, categories, made))
    found = np.where(evaluator.stats < 0, np.nan, evaluator.stats)
    tallies = _tallies(evaluator)
    count = len(pictures)
    rng = np.random.default_rng(seed)
    picked = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(rounds if count > 1 else 0)]
    drawn = np.array([averages(tallies, times) for times in picked]).reshape(-1, len(NUMBERS))
    return Scores({name: float(found[place]) for name, place in NUMBERS.items()}, drawn, count)


def _evaluated(truth: Any, made: Any) -> Any:
    """COCOeval with the overlaps set on its own parameters."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = extra("pycocotools.cocoeval").COCOeval(truth, made, "segm")
        evaluator.params.iouThrs = IOUS
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


# ---- the averages, taken again


@dataclass(frozen=True, eq=False)
class Tally:
    """Of one category and one range of sizes: detections surest first, and how many objects each picture has."""

    pictures: np.ndarray  # of each detection, its picture's place
    hits: np.ndarray  # (overlap, detection)
    misses: np.ndarray  # (overlap, detection): neither where COCOeval ignores it
    objects: np.ndarray  # (picture,)


def averages(tallies: Mapping[str, Sequence[Tally]], times: np.ndarray) -> list[float]:
    """The six numbers where each picture counts so many times."""
    found = {size: [_average(each, times) for each in several] for size, several in tallies.items()}
    return [_mean([one[i] for one in found[size] if one]) for i in (0, 1) for size in SIZES]


def _average(tally: Tally, times: np.ndarray) -> tuple[float, float] | None:
    """Precision averaged over recalls, and the recall that is reached, both over all overlaps."""
    objects = float(tally.objects @ times)
    if not objects:
        return None
    if not len(tally.pictures):
        return 0.0, 0.0
    counted = times[tally.pictures]
    hits, misses = np.cumsum(tally.hits * counted, 1), np.cumsum(tally.misses * counted, 1)
    recall = hits / objects
    precision = hits / np.maximum(hits + misses, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # How many of the recalls each detection is the first to reach; those that none reaches have no precision.
    first = np.diff(np.searchsorted(RECALLS, recall, side="right"), axis=1, prepend=0)
    return float((best * first).sum() / (len(IOUS) * len(RECALLS))), float(recall[:, -1].mean())


def _tallies(evaluator: Any) -> dict[str, list[Tally]]:
    labels, count = evaluator.params.areaRngLbl, len(evaluator.params.imgIds)
    found: dict[str, list[Tally]] = {size: [] for size in SIZES}
    for block in range(len(evaluator.evalImgs) // count):
        size = labels[block % len(labels)]
        if size in found:
            found[size].append(_tally(evaluator.evalImgs[block * count : (block + 1) * count]))
    return found


def _tally(pictures: Sequence[Mapping[str, Any] | None]) -> Tally:
    objects = np.array([0 if one is None else int((np.asarray(one["gtIgnore"]) == 0).sum()) for one in pictures])
    met = [(i, one) for i, one in enumerate(pictures) if one is not None and one["dtScores"]]
    if not met:
        none = np.zeros((len(IOUS), 0), bool)
        return Tally(np.zeros(0, int), none, none, objects)
    sure = np.concatenate([one["dtScores"][:MOST] for _, one in met])
    order = np.argsort(-sure, kind="mergesort")
    matched = np.concatenate([one["dtMatches"][:, :MOST] for _, one in met], 1)[:, order] != 0
    ignored = np.concatenate([one["dtIgnore"][:, :MOST] for _, one in met], 1)[:, order] != 0
    places = np.repeat([i for i, _ in met], [len(one["dtScores"][:MOST]) for _, one in met])[order]
    return Tally(places, matched & ~ignored, ~matched & ~ignored, objects)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
