"""Figure 2: two animals in a picture, each of them detected, and what every method says of either detection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from heedmap.evaluation.localisation import balance, ranks, share
from heedmap.evaluation.statistics import Mean, difference, mean
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.heterogenous_attention.seen import (
    ABSOLUTE,
    COLUMNS,
    COMPLETE,
    GAE,
    METHODS,
    NOISED,
    ODAM,
    PAPER,
    POSITIVE,
    SEEDS,
    SURE,
    Detection,
    animals,
    detections,
    detector,
    photographed,
    scenewise,
    shown,
    twin,
)
from heedmap.reproduce.worlds import BATCH, GREY, cosine

if TYPE_CHECKING:
    from heedmap.families import Model

LAYERS = ("odam:projection", "odam:backbone")  # what else ODAM may read
ALIKE = 0.99  # cosine of maps that look exactly alike
RIM = 12  # a picture's rim is this part of its side: at zoo:detr one patch


def figure_2(setting: Setting) -> Finding:
    """Detections of two animals of one kind, and of two kinds."""
    claim = (
        "Of a detection absolute and positive correction give the most accurate map, and ODAM the worst; GAE "
        "highlights the other object in the picture too. With the noise link, positive correction looks exactly like "
        "GAE."
    )
    model = detector(setting)
    if setting.images:
        return Finding(claim, rows=photographed(model, setting), columns=COLUMNS)
    drawn = animals(setting.scenes, SEEDS + 2_000)
    found = detections(model, drawn, (*METHODS, *LAYERS), setting.step)
    told = measured(found, (*METHODS, *LAYERS))
    twins, others = (
        measured([each for each in found if twin(each.scene) is same], METHODS)["neighbour"] for same in (True, False)
    )
    alike = {
        method: mean(scenewise(found, [cosine(each.map(GAE), each.map(method)) for each in found]))
        for method in (NOISED, POSITIVE)
    }
    parts = [
        worst(told),
        best(told),
        noisier("GAE highlights the other animal of the same kind more than positive does.", twins, [POSITIVE]),
        noisier(
            "GAE highlights an animal of another kind more than absolute and positive do.", others, [ABSOLUTE, POSITIVE]
        ),
        exactly(alike),
        *filters(told),
    ]
    return Finding(
        claim,
        parts,
        shown(found),
        columns=COLUMNS,
        note=f"{len(found)} of {sum(len(each.animals) for each in drawn)} animals were detected in their place by more "
        f"than {SURE:.0%}; only these count. Half of the scenes have two animals of one kind. Complete correction "
        "(heed) is beside the paper's methods; it is signed.",
        more={
            **{TOLD[name]: {method: mean(each) for method, each in by.items()} for name, by in told.items()},
            "what the logit falls by when hidden": {
                name: mean(scenewise(found, falls(model, found, where))) for name, where in HIDDEN.items()
            },
        },
    )


# ---- what is measured


def density(values: np.ndarray, where: np.ndarray) -> float:
    """What speaks for the answer on a pixel of `where`, to what does on one of the whole picture."""
    return share(values, where) / where.mean() if where.any() else float("nan")


def rim(each: Detection) -> np.ndarray:
    """The outermost pixels of the picture that no animal covers."""
    edge, wide = np.ones_like(each.animal.mask), len(each.animal.mask) // RIM
    edge[wide:-wide, wide:-wide] = False
    return edge & each.ground


MEASURES: Mapping[str, Callable[[np.ndarray, Detection], float]] = {
    "share": lambda m, each: share(m, each.animal.mask),
    "ranks": lambda m, each: ranks(m, each.animal.mask),
    "neighbour": lambda m, each: share(m, each.neighbour),
    "rim": lambda m, each: share(m, rim(each)),
    "within": lambda m, each: share(m * ~rim(each), each.animal.mask),
    "near": lambda m, each: density(m, each.neighbour),
    "ground": lambda m, each: density(m, each.ground),
    "balance": lambda m, each: balance(m, each.animal.mask),
    "for": lambda m, each: float(m[each.animal.mask].sum() > 0),
}
TOLD = {
    "share": "share of positive on the animal",
    "ranks": "how often its pixels outrank others",
    "neighbour": "share of positive on the other animal",
    "rim": "share of positive on the picture's rim",
    "within": "share of positive on the animal, the rim left out",
    "near": "a pixel of the other animal, to one of the picture",
    "ground": "a pixel of the ground, to one of the picture",
    "balance": "what the animal's pixels sum to (-1 to 1)",
    "for": "detections in which the animal sums to more than 0",
}
HIDDEN: Mapping[str, Callable[[Detection], np.ndarray]] = {
    "the animal": lambda each: each.animal.mask,
    "the other animal": lambda each: each.neighbour,
    "the picture's rim": rim,
}

Told = Mapping[str, Mapping[str, Sequence[float]]]  # measure, method: a number for each scene


def measured(found: Sequence[Detection], methods: Sequence[str]) -> Told:
    """Each measure of each method, scene by scene."""
    told: dict[str, dict[str, list[float]]] = {name: {method: [] for method in methods} for name in MEASURES}
    for each in found:
        for method in methods:
            values = each.map(method)
            for name, measure in MEASURES.items():
                told[name][method].append(measure(values, each))
    return {name: {method: scenewise(found, values) for method, values in by.items()} for name, by in told.items()}


def falls(model: Model, found: Sequence[Detection], where: Callable[[Detection], np.ndarray]) -> list[float]:
    """By how much each detection's logit falls when some pixels become mid-grey."""
    import torch

    told: list[float] = []
    for start in range(0, len(found), BATCH):
        some = found[start : start + BATCH]
        images = [np.array(each.scene.image) for each in some]
        for image, each in zip(images, some, strict=True):
            image[where(each)] = GREY
        inputs, _ = model.inputs(images)
        with torch.no_grad():
            logits = model.module(**inputs).logits
        told += [
            float(each.explained[COMPLETE].value[0] - row[each.object.query, each.object.index])
            for each, row in zip(some, logits, strict=True)
        ]
    return told


# ---- what is claimed

ACCURACY = ("share", "ranks")


def numbers(told: Told, methods: Sequence[str]) -> dict[str, Mean]:
    return {f"{TOLD[name]}, {method}": mean(told[name][method]) for name in ACCURACY for method in methods}


def gains(told: Told, better: Sequence[str], worse: Sequence[str]) -> dict[str, Mean]:
    return {
        f"{TOLD[name]}, {a} less {b}": difference(told[name][a], told[name][b])
        for name in ACCURACY for a in better for b in worse
    }  # fmt: skip


def worst(told: Told) -> Part:
    better = [name for name in PAPER if name != ODAM]
    ahead = gains(told, better, [ODAM])
    return Part(
        "ODAM is the worst.",
        "share of positive on the detected animal, and how often its pixels outrank others: of both, the interval of "
        "each other method's difference to it lies above 0",
        all(each.low > 0 for each in ahead.values()),
        {**numbers(told, METHODS), **ahead},
    )


def best(told: Told) -> Part:
    ahead = gains(told, (ABSOLUTE, POSITIVE), (GAE, ODAM, NOISED))
    return Part(
        "Absolute and positive correction are the most accurate.",
        "the same two measures: the interval of the difference of either to GAE, to ODAM and to the noise link lies "
        "above 0",
        all(each.low > 0 for each in ahead.values()),
        ahead,
    )


def noisier(says: str, told: Mapping[str, Sequence[float]], quieter: Sequence[str]) -> Part:
    more = {f"GAE less {name}": difference(told[GAE], told[name]) for name in quieter}
    return Part(
        says,
        "share of positive on the other animal: the interval of the difference lies above 0",
        all(each.low > 0 for each in more.values()),
        {**{name: mean(values) for name, values in told.items()}, **more},
    )


def exactly(alike: Mapping[str, Mean]) -> Part:
    return Part(
        "With the noise link, positive correction looks exactly like GAE.",
        f"cosine of the two maps: the interval lies above {ALIKE}",
        alike[NOISED].low > ALIKE,
        {f"{name} and GAE": each for name, each in alike.items()},
    )


def filters(told: Told) -> list[Part]:
    own, other = told["share"][ABSOLUTE], told["neighbour"][ABSOLUTE]
    near, ground = told["near"][ABSOLUTE], told["ground"][ABSOLUTE]
    more, extracted = difference(own, other), difference(near, ground)
    return [
        Part(
            "Under absolute correction the detected animal holds more than the other one.",
            "share on the detected animal less share on the other: the interval lies above 0",
            more.low > 0,
            {"on the detected animal": mean(own), "on the other": mean(other), "difference": more},
        ),
        Part(
            "Features of the detected animal alone are extracted: to absolute correction the other one is ground.",
            "what a pixel of the other animal holds less what one of the ground does, in units of the picture's mean: "
            "the interval does not lie above 0",
            extracted.low <= 0,
            {"a pixel of the other": mean(near), "of the ground": mean(ground), "difference": extracted},
        ),
    ]
