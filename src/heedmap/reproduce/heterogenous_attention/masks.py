"""Figures 3 and 4: maps of detections made into masks, at Otsu's threshold and at 0.3 times it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from heedmap.evaluation.localisation import share
from heedmap.evaluation.masks import cells, mask
from heedmap.evaluation.statistics import Mean, difference, mean
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.heterogenous_attention.seen import (
    ABSOLUTE,
    GAE,
    METHODS,
    NOISED,
    ODAM,
    PAPER,
    POSITIVE,
    SEEDS,
    Detection,
    animals,
    detections,
    detector,
    photographed,
    scenewise,
    shown,
)
from heedmap.reproduce.worlds import cosine

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.records import Explanation
    from heedmap.render.marks import Mark

OTSU, LESS = 1.0, 0.3
SIDE, GAP, HEAD, MARGIN = 160.0, 12.0, 24.0, 20.0  # of a panel, in points
LEAST = 400.0  # how wide a sheet is, for its words

Told: TypeAlias = Mapping[str, Mapping[str, Sequence[float]]]  # measure, method: a number for each scene


def figure_3(setting: Setting) -> Finding:
    """Masks at Otsu's threshold."""
    claim = (
        "Otsu's threshold destroys what the maps of detections say, and is to the advantage of the noisier methods: "
        "GAE and the noise link mark the object better than absolute and positive correction."
    )
    if setting.images:
        return Finding(claim, drawings=_of_photographs(setting, OTSU))
    found = _found(setting, 3_000)
    told = measured(found, OTSU)
    ahead = _differences(told["iou"], [(noisy, ours) for noisy in (GAE, NOISED) for ours in (ABSOLUTE, POSITIVE)])
    return Finding(
        claim,
        [
            Part(
                "Otsu's threshold destroys what the map says.",
                "share of what speaks for the answer that is left inside the mask: the interval lies below one half "
                "for each of the paper's methods",
                all(mean(told["kept"][method]).high < 0.5 for method in PAPER),
                _means(told["kept"]),
            ),
            Part(
                "GAE and the noise link mark the animal better than absolute and positive correction.",
                "overlap of mask and animal (IoU): the interval of the difference of either to either lies above 0",
                all(each.low > 0 for each in ahead.values()),
                {**_means(told["iou"]), **ahead},
            ),
        ],
        drawings={"masks": drawing(shown(found), OTSU)},
        note=_note(found),
        more={"likeness of mask and map (cosine)": _means(told["like"])},
    )


def figure_4(setting: Setting) -> Finding:
    """Masks at 0.3 times Otsu's threshold, beside those at Otsu's."""
    claim = (
        "At 0.3 times Otsu's threshold the masks retain what the maps say, and ours, absolute before positive, mark "
        "the object best: Otsu's method is more advantageous with more noise."
    )
    if setting.images:
        return Finding(claim, drawings=_of_photographs(setting, LESS))
    found = _found(setting, 4_000)
    whole, told = measured(found, OTSU), measured(found, LESS)
    nearer = {method: difference(told["like"][method], whole["like"][method]) for method in METHODS}
    order = [(ABSOLUTE, POSITIVE), *((POSITIVE, other) for other in (GAE, NOISED, ODAM))]
    ahead = _differences(told["iou"], order)
    gains = {noisy: _gain(whole["iou"], told["iou"], noisy) for noisy in (GAE, NOISED)}
    return Finding(
        claim,
        [
            Part(
                "At 0.3 times the threshold what the map says is retained.",
                "share of what speaks for the answer that is left inside the mask: the interval lies above one half "
                "for each of the paper's methods",
                all(mean(told["kept"][method]).low > 0.5 for method in PAPER),
                _means(told["kept"]),
            ),
            Part(
                "The mask is more like the map than at Otsu's threshold.",
                "cosine of the mask and of what speaks for the answer, at 0.3 times less at once the threshold: the "
                "interval lies above 0 for each of the paper's methods",
                all(nearer[method].low > 0 for method in PAPER),
                nearer,
            ),
            Part(
                "Absolute correction marks the animal best, then positive, before GAE, the noise link and ODAM.",
                "overlap of mask and animal (IoU): the interval of each difference lies above 0",
                all(each.low > 0 for each in ahead.values()),
                {**_means(told["iou"]), **ahead},
            ),
            Part(
                "Otsu's threshold is to the advantage of the noisier methods.",
                "by how much the overlap of GAE and of the noise link exceeds that of positive correction at Otsu's "
                "threshold, less the same at 0.3 times it: the intervals lie above 0",
                all(each.low > 0 for each in gains.values()),
                gains,
            ),
        ],
        drawings={"masks": drawing(shown(found), LESS)},
        note=_note(found),
        more={"overlap at Otsu's threshold": _means(whole["iou"]), "left inside at Otsu's": _means(whole["kept"])},
    )


# ---- what is measured


def _found(setting: Setting, seeds: int) -> list[Detection]:
    return detections(detector(setting), animals(setting.scenes, SEEDS + seeds), METHODS, setting.step)


def measured(found: Sequence[Detection], scale: float) -> Told:
    """What each method's masks keep of the map, overlap the animal, and are like the map, scene by scene."""
    told: dict[str, dict[str, Sequence[float]]] = {"kept": {}, "iou": {}, "like": {}}
    for method in METHODS:
        rows = [_one(each, method, scale) for each in found]
        for name, column in zip(told, zip(*rows, strict=True), strict=True):
            told[name][method] = scenewise(found, column)
    return told


def _one(each: Detection, method: str, scale: float) -> tuple[float, float, float]:
    says = np.clip(each.map(method), 0, None)
    values, grid = cells(each.explained[method])
    marked = mask(values, says.shape[0], says.shape[1], scale, window=grid.window)
    return share(says, marked), overlap(marked, each.animal.mask), cosine(marked * 1.0, says)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks."""
    either = (a | b).sum()
    return float((a & b).sum() / either) if either else float("nan")


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, Mean]:
    return {method: mean(each) for method, each in values.items()}


def _differences(values: Mapping[str, Sequence[float]], ordered: Sequence[tuple[str, str]]) -> dict[str, Mean]:
    return {f"{a} less {b}": difference(values[a], values[b]) for a, b in ordered}


def _gain(whole: Mapping[str, Sequence[float]], less: Mapping[str, Sequence[float]], noisy: str) -> Mean:
    """By how much more a noisy method exceeds positive correction at the whole threshold than at less of it."""
    at_whole, at_less = (np.subtract(told[noisy], told[POSITIVE]) for told in (whole, less))
    return difference(at_whole, at_less)


def _note(found: Sequence[Detection]) -> str:
    return (
        f"{len(found)} detections. What speaks against is no part of a mask: of complete correction (heed) the "
        "positive part is taken."
    )


# ---- what is shown


def _of_photographs(setting: Setting, scale: float) -> dict[str, Image]:
    return {"masks": drawing(photographed(detector(setting), setting), scale)}


def drawing(rows: Mapping[str, Sequence[Explanation]], scale: float) -> Image:
    """The masks of some detections in red, each in its picture, with its box."""
    from heedmap.render.marks import Sheet, Text, moved
    from heedmap.render.painting import painted
    from heedmap.render.panelling import FAINT

    marks: list[Mark] = []
    y = MARGIN
    for name, row in rows.items():
        marks.append(Text(MARGIN, y + 13, name, 13, FAINT, bold=True))
        y += HEAD
        high = 0.0
        for i, explanation in enumerate(row):
            panel, tall = _panel(explanation, scale)
            marks += moved(panel, MARGIN + i * (SIDE + GAP), y)
            high = max(high, tall)
        y += high + GAP
    times = "" if scale == OTSU else f"{scale:g} times "
    marks.append(Text(MARGIN, y + 13, f"Red: above {times}Otsu's threshold. The box is the detection.", 11, FAINT))
    wide = 2 * MARGIN - GAP + max(map(len, rows.values())) * (SIDE + GAP)
    return painted(Sheet(max(wide, LEAST), y + HEAD + MARGIN, tuple(marks), ""))


def _panel(explanation: Explanation, scale: float) -> tuple[list[Mark], float]:
    """One mask at (0, 0), and how tall it is."""
    from PIL import Image

    from heedmap.render.colours import INK, WHITE, coloured, overlaid
    from heedmap.render.marks import Photo, Text, Tile

    (seen,) = explanation.shown
    assert seen.picture is not None
    wide, high = round(SIDE), max(1, round(SIDE * seen.picture.shape[0] / seen.picture.shape[1]))
    values, grid = cells(explanation)
    marked = mask(values, high, wide, scale, window=grid.window)
    picture = np.asarray(Image.fromarray(seen.picture).resize((wide, high), Image.Resampling.BICUBIC))
    top = 20.0
    marks: list[Mark] = [
        Text(0, 12, seen.answer or "", 13, bold=True),
        Photo(0, top, wide, high, overlaid(picture, coloured(marked * 1.0))),
    ]
    if seen.box is not None:
        left, upper, right, lower = seen.box
        place = (left * wide, top + upper * high, (right - left) * wide, (lower - upper) * high)
        marks += [Tile(*place, outline=WHITE, stroke=4, radius=2), Tile(*place, outline=INK, stroke=2, radius=2)]
    return marks, top + high
