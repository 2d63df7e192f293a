"""What a model of any kind is asked: a trial has its cases, its maps, and what the model still knows.

Wherever a mask is spoken of it is one of the units that a map has: pixels, or regions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from heedmap.errors import InputError
from heedmap.evaluation.drawn import GREY, of, parts
from heedmap.evaluation.leaderboard.cases import Case, Fed, fed
from heedmap.evaluation.localisation import spread
from heedmap.families import Model
from heedmap.layouts import Grid
from heedmap.menagerie import SHARED, Scene
from heedmap.records import Explanation

SEEDS = 860_000  # of no scene that the zoo learned from; each measure has its own ten thousand


@dataclass(frozen=True, eq=False)
class Trial(ABC):
    """A model and what it is asked."""

    model: Model
    _held: dict[tuple[str, int], list[Case]] = field(default_factory=dict, init=False, repr=False)
    batch = 16
    detailed = 16  # as many of the cases of two answers go together

    @abstractmethod
    def placed(self, count: int) -> list[Case]:
        """Cases of which it is known what the answer is about, and what it is not about."""

    @abstractmethod
    def details(self, count: int) -> list[Case]:
        """Cases of two answers between which a part decides."""

    @abstractmethod
    def units(self, explanation: Explanation, example: int) -> np.ndarray:
        """What a method says of each unit of a mask."""

    @abstractmethod
    def tokens(self, explanation: Explanation, example: int) -> np.ndarray:
        """What a method says of each token, NaN where it is silent: for comparing two maps."""

    @abstractmethod
    def hidden(self, cases: Sequence[Case], masks: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """The inputs of cases without what some masks cover."""

    def cases(self, what: str, count: int) -> list[Case]:
        """Those that are `placed`, `details` or `single`: drawn once, for every method."""
        if (what, count) not in self._held:
            self._held[what, count] = getattr(self, what)(count)
        return self._held[what, count]

    def fed(self, cases: Sequence[Case], turned: bool = False) -> Fed:
        given = {name: [case.given[name] for case in cases] for name in cases[0].given}
        inputs, shown = self.model.inputs(**given)
        return fed(cases, inputs, shown, turned)

    def batches(self, cases: Sequence[Case], size: int | None = None) -> Iterator[Sequence[Case]]:
        for start in range(0, len(cases), size or self.batch):
            yield cases[start : start + (size or self.batch)]


class Pictures(Trial):
    """Models that read the patches of a picture."""

    def units(self, explanation: Explanation, example: int) -> np.ndarray:
        return spread(explanation, example)

    def tokens(self, explanation: Explanation, example: int) -> np.ndarray:
        stream, grid = grid_of(explanation, example)
        if explanation.pixels is not None:  # a patch says what its pixels say together
            pixels = explanation.pixels[example].detach().double().cpu().numpy()
            height, width = pixels.shape[0] // grid.rows, pixels.shape[1] // grid.columns
            return pixels.reshape(grid.rows, height, grid.columns, width).sum((1, 3)).ravel()
        flowed = explanation[stream][example].detach().double().cpu().numpy().copy()
        flowed[list(grid.special)] = np.nan
        return flowed[grid.first :][: grid.rows * grid.columns]

    def hidden(self, cases: Sequence[Case], masks: Sequence[np.ndarray]) -> dict[str, Tensor]:
        pictures = [np.array(case.given["image"]) for case in cases]
        for picture, mask in zip(pictures, masks, strict=True):
            picture[mask] = GREY
        given = {name: [case.given[name] for case in cases] for name in cases[0].given}
        return self.model.inputs(**{**given, "image": pictures})[0]

    @abstractmethod
    def single(self, count: int) -> list[Case]:
        """Cases of one animal: what is hidden from the model bit by bit."""

    @abstractmethod
    def knows(self, one: Fed, pixels: Tensor) -> np.ndarray:
        """Of each case, whether the model still answers right when it is given these pixels."""

    def deciding(self, count: int, seed: int) -> Iterator[tuple[Scene, str, str, np.ndarray]]:
        """Scenes of one animal: its kind, the kind that shares its drawing, and the parts by which it is no such."""
        ways = [way for (a, b), (own, other) in SHARED.items() for way in ((a, b, own), (b, a, other))]
        for i in range(count):
            kind, other, names = ways[i % len(ways)]
            (drawn,) = of(kind, 1, seed + i)
            yield drawn, kind, other, parts(drawn.animals[0], names)


def grid_of(explanation: Explanation, example: int) -> tuple[str, Grid]:
    """The stream of a picture's patches."""
    for stream, layout in explanation.shown[example].layouts.items():
        if isinstance(layout, Grid):
            return stream, layout
    raise InputError("The explanation says of no stream that it is a grid of patches: nothing can be hidden.")
