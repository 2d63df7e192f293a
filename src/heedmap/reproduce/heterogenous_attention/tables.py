"""Tables 1 and 2: objects cut out of a detector's pictures, at Otsu's threshold and at 0.3 times it.

What is claimed is decided by the clean protocol. The same is told of the masks as the published code makes them, half a
cell larger on every side: the paper's numbers are of those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from heedmap.errors import InputError
from heedmap.evaluation.coco_scores import ROUNDS
from heedmap.evaluation.statistics import Mean
from heedmap.reproduce.findings import Finding, Part, Setting

if TYPE_CHECKING:
    from heedmap.evaluation.coco import Collection
    from heedmap.evaluation.segmentation import Segmentation

SEEDS = 910_000  # of the first scene
OTSU, LESS = 1.0, 0.3
GAE, ODAM, ABSOLUTE, POSITIVE, NOISED = "gae", "odam", "heed:absolute", "heed:positive", "heed:positive+noise"


def table_1(setting: Setting) -> Finding:
    """Masks over Otsu's threshold, scored as COCO scores instances."""
    claim = (
        "At Otsu's threshold noise makes the numbers better: the noise link is the best, then GAE, positive and "
        "absolute correction; ODAM is the worst."
    )
    return _finding(claim, _noisier, OTSU, setting)


def table_2(setting: Setting) -> Finding:
    """Masks over 0.3 times Otsu's threshold, scored as COCO scores instances."""
    claim = (
        "At 0.3 times Otsu's threshold, where masks are most like the maps, absolute correction is the best, then "
        "positive; both are better than GAE, and ODAM is the worst."
    )
    return _finding(claim, _cleaner, LESS, setting)


# ---- what is claimed


def _noisier(result: Segmentation) -> list[Part]:
    noise = _gaps(result, OTSU, [(NOISED, GAE)])
    return [
        Part(
            "The noise link is no worse than GAE.",
            "the interval of the difference of AP does not lie below 0",
            all(gap.high >= 0 for gap in noise.values()),
            {**_each(result, OTSU, (NOISED, GAE)), **noise},
        ),
        _above("Both are better than positive correction.", result, OTSU, [(NOISED, POSITIVE), (GAE, POSITIVE)]),
        _above("Positive correction is better than absolute.", result, OTSU, [(POSITIVE, ABSOLUTE)]),
        _worst(result, OTSU),
    ]


def _cleaner(result: Segmentation) -> list[Part]:
    best = [(ABSOLUTE, other) for other in (POSITIVE, NOISED, GAE, ODAM)]
    return [
        _above("Absolute correction is the best.", result, LESS, best),
        _above("Positive is better than GAE and the noise link.", result, LESS, [(POSITIVE, NOISED), (POSITIVE, GAE)]),
        _worst(result, LESS),
    ]


def _above(says: str, result: Segmentation, scale: float, pairs: Sequence[tuple[str, str]]) -> Part:
    gaps = _gaps(result, scale, pairs)
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    holds = all(gap.low > 0 for gap in gaps.values())
    rule = f"the interval of {'each' if len(pairs) > 1 else 'the'} difference of AP lies above 0"
    return Part(says, rule, holds, {**_each(result, scale, names), **gaps})


def _worst(result: Segmentation, scale: float) -> Part:
    pairs = [(name, ODAM) for name in (GAE, ABSOLUTE, POSITIVE, NOISED)]
    return _above("ODAM is the worst.", result, scale, pairs)


def _each(result: Segmentation, scale: float, names: Sequence[str]) -> dict[str, Mean]:
    return {f"AP, {name}": _percent(result.scored[scale][name].number("AP")) for name in names}


def _gaps(result: Segmentation, scale: float, pairs: Sequence[tuple[str, str]]) -> dict[str, Mean]:
    """By how much the first of each pair exceeds the second, the same pictures resampled for both."""
    found = result.scored[scale]
    return {f"{a} less {b}": _percent(found[a].less(found[b], "AP")) for a, b in pairs}


def _percent(one: Mean) -> Mean:
    return Mean(100 * one.value, 100 * one.low, 100 * one.high, one.count)


# ---- what is measured


@lru_cache(maxsize=1)  # both tables are made of the same maps
def _measured(setting: Setting) -> tuple[Segmentation, Segmentation]:
    """By the clean protocol, and as the published code does it."""
    from heedmap.evaluation.segmentation import METHODS, segmentations

    if setting.images and setting.coco is None:
        raise InputError("The tables need pictures whose objects are outlined. Give --coco and --annotations.")
    collection = _collection(setting)
    done, whole = 0, len(collection.pictures)

    def told(pictures: int) -> None:
        nonlocal done
        done += pictures
        setting.step(done / whole)

    batch = 16 if setting.coco is None else 1
    model, ways = setting.loaded("zoo:detr"), (False, True)
    clean, official = segmentations(model, collection, METHODS, (OTSU, LESS), ways, batch=batch, progress=told)
    return clean, official


def _collection(setting: Setting) -> Collection:
    from heedmap.evaluation.coco import company, drawn, read

    if setting.coco is None:
        return drawn(company(setting.scenes, SEEDS))
    return read(setting.coco, setting.annotations, setting.scenes)


# ---- what is told


def _finding(claim: str, parts: Callable[[Segmentation], list[Part]], scale: float, setting: Setting) -> Finding:
    from heedmap.evaluation.specimens import sheet

    clean, official = _measured(setting)
    published = parts(official)
    return Finding(
        claim,
        parts(clean),
        drawings={"masks": sheet(clean.specimens)} if clean.specimens else {},
        note=_note(clean, published),
        more={
            "how large a mask is beside its object": clean.sizes[scale],
            "share on a neighbour of the same kind": _shares(clean, "same kind"),
            "share on the ground, where there is such a neighbour": _shares(clean, "ground"),
            "as the published code makes masks": {
                part.says: {"holds": part.holds, "measured": part.measured} for part in published
            },
            "numbers": clean.record(),
            "numbers, as the published code makes masks": official.record(),
        },
    )


def _note(result: Segmentation, published: Sequence[Part]) -> str:
    told = [
        f"{result.pictures:,} pictures, {result.objects:,} objects, {result.finds:,} queries over {result.sure:.0%}; "
        f"AP in percent, over overlaps from 0.2. Intervals: pictures resampled {ROUNDS} times. Of complete correction "
        "(heed), which is beside the paper's methods, the positive part is cut out.",
        "With masks as the published code makes them, half a cell larger on every side: "
        + "; ".join(f"{part.says[:-1]}: {'holds' if part.holds else 'does not hold'}" for part in published)
        + ".",
    ]
    if result.coco:
        told.append("The paper's numbers stand beside ours, under `paper`.")
    if result.skipped:
        told.append(f"{len(result.skipped)} pictures could not be read.")
    return " ".join(told)


def _shares(result: Segmentation, place: str) -> Mapping[str, Mean]:
    return {name: each.share(place) for name, each in result.neighbours.items()}
