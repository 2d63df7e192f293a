"""Where a processor puts a picture: which share of it each pixel of the model's input shows.

A processor resizes, crops and pads as its settings say, and settings differ. So it is asked: it is given a picture of
the same size whose red grows from left to right and whose green grows from top to bottom, and what comes out tells.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

TRIAL = 64  # the side of the flat pictures that tell how numbers are scaled
FLAT = 0.02  # off a straight line by more than this share of the picture: not a plain resize and crop


class Placement(NamedTuple):
    """Column u and row v of the input show the share `left + u * across` and `top + v * down` of the picture."""

    left: float
    across: float
    top: float
    down: float

    def window(self, width: float, height: float) -> tuple[float, float, float, float]:
        """The part of the picture that the first `width` columns and `height` rows of the input show."""
        return self.left, self.top, self.left + width * self.across, self.top + height * self.down


_known: WeakKeyDictionary[Any, dict[tuple[int, int], Placement | None]] = WeakKeyDictionary()


def placed(processor: Any, size: tuple[int, int]) -> Placement | None:
    """Where a picture of `size` (width, height) comes to lie; None where that is no plain resize, crop and pad."""
    known = _known.setdefault(processor, {})
    if size not in known:
        known[size] = _asked(processor, size)
    return known[size]


def _asked(processor: Any, size: tuple[int, int]) -> Placement | None:
    black, white = (_pixels(processor, np.full((TRIAL, TRIAL, 3), value, np.uint8)) for value in (0, 255))
    ramp = _pixels(processor, _ramp(*size))
    if black is None or white is None or ramp is None:
        return None
    middle = tuple(side // 2 for side in black.shape[1:])
    low, high = (image[(slice(None), *middle)][:, None, None] for image in (black, white))
    if (np.abs(high - low) < 1e-6).any():
        return None
    across, down, there = (ramp - low) / (high - low)
    inside = there > 0.99  # blue is full where there is picture, and not where there is padding
    columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
    if not len(columns) or not len(rows):
        return None
    horizontal = line(columns, across[rows[len(rows) // 2], columns], size[0])
    vertical = line(rows, down[rows, columns[len(columns) // 2]], size[1])
    return Placement(*horizontal, *vertical) if horizontal and vertical else None


def _ramp(width: int, height: int) -> np.ndarray:
    """Red is the share from the left, green from the top, blue full."""
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[..., 0] = ((np.arange(width) + 0.5) / width * 255).round()
    picture[..., 1] = (((np.arange(height) + 0.5) / height * 255).round())[:, None]
    return picture


def _pixels(processor: Any, picture: np.ndarray) -> np.ndarray | None:
    from PIL import Image

    try:
        made = processor(images=Image.fromarray(picture), return_tensors="np")["pixel_values"]
    except (ValueError, RuntimeError, KeyError, TypeError):
        return None
    made = np.asarray(made, dtype=np.float64)
    return made[0] if made.ndim == 4 and made.shape[:2] == (1, 3) else None


def line(places: np.ndarray, shares: np.ndarray, pixels: int) -> tuple[float, float] | None:
    """Offset and slope of the share over the place, from its edge on: least squares, the blurred ends left out."""
    whole = (0.0 - float(places[0]) / len(places), 1 / len(places))
    if pixels < 4 or len(places) < 4:  # too few shades to tell a slope
        return whole
    trim = max(len(places) // 20, -(-len(places) // pixels)) if len(places) > 8 else 0
    inner = slice(trim, len(places) - trim)
    x, y = places[inner] + 0.5, shares[inner]
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    offset = float(y.mean() - slope * x.mean())
    if slope <= 0 or np.abs(offset + slope * x - y).max() > max(FLAT, 1.5 / pixels):
        return None
    first, last = offset + slope * float(places[0]), offset + slope * float(places[-1] + 1)
    if max(abs(first), abs(last - 1)) < slope / 2:  # nearer than half a pixel: nothing was cut off
        return whole
    return offset, slope
