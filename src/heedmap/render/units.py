"""The records of what is seen: a unit is a patch, a whole word, a region, a stretch of sound or a bare token."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING

from heedmap.layouts import Window

if TYPE_CHECKING:
    import numpy as np

WHOLE: Window = (0.0, 0.0, 1.0, 1.0)
NUMBERED = re.compile(r"(\D+) \d+")  # tokens that are told by their kind and number


def number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


@dataclass(frozen=True)
class Unit:
    """One thing that is seen. `window` is where in the picture it lies, as shares of it; a value of NaN is silence."""

    name: str
    value: float
    strength: float = 0.0
    window: Window | None = None
    special: bool = False

    @property
    def silent(self) -> bool:
        """Whether the method says nothing of it."""
        return isnan(self.value)


@dataclass(frozen=True)
class View:
    """One stream of one example, or one part of it where a stream has several kinds of tokens.

    `peak` is the magnitude that has the strength 1, in all parts of the stream.
    """

    stream: str
    kind: str  # "patches", "regions", "words", "frames" or "tokens"
    units: tuple[Unit, ...]
    peak: float
    left_out: tuple[Unit, ...] = ()
    rows: int = 0  # of a patch grid
    columns: int = 0
    window: Window = WHOLE  # what a patch grid covers
    part: str = ""

    @property
    def name(self) -> str:
        return self.part or self.stream

    @property
    def placed(self) -> bool:
        return self.kind in ("patches", "regions")

    @property
    def patches(self) -> tuple[Unit, ...]:
        """The units of a grid, row by row, without special tokens."""
        return tuple(unit for unit in self.units if unit.window is not None)

    @property
    def loose(self) -> tuple[Unit, ...]:
        """Special tokens that have no place in the picture."""
        return tuple(unit for unit in self.units if unit.window is None)


@dataclass(frozen=True, eq=False)
class Panel:
    """One example of one explanation: what is explained, its number, and a view of each stream.

    Of the streams in `hidden` everything is left out.
    """

    title: str
    value: float
    method: str
    target: str
    predicted: bool
    views: tuple[View, ...]
    picture: np.ndarray | None = None
    text: str | None = None
    box: Window | None = None
    hidden: tuple[View, ...] = ()

    @property
    def figure(self) -> str:
        """Its number, and whether it is the prediction's."""
        return f"predicted, {number(self.value)}" if self.predicted else number(self.value)

    @property
    def several_texts(self) -> bool:
        """Whether words have the name of their stream above them: what was given and what was written are two."""
        return sum(not view.placed for view in self.views) > 1

    @cached_property
    def source(self) -> tuple:
        """What was given: panels of one source are looked at together."""
        seen = None if self.picture is None else (self.picture.shape, hash(self.picture.tobytes()))
        return seen, self.text
