"""Sheets as pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heedmap.render.arranging import Several
from heedmap.render.colours import OPACITY, WHITE
from heedmap.render.fonts import font_for
from heedmap.render.marks import Photo, Sheet, Text, Tile
from heedmap.render.panelling import Style
from heedmap.render.sheets import check_size, sheet

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw


def picture(
    explanations: Several,
    *,
    side: float = 320,
    scale: float = 1,
    opacity: float = OPACITY,
    smooth: bool = True,
    special: bool = False,
    given: bool = True,
    columns: int = 4,
) -> Image:
    """A sheet of explanations: rows are methods or examples, columns are targets.

    `side` is a panel's width in points and `scale` how many pixels a point has; `opacity` how much of the picture lies
    over the colours; `smooth=False` shows patches with their edges; `given` begins with the picture as it is.
    """
    made = sheet(explanations, Style(side, opacity, smooth, scale), special, given, columns)
    return painted(made, scale)


def painted(made: Sheet, scale: float = 1) -> Image:
    from PIL import Image, ImageDraw

    size = round(made.width * scale), round(made.height * scale)
    check_size(size[0] * size[1])
    image = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(image)
    for mark in made.marks:
        match mark:
            case Photo():
                _photo(image, mark, scale)
            case Tile():
                _tile(draw, mark, scale)
            case Text():
                write(draw, mark, scale)
    return image


def _photo(image: Image, mark: Photo, scale: float) -> None:
    from PIL import Image

    size = max(1, round(mark.width * scale)), max(1, round(mark.height * scale))
    photo = Image.fromarray(mark.pixels)
    if photo.size != size:
        photo = photo.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    image.paste(photo, (round(mark.x * scale), round(mark.y * scale)))


def _tile(draw: ImageDraw, mark: Tile, scale: float) -> None:
    left, top = round(mark.x * scale), round(mark.y * scale)
    right, bottom = round((mark.x + mark.width) * scale) - 1, round((mark.y + mark.height) * scale) - 1
    stroke = max(1, round(mark.stroke * scale)) if mark.outline is not None else 0
    grown = stroke // 2 if mark.stroke > 1 else 0  # a broad line lies on the edge, a fine one within
    place = (left - grown, top - grown, max(right + grown, left), max(bottom + grown, top))
    draw.rounded_rectangle(place, mark.radius * scale, mark.fill, mark.outline, stroke)


def write(draw: ImageDraw, mark: Text, scale: float) -> None:
    font = font_for(mark.text, mark.size * scale, mark.bold)
    anchor = {"left": "ls", "middle": "ms", "right": "rs"}[mark.anchor]
    draw.text((mark.x * scale, mark.y * scale), mark.text, mark.colour, font, anchor)
