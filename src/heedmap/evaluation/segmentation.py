"""Weakly supervised segmentation: how well a detector's objects can be cut out by what speaks for them.

Every query over a half is explained, its map made a mask by Otsu's threshold (or a share of it), and the masks are
scored as COCO scores instances, from an overlap of 0.2 on (heterogenous-attention, section 5.1). Where an object has a
neighbour of its own kind, it is also measured how much of the relevance lies on it, and not on the neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from heedmap.errors import InputError
from heedmap.evaluation.coco import Annotated, Collection
from heedmap.evaluation.coco_scores import IOUS, NUMBERS, Scores, scores
from heedmap.evaluation.cutouts import CELL, Cut, Cutter
from heedmap.evaluation.detections import PLACES, Seen, check_detector, classes, seen
from heedmap.evaluation.specimens import Specimen
from heedmap.evaluation.statistics import Mean, difference, mean
from heedmap.families.pictures import read
from heedmap.installs import extra
from heedmap.methods import method

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.families import Model

METHODS = ("gae", "odam", "heed:absolute", "heed:positive", "heed:positive+noise", "heed")
OURS = "heed"
SURE = 0.5
SPECIMENS = 4  # finds that are kept to look at
# The paper's tables 1 and 2, by scale and method, in percent and in the order of NUMBERS.
PAPER: Mapping[float, Mapping[str, tuple[float, ...]]] = {
    1.0: {
        "gae": (13.1, 14.4, 24.6, 19.3, 23.9, 33.2),
        "odam": (1.9, 3.3, 2.7, 4.8, 8.0, 6.4),
        "heed:absolute": (8.0, 12.2, 12.3, 14.7, 23.6, 19.5),
        "heed:positive": (11.6, 13.9, 20.8, 18.0, 23.8, 29.2),
        "heed:positive+noise": (13.2, 14.4, 24.8, 19.4, 24.0, 33.3),
    },
    0.3: {
        "gae": (7.1, 4.6, 14.1, 11.3, 7.8, 26.7),
        "odam": (2.2, 1.3, 4.3, 4.6, 2.2, 11.6),
        "heed:absolute": (9.1, 8.3, 18.8, 14.5, 13.3, 32.1),
        "heed:positive": (8.9, 6.2, 18.0, 13.6, 10.3, 31.6),
        "heed:positive+noise": (7.3, 4.8, 14.5, 11.7, 8.2, 27.3),
    },
}


@dataclass(frozen=True, eq=False)
class Neighbours:
    """`shares` (picture, place): of one method, how much relevance lies where, averaged over a picture's finds.

    A find is counted where its object has a neighbour of its own kind; NaN where a picture has none such.
    """

    method: str
    shares: np.ndarray = field(repr=False)

    def share(self, place: str) -> Mean:
        return mean(self.shares[:, PLACES.index(place)])

    def less(self, other: Neighbours, place: str) -> Mean:
        """By how much a share exceeds another method's, picture by picture."""
        column = PLACES.index(place)
        return difference(self.shares[:, column], other.shares[:, column])


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The scores of every method at every scale of the threshold, and how they were measured."""

    model: str
    scored: Mapping[float, Mapping[str, Scores]]  # by scale and method
    sizes: Mapping[float, Mapping[str, Mean]]  # how large the masks are beside their objects: 1 is as large
    neighbours: Mapping[str, Neighbours]  # by method
    official: bool
    sure: float
    coco: bool  # whether the pictures are COCO's: then the paper's numbers may stand beside
    pictures: int
    objects: int
    finds: int  # queries that were sure
    companions: int  # of them, those whose object has a neighbour of its own kind
    skipped: Mapping[str, str]  # what could not be read, and why
    specimens: tuple[Specimen, ...] = field(repr=False)

    def record(self) -> dict[str, Any]:
        """All of it as plain numbers and words."""
        told = ("model", "official", "sure", "coco", "pictures", "objects", "finds", "companions")
        return {
            **{name: getattr(self, name) for name in told},
            "skipped": dict(self.skipped),
            "overlaps": [round(float(one), 2) for one in IOUS],
            "areas": "COCO's pixels" if self.coco else f"in cells, each as {CELL:g} x {CELL:g} of COCO's pixels",
            "scores": [
                {
                    "method": name,
                    "scale": scale,
                    **{number: _plain(each.number(number)) for number in NUMBERS},
                    "size": _plain(self.sizes[scale][name]),
                    **({"paper": dict(zip(NUMBERS, told, strict=True))} if (told := self.paper(name, scale)) else {}),
                }
                for scale, found in self.scored.items()
                for name, each in found.items()
            ],
            "differences": [
                {"a": a, "b": b, "scale": scale, "AP": _plain(found[a].less(found[b], "AP"))}
                for scale, found in self.scored.items()
                for a, b in combinations(found, 2)
            ],
            "neighbours": [
                {
                    "method": name,
                    **{place: _plain(each.share(place)) for place in PLACES},
                    "less heed": {place: _plain(gap) for place, gap in self.gaps(name).items()},
                }
                for name, each in self.neighbours.items()
            ],
        }

    def paper(self, name: str, scale: float) -> tuple[float, ...] | None:
        """The paper's numbers for a method, where they may stand beside: in percent."""
        rows = PAPER.get(scale, {}) if self.coco else {}
        return rows.get(name) or rows.get(name.partition(":")[0])

    def gaps(self, name: str) -> dict[str, Mean]:
        """By how much a method's shares exceed ours, where both were asked."""
        if name == OURS or OURS not in self.neighbours:
            return {}
        return {place: self.neighbours[name].less(self.neighbours[OURS], place) for place in PLACES}


def segmentation(
    model: Model,
    collection: Collection,
    methods: Sequence[str] = METHODS,
    scales: Sequence[float] = (1.0,),
    *,
    official: bool = False,
    sure: float = SURE,
    batch: int = 16,
    progress: Callable[[int], None] = lambda pictures: None,
) -> Segmentation:
    """Cut out the objects of a collection by what each method says of them, at each scale of Otsu's threshold.

    `official` keeps what the published code does; `sure` is what a query's class must be more probable than for it to
    be explained; up to `batch` pictures of one size go through the model together. `progress` is told how many more
    pictures are done.
    """
    return segmentations(model, collection, methods, scales, (official,), sure=sure, batch=batch, progress=progress)[0]


def segmentations(
    model: Model,
    collection: Collection,
    methods: Sequence[str],
    scales: Sequence[float],
    ways: Sequence[bool],
    *,
    sure: float = SURE,
    batch: int = 16,
    progress: Callable[[int], None] = lambda pictures: None,
) -> list[Segmentation]:
    """The same maps cut out officially, or not, in each of some ways."""
    check(methods, scales, sure, batch)
    check_detector(model)
    extra("pycocotools.cocoeval")
    known = classes(model, collection)
    cutters = [Cutter(collection, tuple(methods), tuple(scales), official, known) for official in ways]
    cuts: list[list[Cut]] = []  # of each picture, in each way
    skipped: dict[str, str] = {}
    kept = {True: 0, False: 0}
    for some in _together(collection.pictures, batch):
        for picture, image, found in _looked(model, some, methods, sure, known, skipped):
            keep = min(kept.values()) < SPECIMENS
            cuts.append([cutter.cut(picture, image, found, keep) for cutter in cutters])
            first = cuts[-1][0]
            kept[any(map(len, first.shares.values()))] += first.specimen is not None
        progress(len(some))
    if not cuts:
        why = next(iter(skipped.values()), "there is none")
        raise InputError(f"None of {len(collection.pictures)} pictures was measured ({why}).")
    each = zip(cutters, zip(*cuts, strict=True), strict=True)
    return [_summed(model, cutter, several, sure, skipped) for cutter, several in each]


def check(methods: Sequence[str], scales: Sequence[float], sure: float = SURE, batch: int = 1) -> None:
    """Refuse what cannot be asked of any model."""
    for name in methods:
        method(name)
    if not methods or len(set(methods)) < len(methods):
        raise InputError(f"methods is {list(methods)}. heedmap expected at least one, and each once.")
    if not scales or len(set(scales)) < len(scales) or not all(0 < scale < 256 for scale in scales):
        raise InputError(f"scales is {list(scales)}. heedmap expected shares of the threshold over 0, each once.")
    if not 0 <= sure < 1:
        raise InputError(f"sure is {sure}. heedmap expected a probability from 0 to under 1.")
    if batch < 1:
        raise InputError(f"batch is {batch}. heedmap expected at least 1.")


# ---- pictures


def _together(pictures: Sequence[Annotated], batch: int) -> Iterator[list[Annotated]]:
    """Pictures of one size that follow one another, at most `batch` of them."""
    for _, alike in groupby(pictures, key=lambda one: one.size):
        waiting = list(alike)
        yield from (waiting[start : start + batch] for start in range(0, len(waiting), batch))


def _looked(
    model: Model,
    some: Sequence[Annotated],
    methods: Sequence[str],
    sure: float,
    known: Mapping[int, int],
    skipped: dict[str, str],
) -> list[tuple[Annotated, Image, Seen]]:
    """What is found and explained; what fails beside others is tried alone, what fails alone is told."""
    try:
        images = [_read(one) for one in some]
        return list(zip(some, images, seen(model, images, methods, sure, known), strict=True))
    except (InputError, OSError) as error:
        if len(some) > 1:
            return [one for each in some for one in _looked(model, [each], methods, sure, known, skipped)]
        skipped[some[0].name] = " ".join(str(error).split())
        return []


def _read(one: Annotated) -> Image:
    image = read(one.picture)
    if (image.height, image.width) != one.size:
        raise InputError(
            f"{one.name!r} is {image.width} x {image.height}, its annotations are of {one.size[1]} x {one.size[0]}. "
            "heedmap expected the picture that was annotated."
        )
    return image


# ---- what came of them


def _summed(model: Model, cutter: Cutter, cuts: Sequence[Cut], sure: float, skipped: Mapping[str, str]) -> Segmentation:
    pictures = [cut.picture for cut in cuts]
    units = {cut.picture.id: cut.unit for cut in cuts}
    categories = cutter.collection.categories
    scored = {
        scale: {
            name: scores(pictures, categories, [one for cut in cuts for one in cut.detections[scale, name]], units)
            for name in cutter.methods
        }
        for scale in cutter.scales
    }
    sizes = {
        scale: {
            name: mean([_middle(np.array([cut.sizes[scale, name]]).T)[0] for cut in cuts]) for name in cutter.methods
        }
        for scale in cutter.scales
    }
    neighbours = {
        name: Neighbours(name, np.array([_middle(cut.shares[name]) for cut in cuts])) for name in cutter.methods
    }
    first = cutter.methods[0]
    shown = sorted((cut for cut in cuts if cut.specimen), key=lambda cut: not len(cut.shares[first]))
    return Segmentation(
        model=model.source,
        scored=scored,
        sizes=sizes,
        neighbours=neighbours,
        official=cutter.official,
        sure=sure,
        coco=cutter.collection.real,
        pictures=len(cuts),
        objects=sum(not one["iscrowd"] for picture in pictures for one in picture.objects),
        finds=sum(cut.finds for cut in cuts),
        companions=sum(len(cut.shares[first]) for cut in cuts),
        skipped=skipped,
        specimens=tuple(cut.specimen for cut in shown if cut.specimen)[:SPECIMENS],
    )


def _middle(several: np.ndarray) -> np.ndarray:
    """The mean over a picture's finds; what has no relevance that speaks for it says nothing."""
    told = several[~np.isnan(several).any(1)]
    return told.mean(0) if len(told) else np.full(several.shape[1], np.nan)


def _plain(one: Mean) -> dict[str, float | None]:
    """As JSON has it: what is not known is null."""
    numbers = {"value": one.value, "low": one.low, "high": one.high}
    return {name: value if np.isfinite(value) else None for name, value in numbers.items()}
