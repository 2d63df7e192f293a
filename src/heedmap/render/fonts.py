"""Type: what a text is set in, and how wide it runs."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

FAMILY = "'DejaVu Sans', Verdana, 'Noto Sans', 'Noto Sans CJK SC', 'Microsoft YaHei', sans-serif"
WIDE = 0x2E80  # from here on DejaVu has no letters: Chinese, Japanese, Korean
WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "DroidSansFallbackFull.ttf",
)


@lru_cache(maxsize=128)
def font(size: float, bold: bool = False, wide: bool = False) -> FreeTypeFont | ImageFont:
    """DejaVu Sans as it comes with matplotlib; otherwise the one that Pillow carries."""
    from PIL import ImageFont

    for name in (*(WIDE_FONTS if wide else ()), *_dejavu(bold)):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def font_for(text: str, size: float, bold: bool = False) -> FreeTypeFont | ImageFont:
    return font(size, bold, any(ord(letter) >= WIDE for letter in text))


def width(text: str, size: float, bold: bool = False) -> float:
    return font_for(text, size, bold).getlength(text)


def fitted(text: str, room: float, size: float, bold: bool = False) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    if width(text, size, bold) <= room:
        return text
    short, long = 0, len(text)
    while short + 1 < long:
        middle = (short + long) // 2
        if width(text[:middle].rstrip() + "…", size, bold) <= room:
            short = middle
        else:
            long = middle
    return text[:short].rstrip() + "…"


def broken(text: str, room: float, size: float, bold: bool = False) -> list[str]:
    """The text in lines that fit, broken between words where it can be."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if line and width(longer, size, bold) > room:
            lines.append(line)
            longer = word
        line = longer
    return [fitted(one, room, size, bold) for one in (*lines, line) if one]


@lru_cache(maxsize=2)
def _dejavu(bold: bool) -> tuple[str, ...]:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    found = importlib.util.find_spec("matplotlib")  # found, not imported: that would take longer than drawing
    folders = found.submodule_search_locations if found else None
    return (*(str(Path(folder, "mpl-data", "fonts", "ttf", name)) for folder in folders or ()), name)
