"""From strengths to colours: red for, blue against, white nothing. The sign is never lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from heedmap.render.units import Unit, View

if TYPE_CHECKING:
    import numpy as np

RGB: TypeAlias = tuple[int, int, int]

FOR: RGB = (202, 0, 32)
AGAINST: RGB = (5, 113, 176)
WHITE: RGB = (255, 255, 255)
INK: RGB = (28, 30, 34)
UNSEEN: RGB = (214, 214, 218)  # what the model was never shown, or no region covers
OPACITY = 0.45  # of the picture over the colours
LIFT = 0.6  # brightens a picture's middle tones, so that white stays near white
GREY = (0.299, 0.587, 0.114)  # how bright red, green and blue are


def colour(strength: float) -> RGB:
    """White at 0, the full colour at -1 and 1."""
    full = FOR if strength > 0 else AGAINST
    share = min(abs(strength), 1.0)
    red, green, blue = (round(255 + share * (end - 255)) for end in full)
    return red, green, blue


def ink(background: RGB) -> RGB:
    """Dark or white, whichever is read more easily on a background."""
    bright = sum(share * level for share, level in zip(GREY, background, strict=True))
    return INK if bright > 140 else WHITE


def hexed(colour: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def coloured(strengths: np.ndarray) -> np.ndarray:
    """Colours (height, width, 3) of strengths (height, width); nan is what was not seen."""
    import numpy as np

    share = np.nan_to_num(np.abs(strengths))[..., None]
    full = np.where(strengths[..., None] > 0, np.asarray(FOR, float), np.asarray(AGAINST, float))
    colours = 255 + share * (full - 255)
    return np.where(np.isnan(strengths)[..., None], np.asarray(UNSEEN, float), colours)


def strengths(view: View, width: int, height: int, smooth: bool = True) -> np.ndarray:
    """The strength at every pixel of a picture (height, width); nan where the view says nothing."""
    return _grid(view, width, height, smooth) if view.kind == "patches" else _boxes(view.units, width, height)


def overlaid(picture: np.ndarray, layer: np.ndarray, opacity: float = OPACITY) -> np.ndarray:
    """Colours with the veil of the picture over them."""
    import numpy as np

    return np.rint((1 - opacity) * layer + opacity * veil(picture)[..., None]).astype(np.uint8)


def veil(picture: np.ndarray) -> np.ndarray:
    """The picture in light grey (height, width): its own red and blue would read as for and against."""
    import numpy as np

    bright = picture.astype(np.float32) @ np.asarray(GREY, np.float32)
    return 255 * (bright / 255) ** LIFT


def _grid(view: View, width: int, height: int, smooth: bool) -> np.ndarray:
    """Patches laid over the part of the picture that they cover; of a padded picture, only what is in it."""
    import numpy as np
    from PIL import Image

    field = np.asarray([unit.strength for unit in view.patches], np.float32).reshape(view.rows, view.columns)
    left, top, right, bottom = view.window
    inner = (max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0))
    x0, y0, x1, y1 = _pixels(inner, width, height)
    whole = np.full((height, width), np.nan, np.float32)
    if x1 <= x0 or y1 <= y0:
        return whole
    source = (
        (inner[0] - left) / (right - left) * view.columns,
        (inner[1] - top) / (bottom - top) * view.rows,
        (inner[2] - left) / (right - left) * view.columns,
        (inner[3] - top) / (bottom - top) * view.rows,
    )
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    part = Image.fromarray(field).resize((x1 - x0, y1 - y0), how, box=source)
    whole[y0:y1, x0:x1] = np.asarray(part)
    return whole


def _boxes(units: tuple[Unit, ...], width: int, height: int) -> np.ndarray:
    """The strongest of the boxes that cover a pixel."""
    import numpy as np

    whole = np.full((height, width), np.nan, np.float32)
    for unit in sorted(units, key=lambda unit: abs(unit.strength)):
        if unit.window is not None:
            x0, y0, x1, y1 = _pixels(unit.window, width, height)
            whole[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = unit.strength
    return whole


def _pixels(window: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = window

    def within(share: float, size: int) -> int:
        return min(max(round(share * size), 0), size)

    return within(left, width), within(top, height), within(right, width), within(bottom, height)
