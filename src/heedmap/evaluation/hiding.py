"""One batch of pictures: what each method ranks is hidden step by step, and the model is asked each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from heedmap.dropping import kept
from heedmap.errors import InputError
from heedmap.evaluation.folders import Classes, Labelled
from heedmap.evaluation.masking import counts, fill, hidden, left, places, upsampled
from heedmap.families import Model
from heedmap.families.pictures import read
from heedmap.guidance import SIDES, guide, pair
from heedmap.layouts import Grid
from heedmap.targets import logit

TARGETS = ("label", "predicted")
RANDOM = "random"  # the anchor: a ranking by chance


@dataclass(frozen=True, eq=False)
class Guide:
    """What stands beside every picture, and the class that the model sees in it."""

    picture: Image
    side: str
    index: int
    label: str

    @staticmethod
    def of(model: Model, source: Any, label: str | int | None, side: str) -> Guide:
        """A guide of the class that is named, or that the model sees in it."""
        if side not in SIDES:
            raise InputError(f"side is {side!r}. heedmap expected one of {', '.join(SIDES)}.")
        picture = guide(source)
        if label is None:
            inputs, _ = model.inputs(picture)
            with torch.no_grad():
                label = int(model.module(**inputs).logits.argmax())
        classes = Classes(model.labels, {})
        index = label if isinstance(label, int) else classes.index(label)
        if index is None or (model.labels and not 0 <= index < len(model.labels)):
            near = get_close_matches(str(label), model.labels, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"The guide's label {label!r} is none of the model's {len(model.labels)}.{hint}")
        return Guide(picture, side, index, classes.label(index))


@dataclass(frozen=True, eq=False)
class Fed:
    """Pictures (or pairs) that go through the model together, and where in the list each stood."""

    images: list[Image]
    indices: list[int]
    places: list[int]
    pixels: Tensor
    stream: str
    grid: Grid
    tokens: int  # of the stream, those that are no patches too


@dataclass(frozen=True, eq=False)
class Hiding:
    """How things are hidden, whatever the pictures."""

    model: Model
    methods: tuple[str, ...]
    orders: tuple[str, ...]
    steps: tuple[float, ...]
    mask: str
    unit: str
    target: str
    guide: Guide | None
    seed: int

    def fed(self, some: Sequence[tuple[int, Labelled]], skipped: dict[str, str]) -> list[Fed]:
        """The pictures as the model takes them; what fails beside others is tried alone, what fails alone is told."""
        try:
            images = self._images([read(one.picture) for _, one in some])
            inputs, shown = self.model.inputs(images)
        except (InputError, OSError) as error:
            if len(some) > 1:
                return [fed for each in some for fed in self.fed([each], skipped)]
            skipped[some[0][1].name] = " ".join(str(error).split())
            return []
        pixels = inputs["pixel_values"]
        stream, grid = _grid(shown[0].layouts, pixels, self.model)
        tokens = max(grid.first + grid.rows * grid.columns, *(token + 1 for token in grid.special), 0)
        return [Fed(images, [one.index for _, one in some], [i for i, _ in some], pixels, stream, grid, tokens)]

    def _images(self, pictures: list[Image]) -> list[Image]:
        if self.guide is None:
            return pictures
        return [each.image for each in pair(self.model, pictures, self.guide.picture, self.guide.side)]

    def measured(self, fed: Fed) -> np.ndarray:
        """Whether the answer was the label (picture, method and order, step)."""
        rows, columns = self._cells(fed)
        # A picture's chance is its own, whichever pictures it is measured with.
        chance = np.stack([np.random.default_rng([self.seed, i]).random(rows * columns) for i in fed.places])
        clean = self._right(fed, fed.pixels)
        curves = []
        for name in self.methods:
            scores = chance if name == RANDOM else self._scores(fed, name)
            for order in self.orders:
                when = torch.from_numpy(places(scores, chance, order)).reshape(-1, rows, columns)
                steps = counts(rows * columns, self.steps)
                curves.append([self._without(fed, when < count) if count else clean for count in steps])
        return np.asarray(curves).transpose(2, 0, 1)

    def _cells(self, fed: Fed) -> tuple[int, int]:
        """Rows and columns of what is ranked and hidden."""
        height, width = fed.pixels.shape[-2:]
        return (height, width) if self.unit == "pixel" else (fed.grid.rows, fed.grid.columns)

    def _scores(self, fed: Fed, name: str) -> np.ndarray:
        """What a method says of each unit (picture, unit); NaN where it says nothing."""
        target = None if self.target == "predicted" else logit(fed.indices)
        explanation = self.model.explain(fed.images, target=target, method=name)
        scores = explanation[fed.stream].detach().double().cpu().numpy().copy()
        for i, example in enumerate(explanation.shown):
            scores[i, list(example.layouts[fed.stream].special)] = np.nan
        cells = scores[:, fed.grid.first :][:, : fed.grid.rows * fed.grid.columns]
        if self.unit == "token":
            return cells
        maps = upsampled(cells.reshape(-1, fed.grid.rows, fed.grid.columns), *self._cells(fed))
        return maps.reshape(len(maps), -1)

    def _without(self, fed: Fed, where: Tensor) -> np.ndarray:
        """Whether the answer is right with some units (picture, row, column) hidden."""
        if self.mask == "drop":
            with kept(self.model.module, left(fed.grid, fed.tokens, where).to(fed.pixels.device)):
                return self._right(fed, fed.pixels)
        colour = fill(self.model.processor.image, self.mask)
        return self._right(fed, hidden(fed.pixels, where.to(fed.pixels.device), colour))

    @torch.no_grad()
    def _right(self, fed: Fed, pixels: Tensor) -> np.ndarray:
        answers = self.model.module(pixel_values=pixels).logits.argmax(-1)
        return answers.cpu().numpy() == np.asarray(fed.indices)


def _grid(layouts: Mapping[str, Any], pixels: Tensor, model: Model) -> tuple[str, Grid]:
    """The one stream of patches, certain to lie on the pixels evenly."""
    grids = [(stream, layout) for stream, layout in layouts.items() if isinstance(layout, Grid)]
    if len(grids) != 1:
        raise InputError(
            f"{model.source!r} has {len(grids)} streams of patches, and nothing can be hidden patch by patch. heedmap "
            "expected a model with one, such as a ViT."
        )
    (stream, grid) = grids[0]
    height, width = pixels.shape[-2:]
    side = getattr(getattr(model.config, "vision_config", model.config), "patch_size", None)
    patch = (height // grid.rows, width // grid.columns)
    if height % grid.rows or width % grid.columns or (isinstance(side, int) and patch != (side, side)):
        raise InputError(
            f"{grid.rows} x {grid.columns} patches do not lie evenly on {height} x {width} pixels. heedmap expected a "
            "size that is a multiple of the patch."
        )
    return stream, grid
