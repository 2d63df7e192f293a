"""Sheets as SVG: text stays text, pictures lie inside."""

from __future__ import annotations

import re
from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from heedmap.render.arranging import Several
from heedmap.render.colours import OPACITY, hexed
from heedmap.render.fonts import FAMILY
from heedmap.render.marks import Mark, Photo, Sheet, Text, Tile
from heedmap.render.panelling import Style
from heedmap.render.sheets import sheet

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_ANCHORS = {"left": "start", "middle": "middle", "right": "end"}
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # by XML, even when escaped


def svg(
    explanations: Several,
    *,
    side: float = 320,
    scale: float = 2,
    opacity: float = OPACITY,
    smooth: bool = True,
    special: bool = False,
    given: bool = True,
    columns: int = 4,
) -> str:
    """The sheet that `picture` paints, as one SVG; `scale` is how fine the pictures in it are."""
    return written(sheet(explanations, Style(side, opacity, smooth, scale), special, given, columns))


def written(made: Sheet) -> str:
    size = f'width="{_n(made.width)}" height="{_n(made.height)}" viewBox="0 0 {_n(made.width)} {_n(made.height)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{FAMILY}">',
        f"<title>{_told(made.says)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *map(_element, made.marks),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def data_uri(image: Image, **options: object) -> str:
    """A picture inside a text: PNG, or the format that is named."""
    file = BytesIO()
    kind = str(options.pop("format", "PNG"))
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(file.getvalue()).decode()}"


def _element(mark: Mark) -> str:
    place = f'x="{_n(mark.x)}" y="{_n(mark.y)}"'
    match mark:
        case Text():
            weight = ' font-weight="bold"' if mark.bold else ""
            anchor = f' text-anchor="{_ANCHORS[mark.anchor]}"' if mark.anchor != "left" else ""
            style = f'font-size="{_n(mark.size)}" fill="{hexed(mark.colour)}"{weight}{anchor}'
            return f"<text {place} {style}>{_told(mark.text)}</text>"
        case Tile():
            fill = hexed(mark.fill) if mark.fill else "none"
            edge = f' stroke="{hexed(mark.outline)}" stroke-width="{_n(mark.stroke)}"' if mark.outline else ""
            round_ = f' rx="{_n(mark.radius)}"' if mark.radius else ""
            return f'<rect {place} width="{_n(mark.width)}" height="{_n(mark.height)}" fill="{fill}"{edge}{round_}/>'
        case Photo():
            size = f'width="{_n(mark.width)}" height="{_n(mark.height)}"'
            return f'<image {place} {size} preserveAspectRatio="none" href={quoteattr(_embedded(mark.pixels))}/>'


def _embedded(pixels: np.ndarray) -> str:
    from PIL import Image

    return data_uri(Image.fromarray(pixels))


def _told(text: str) -> str:
    return escape(_FORBIDDEN.sub("\ufffd", text))


def _n(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
