"""What a sheet is made of, whether it is painted or written: positions in points, from the upper left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from heedmap.render.colours import INK, RGB

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Text:
    """`x` is where the text begins ("left"), has its middle or ends; `y` is its baseline."""

    x: float
    y: float
    text: str
    size: float
    colour: RGB = INK
    bold: bool = False
    anchor: str = "left"


@dataclass(frozen=True)
class Tile:
    x: float
    y: float
    width: float
    height: float
    fill: RGB | None = None
    outline: RGB | None = None
    stroke: float = 1.0
    radius: float = 0.0


@dataclass(frozen=True)
class Photo:
    x: float
    y: float
    width: float
    height: float
    pixels: np.ndarray
    smooth: bool = True


Mark: TypeAlias = Text | Tile | Photo


@dataclass(frozen=True)
class Sheet:
    """`says` is the sheet in words, for whoever does not see it."""

    width: float
    height: float
    marks: tuple[Mark, ...]
    says: str


def moved(marks: list[Mark], x: float, y: float) -> list[Mark]:
    return [replace(mark, x=mark.x + x, y=mark.y + y) for mark in marks]
