"""One panel, laid out: a heading, the picture with its colours, words, and strips of what has no place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heedmap.errors import InputError
from heedmap.render.colours import INK, OPACITY, RGB, UNSEEN, WHITE, colour, coloured, ink, overlaid, strengths
from heedmap.render.fonts import broken, fitted, width
from heedmap.render.marks import Mark, Photo, Text, Tile
from heedmap.render.units import NUMBERED, Panel, Unit, View

if TYPE_CHECKING:
    import numpy as np

FAINT: RGB = (112, 116, 124)
LINE = 26.0  # from one line of words to the next
NAMED, LOUD = 3, 0.3  # regions that carry their name: how many at most, and from which strength on
NARROW = 80  # the least width of a panel
STRIP = 32  # cells in a row of a strip


@dataclass(frozen=True)
class Style:
    """How large, how much of the picture over the colours, and whether patches run into one another."""

    side: float = 320.0  # width of a panel
    opacity: float = OPACITY
    smooth: bool = True
    scale: float = 1.0  # pixels per point

    def __post_init__(self) -> None:
        if not (self.side >= NARROW and self.scale > 0 and 0 <= self.opacity <= 1):
            raise InputError(
                f"side={self.side}, scale={self.scale}, opacity={self.opacity} cannot be drawn. heedmap expected a "
                f"side of at least {NARROW}, a scale above 0 and an opacity from 0 to 1."
            )


def heading(panel: Panel, style: Style) -> list[str]:
    """The title in one line or two, beside the number."""
    room = style.side - width(panel.figure, 13) - 10
    first, *rest = broken(panel.title, room, 14, bold=True) or [""]
    return [first, fitted(" ".join(rest), room, 14, bold=True)] if rest else [first]


def panel(panel: Panel, style: Style, lines: int = 1, note: str = "") -> tuple[list[Mark], float]:
    """The marks of a panel, and how tall it is; `lines` is what the longest title of its row takes."""
    marks: list[Mark] = [Text(style.side, 14, panel.figure, 13, FAINT, anchor="right")]
    marks += [Text(0, 14 + 18 * i, line, 14, bold=True) for i, line in enumerate(heading(panel, style))]
    y = 6.0 + 18 * lines
    if note:
        marks.append(Text(0, y + 8, fitted(note, style.side, 11.5), 11.5, FAINT))
        y += 18
    for view in panel.views:
        made, height = _VIEWS[view.kind](panel, view, style, y)
        marks += made
        y += height + 10
    return marks, y - 10


def given(panel: Panel, style: Style, lines: int = 1, note: bool = False) -> tuple[list[Mark], float]:
    """The picture as it was given, level with the panels beside it."""
    assert panel.picture is not None
    y = 6.0 + 18 * (lines + note)
    x, wide, high = _placed(panel, style)
    return [Text(0, 14, "picture", 14, FAINT), Photo(x, y, wide, high, panel.picture)], y + high


# ---- what has a place in the picture


def _placed(panel: Panel, style: Style) -> tuple[float, float, float]:
    """Where the picture begins, and its size: as wide as the panel, unless it is very tall."""
    if panel.picture is None:
        return 0.0, style.side, style.side
    high, wide = panel.picture.shape[:2]
    factor = min(style.side / wide, 1.5 * style.side / high)
    return (style.side - wide * factor) / 2, wide * factor, high * factor


def _pictured(panel: Panel, view: View, style: Style, y: float) -> tuple[list[Mark], float]:
    x, wide, high = _placed(panel, style)
    if panel.picture is None and view.kind == "patches":
        high = min(wide * view.rows / view.columns, 1.5 * style.side)
    pixels = _layered(panel, view, max(1, round(wide * style.scale)), max(1, round(high * style.scale)), style)
    marks: list[Mark] = [Photo(x, y, wide, high, pixels, style.smooth)]
    marks += _names(view, x, y, wide, high)
    if panel.box is not None:
        marks += _box(panel, x, y, wide, high)
    height = high
    if view.loose:
        made, more = _chips(view.loose, style, y + high + 8)
        marks += made
        height += more + 8
    return marks, height


def _layered(panel: Panel, view: View, wide: int, high: int, style: Style) -> np.ndarray:
    """Colours below, the picture over them, at the size at which it is looked at."""
    import numpy as np
    from PIL import Image

    layer = coloured(strengths(view, wide, high, style.smooth))
    if panel.picture is None:
        return np.rint(layer).astype(np.uint8)
    picture = Image.fromarray(panel.picture).resize((wide, high), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return overlaid(np.asarray(picture), layer, style.opacity)


def named(view: View) -> list[Unit]:
    """The regions that carry their name, the loudest last: it lies on top."""
    loud = [unit for unit in view.patches if abs(unit.strength) >= LOUD] if view.kind == "regions" else []
    return sorted(loud, key=lambda unit: -abs(unit.strength))[:NAMED][::-1]


def label(unit: Unit) -> str:
    name, strength = unit.name, f"{unit.strength:+.2f}".replace("-", "−")
    return f"{name} {strength}"


def _names(view: View, x: float, y: float, wide: float, high: float) -> list[Mark]:
    """The loudest regions are outlined and named."""
    marks: list[Mark] = []
    for unit in named(view):
        left, top, right, bottom = unit.window or (0, 0, 0, 0)
        fill = colour(unit.strength)
        marks.append(Tile(x + left * wide, y + top * high, (right - left) * wide, (bottom - top) * high, outline=INK))
        text = fitted(label(unit), wide * 0.6, 10.5)
        room = width(text, 10.5) + 8
        at = min(x + left * wide, x + wide - room)
        marks.append(Tile(at, y + top * high, room, 15, fill, INK, 1, 0))
        marks.append(Text(at + 4, y + top * high + 11, text, 10.5, ink(fill)))
    return marks


def _box(panel: Panel, x: float, y: float, wide: float, high: float) -> list[Mark]:
    """The detection: a dark line between two bright ones is seen on every ground."""
    assert panel.box is not None
    left, top, right, bottom = (min(max(share, 0.0), 1.0) for share in panel.box)
    place = (x + left * wide, y + top * high, (right - left) * wide, (bottom - top) * high)
    return [Tile(*place, outline=WHITE, stroke=4, radius=2), Tile(*place, outline=INK, stroke=2, radius=2)]


# ---- what has none


def _words(panel: Panel, view: View, style: Style, y: float) -> tuple[list[Mark], float]:
    if not panel.several_texts:
        return _chips(view.units, style, y)
    marks, height = _chips(view.units, style, y + 17)
    return [Text(0, y + 10, fitted(view.name, style.side, 11), 11, FAINT), *marks], height + 17


def _chips(units: tuple[Unit, ...], style: Style, y: float) -> tuple[list[Mark], float]:
    """Words in reading order, each on its colour."""
    marks: list[Mark] = []
    x, top, size = 0.0, y, 13.5
    for unit in units:
        text = fitted(unit.name, style.side - 10, size)
        wide = width(text, size) + 10
        if x and x + wide > style.side:
            x, top = 0.0, top + LINE
        fill = colour(unit.strength)
        marks.append(Tile(x, top, wide, LINE - 4, fill, radius=4, outline=UNSEEN if sum(fill) > 720 else None))
        marks.append(Text(x + 5, top + 15.5, text, size, ink(fill)))
        x += wide + 4
    return marks, top + LINE - 4 - y


def _strip(panel: Panel, view: View, style: Style, y: float) -> tuple[list[Mark], float]:
    """Cells in rows, with the number or the time at which each row begins."""
    units = view.units
    row = STRIP if len(units) <= 8 * STRIP else 2 * STRIP
    row = min(row, len(units))
    names = {first: _begins(view, first) for first in range(0, len(units), row)}
    indent = max(width(name, 9.5) for name in names.values()) + 6
    cell = min((style.side - indent) / row, 24.0)
    tall = min(max(cell, 9.0), 16.0)
    marks: list[Mark] = [Text(0, y + 10, fitted(view.name, style.side, 11), 11, FAINT)]
    top = y + 17
    for first, name in names.items():
        line = units[first : first + row]
        marks.append(Text(indent - 6, top + tall / 2 + 3.5, name, 9.5, FAINT, anchor="right"))
        for i, unit in enumerate(line):
            marks.append(Tile(indent + i * cell, top, cell, tall, colour(unit.strength)))
        marks.append(Tile(indent, top, len(line) * cell, tall, outline=UNSEEN))
        top += tall + 3
    return marks, top - 3 - y


def _begins(view: View, first: int) -> str:
    name = view.units[first].name
    if view.kind == "frames":
        return f"{name.split(' to ')[0]} s"
    return name.rpartition(" ")[2] if NUMBERED.fullmatch(name) else name


_VIEWS = {"patches": _pictured, "regions": _pictured, "words": _words, "frames": _strip, "tokens": _strip}
