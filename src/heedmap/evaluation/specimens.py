"""A few finds to look at: the picture, what each method says of one object in it, and the masks that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from heedmap.layouts import Window

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.render.marks import Mark

MARGIN, GAP, LINE, BETWEEN = 16.0, 8.0, 18.0, 20.0  # in points: around all, between panels, a line of type, rows
BOX = (255, 255, 255)
FADED = 0.22  # how much is left of a picture where there is no mask
SCALE = 1.5


@dataclass(frozen=True, eq=False)
class Specimen:
    """One find. `maps` are cells by method, `masks` pixels by scale and method."""

    title: str
    box: Window
    window: Window
    picture: np.ndarray = field(repr=False)
    truth: np.ndarray = field(repr=False)
    maps: Mapping[str, np.ndarray] = field(repr=False)
    masks: Mapping[tuple[float, str], np.ndarray] = field(repr=False)


def sheet(specimens: Sequence[Specimen], side: float = 136) -> Image:
    """Of each find the maps, and below them the masks at each scale; the picture and the truth stand in front."""
    from heedmap.render.marks import Sheet, Text, moved
    from heedmap.render.painting import painted

    names = list(specimens[0].maps) if specimens else []
    marks: list[Mark] = [
        Text(MARGIN + (1 + i) * (side + GAP), MARGIN + 12, name, 11.5, bold=True) for i, name in enumerate(names)
    ]
    y = MARGIN + LINE
    for one in specimens:
        made, height = _block(one, side)
        marks += moved(made, MARGIN, y)
        y += height + BETWEEN
    width = (1 + len(names)) * (side + GAP) - GAP + 2 * MARGIN
    says = "; ".join(one.title for one in specimens)
    return painted(Sheet(width, y - BETWEEN + MARGIN, tuple(marks), says), SCALE)


def _block(one: Specimen, side: float) -> tuple[list[Mark], float]:
    """One find: a row of maps, and a row of masks for each scale."""
    from heedmap.render.marks import Photo, Text

    high = side * one.picture.shape[0] / one.picture.shape[1]
    scales = list(dict.fromkeys(scale for scale, _ in one.masks))
    rows = [[_coloured(one, name) for name in one.maps]]
    rows += [[_cut(one.picture, one.masks[scale, name]) for name in one.maps] for scale in scales]
    first = [_boxed(one), _cut(one.picture, one.truth)]
    below = [one.title, "truth"]
    marks: list[Mark] = []
    for row, panels in enumerate(rows):
        top = row * (high + LINE)
        if row < len(first):
            marks.append(Photo(0, top, side, high, first[row]))
            marks.append(Text(0, top + high + 13, below[row], 11))
        for i, panel in enumerate(panels):
            marks.append(Photo((1 + i) * (side + GAP), top, side, high, panel))
        if row:
            told = "over Otsu's threshold" if scales[row - 1] == 1 else f"over {scales[row - 1]:g} × Otsu's threshold"
            marks.append(Text(side + GAP, top + high + 13, told, 11))
    return marks, len(rows) * (high + LINE)


def _coloured(one: Specimen, name: str) -> np.ndarray:
    """The map's cells over the picture, red for and blue against, by its own strongest cell."""
    from heedmap.render.colours import coloured, overlaid

    values, (height, width) = one.maps[name], one.picture.shape[:2]
    left, top, right, bottom = one.window
    rows = _places(values.shape[0], height, top, bottom)
    columns = _places(values.shape[1], width, left, right)
    return overlaid(one.picture, coloured((values / max(np.abs(values).max(), 1e-30))[rows][:, columns]))


def _places(cells: int, pixels: int, start: float, end: float) -> np.ndarray:
    """The cell in which the middle of each pixel lies."""
    shares = ((np.arange(pixels) + 0.5) / pixels - start) / (end - start)
    return np.clip((shares * cells).astype(int), 0, cells - 1)


def _cut(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    faded = 255 - FADED * (255 - picture.astype(float))
    return np.where(mask[..., None], picture, faded).round().astype(np.uint8)


def _boxed(one: Specimen) -> np.ndarray:
    """The picture with the find's box around it, white on dark."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(one.picture)
    zoom = max(1, round(300 / image.width))  # a fine line wants fine pixels
    image = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.BICUBIC)
    left, top, right, bottom = (np.asarray(one.box) * np.tile(image.size, 2)).tolist()
    draw, line = ImageDraw.Draw(image), max(1, image.width // 150)
    draw.rectangle((left - line, top - line, right + line, bottom + line), outline=(0, 0, 0), width=line)
    draw.rectangle((left, top, right, bottom), outline=BOX, width=line)
    return np.asarray(image)
