"""One picture of a collection: the masks by which each method cuts its objects out, and where its relevance lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heedmap.evaluation.coco import Annotated, Collection, outlined
from heedmap.evaluation.detections import PLACES, Seen, objects, shares
from heedmap.evaluation.masks import cells, mask
from heedmap.evaluation.specimens import Specimen
from heedmap.families.answering import Found
from heedmap.installs import extra
from heedmap.layouts import Grid

if TYPE_CHECKING:
    from PIL.Image import Image

Way = tuple[float, str]  # a scale of the threshold and a method
CELL = 32 * 480 / 800  # pixels of a COCO picture that a cell of DETR stands for: it enlarges 480 to 800


@dataclass(frozen=True, eq=False)
class Cut:
    """What came of one picture."""

    picture: Annotated
    detections: Mapping[Way, list[dict[str, Any]]]  # as COCO has results
    sizes: Mapping[Way, list[float]]  # of each mask whose object is known: its area over the object's
    shares: Mapping[str, np.ndarray]  # (find, place) by method, of finds with a neighbour of their own kind
    finds: int
    unit: float  # by what its areas are multiplied to be those of a COCO picture
    specimen: Specimen | None


@dataclass(frozen=True, eq=False)
class Cutter:
    """How objects are cut out, whatever the picture."""

    collection: Collection
    methods: tuple[str, ...]
    scales: tuple[float, ...]
    official: bool
    known: Mapping[int, int]  # the category of each of the model's classes

    def cut(self, picture: Annotated, image: Image, seen: Seen, keep: bool) -> Cut:
        """`keep` a specimen of it."""
        matched = objects(seen.sure, picture.objects, picture.size, self.known)
        company = {i: place for i, place in matched.items() if self._companions(picture, place)}
        masks = outlined(picture, self.collection.categories) if matched else []
        found: dict[Way, list[dict[str, Any]]] = {(scale, name): [] for scale in self.scales for name in self.methods}
        sizes: dict[Way, list[float]] = {way: [] for way in found}
        unit = 1.0
        for i, find in enumerate(seen.sure):
            for name in self.methods:
                values, grid = cells(seen.said[name][i])
                unit = 1.0 if self.collection.real else _unit(grid, picture.size)
                for scale in self.scales:
                    marked = self._mask(values, grid, scale, seen, picture.size)
                    found[scale, name].append(self._detection(picture, find, marked))
                    if i in matched and masks[matched[i]].any():
                        sizes[scale, name].append(float(marked.sum() / masks[matched[i]].sum()))
        if self.official:  # queries that are not sure have a mask too, an empty one
            nothing = np.zeros(picture.size, bool)
            for several in found.values():
                several += [self._detection(picture, find, nothing) for find in seen.unsure]
        return Cut(
            picture,
            found,
            sizes,
            {name: self._shares(picture, seen.said[name], company, masks) for name in self.methods},
            len(seen.sure),
            unit,
            self._specimen(picture, image, seen, company or matched, masks) if keep and matched else None,
        )

    def _mask(self, values: np.ndarray, grid: Grid, scale: float, seen: Seen, size: tuple[int, int]) -> np.ndarray:
        return mask(values, *size, scale, self.official, window=grid.window, fed=seen.fed)

    def _detection(self, picture: Annotated, find: Found, marked: np.ndarray) -> dict[str, Any]:
        runs = extra("pycocotools.mask").encode(np.asfortranarray(marked, np.uint8))
        number = self.known[find.index]
        return {"image_id": picture.id, "category_id": number, "score": find.value, "segmentation": runs}

    def _companions(self, picture: Annotated, place: int) -> list[int]:
        """The other objects of a kind."""
        kind = picture.objects[place]["category_id"]
        return [i for i, one in enumerate(picture.objects) if one["category_id"] == kind and i != place]

    def _shares(
        self, picture: Annotated, said: Sequence[Any], company: Mapping[int, int], masks: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Where the relevance of each find with company lies: on itself, its kind, other objects, the ground."""
        rows = []
        for i, place in company.items():
            kind = np.any([masks[other] for other in self._companions(picture, place)], axis=0)
            rows.append(shares(said[i], (masks[place], kind, np.any(masks, axis=0))))
        return np.array(rows).reshape(-1, len(PLACES))

    def _specimen(
        self,
        picture: Annotated,
        image: Image,
        seen: Seen,
        matched: Mapping[int, int],
        masks: Sequence[np.ndarray],
    ) -> Specimen:
        """The surest find, of those with company where there are any."""
        i, place = next(iter(matched.items()))
        maps = {name: cells(seen.said[name][i]) for name in self.methods}
        return Specimen(
            picture=np.asarray(image),
            title=f"{self.collection.categories[self.known[seen.sure[i].index]]} {seen.sure[i].value:.0%}",
            box=seen.sure[i].box,
            truth=masks[place],
            maps={name: values for name, (values, _) in maps.items()},
            window=next(iter(maps.values()))[1].window,
            masks={
                (scale, name): self._mask(values, grid, scale, seen, picture.size)
                for scale in self.scales
                for name, (values, grid) in maps.items()
            },
        )


def _unit(grid: Grid, size: tuple[int, int]) -> float:
    """A cell of a COCO picture in pixels over one of this picture: sizes are counted in cells."""
    left, top, right, bottom = grid.window
    height, width = size
    return CELL * CELL / ((right - left) * width / grid.columns * (bottom - top) * height / grid.rows)
