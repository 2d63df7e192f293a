"""From a gradient at a model's pixels back to a gradient at a picture's own pixels.

A processor resizes, crops, pads and scales, and rounds on the way, so that no gradient passes. But for the rounding all
of it is linear, so there is a stand-in of the form

    pixel_values = low + gain * (down @ picture @ across)

and its transpose carries a gradient back. Nothing of it is read from settings. Where the picture comes to lie is
`placing`'s answer, `low` and `gain` are what comes of a black and of a white picture, and the filter with which it was
resized is the one that comes nearest to what the processor makes of the picture itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heedmap.errors import InputError, UnsupportedError
from heedmap.families.feeding import pixels
from heedmap.families.placing import placed

if TYPE_CHECKING:
    from PIL.Image import Image

WHITE = 255
OFF = 0.1  # of a picture's contrast: a stand-in that misses the processor by more is none
ROUNDED = 1.0  # levels by which rounding alone may put it off


@dataclass(frozen=True, eq=False)
class StandIn:
    """The linear part of a processor, for pictures of one size."""

    down: np.ndarray  # (row of the input, row of the picture): rows sum to 1
    across: np.ndarray  # (column of the picture, column of the input): columns sum to 1
    low: np.ndarray  # (channel, row, column): what black becomes
    gain: np.ndarray  # what a level adds; 0 where the processor padded

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """What the processor would make of levels (height, width, channel), but for its rounding."""
        return self.low + self.gain * (self.down @ np.moveaxis(picture, -1, 0) @ self.across)

    def back(self, gradient: np.ndarray) -> np.ndarray:
        """The gradient at the levels, (height, width, channel), of a gradient (channel, row, column) at the input."""
        return np.moveaxis(self.down.T @ (self.gain * gradient) @ self.across.T, 0, -1)


def stand_in(processor: Any, image: Image) -> StandIn:
    """The stand-in for pictures of an image's size, checked on the image."""
    from PIL import Image

    place = placed(processor, image.size)
    if place is None:
        raise UnsupportedError(
            "This model's processor does not just resize, crop and pad a picture, so a gradient cannot be carried back "
            "to the picture's pixels. heedmap expected a processor that does."
        )
    low, high, real = (
        _made(processor, one) for one in (Image.new("RGB", image.size), Image.new("RGB", image.size, "white"), image)
    )
    gain = (high - low) / WHITE
    rows, columns = real.shape[1:]
    picture = np.asarray(image, np.float32)
    candidates = [
        StandIn(
            _resizing(kernel, reach, place.top, place.down, rows, image.height),
            _resizing(kernel, reach, place.left, place.across, columns, image.width).T,
            low,
            gain,
        )
        for kernel, reach in FILTERS
    ]
    errors = [_off(candidate(picture), real, gain) for candidate in candidates]
    best = int(np.argmin(errors))
    spread = _off(real, real.mean((1, 2), keepdims=True), gain)
    if errors[best] > ROUNDED + OFF * spread:
        raise UnsupportedError(
            f"What this model's processor makes of the picture is {errors[best]:.1f} levels (root mean square) from a "
            "plain resize, crop and pad, so a gradient cannot be carried back to the picture's pixels."
        )
    return candidates[best]


def _made(processor: Any, image: Image) -> np.ndarray:
    made = pixels(processor, [image])["pixel_values"]
    if made.ndim != 4 or made.shape[1] != 3:
        raise InputError(
            f"The processor makes of a picture a tensor {tuple(made.shape)}. heedmap expected (1, 3, height, width)."
        )
    return made[0].float().numpy()


def _off(ours: np.ndarray, real: np.ndarray, gain: np.ndarray) -> float:
    """How far two inputs are apart, root mean square in levels, where there is picture."""
    there = np.abs(gain) > 0
    return float(np.sqrt(np.mean(((ours - real)[there] / gain[there]) ** 2)))


# ---- resizing one axis


def _resizing(
    kernel: Callable[[np.ndarray], np.ndarray], reach: float, start: float, step: float, cells: int, pixels: int
) -> np.ndarray:
    """How much each of `pixels` adds to each of `cells`: filters widen where a picture is made smaller."""
    scale = step * pixels  # pixels of the picture for one of the input
    centres = (start + (np.arange(cells) + 0.5) * step) * pixels
    away = (np.arange(pixels) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.where(np.abs(away) <= reach, kernel(away), 0.0)
    total = weights.sum(1, keepdims=True)
    return (weights / np.where(total == 0, 1.0, total)).astype(np.float32)


def _triangle(x: np.ndarray) -> np.ndarray:
    return 1 - np.abs(x)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -1/2."""
    x = np.abs(x)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.sinc(x) * np.sinc(x / 3)


def _box(x: np.ndarray) -> np.ndarray:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


FILTERS: tuple[tuple[Callable[[np.ndarray], np.ndarray], float], ...] = (
    (_triangle, 1.0),  # bilinear
    (_cubic, 2.0),
    (_lanczos, 3.0),
    (_box, 0.5),
)
