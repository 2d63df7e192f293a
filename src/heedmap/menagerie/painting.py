"""Whole-number arithmetic that puts outlines on a canvas, so that the same numbers come out on every platform."""

from __future__ import annotations

from collections.abc import Iterable
from math import pi, sin

import numpy as np

from .cast import RGB
from .chance import Draws

UNIT = 1000  # an animal is drawn in a square of this side
ONE = 1 << 14  # what stands for 1 in the table of sines
SINES = [round(ONE * sin(pi * degree / 180)) for degree in range(360)]


def turned(points: np.ndarray, extent: int, angle: int, across: int = 100, along: int = 100) -> np.ndarray:
    """Points turned by `angle` degrees, stretched by percent, at the size where UNIT is `extent` pixels."""
    s, c = SINES[angle % 360], SINES[(angle + 90) % 360]
    matrix = np.array([[c * across, s * across], [-s * along, c * along]], dtype=np.int64)
    return points @ matrix * extent // (UNIT * ONE * 100)


def place(curves: Iterable[np.ndarray], x: int, y: int, extent: int, angle: int) -> list[list[int]]:
    return [(turned(curve, extent, angle) + np.array((x, y))).ravel().tolist() for curve in curves]


def jittered(paint: RGB, rng: Draws, by: int) -> RGB:
    red, green, blue = (min(max(n + rng.integer(-by, by), 0), 255) for n in paint)
    return red, green, blue


def shaded(paint: RGB, percent: int) -> RGB:
    """Darker than 100, lighter above: 145 is 45 percent of the way to white."""
    if percent <= 100:
        red, green, blue = (n * percent // 100 for n in paint)
    else:
        red, green, blue = (n + (255 - n) * (percent - 100) // 100 for n in paint)
    return red, green, blue
