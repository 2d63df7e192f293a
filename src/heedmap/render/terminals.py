"""An explanation in a terminal: half blocks and coloured words; letters and signs where there is no colour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heedmap.records import Explanation
from heedmap.render.colours import AGAINST, FOR, OPACITY, RGB, colour, coloured, hexed, ink, overlaid, strengths
from heedmap.render.sheets import note
from heedmap.render.units import Panel, Unit, View
from heedmap.render.views import panels

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

WIDE = 48  # characters of a picture at most; a character is as wide as one point and as high as two
NAMED = 3  # units told by name
UNSEEN, NOTHING = "  ", " ·"
SPELT = str.maketrans({"−": "-", "·": ".", "±": "+-", "×": "*", "…": "...", "␣": "_"})


def terminal(explanation: Explanation, *, width: int = WIDE, special: bool = False, top: int = NAMED) -> Terminal:
    """What `rich` prints: `width` is a picture's, `top` how many patches or regions are told by name."""
    return Terminal(panels(explanation, special), width, top)


@dataclass(frozen=True)
class Terminal:
    """It looks at the console when it is printed: its width, its colours, and whether it knows half blocks."""

    panels: tuple[Panel, ...]
    width: int
    top: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        bright = console.color_system is not None and not console.no_color and not options.ascii_only
        for line in self._lines(bright, options.max_width):
            yield _spelt(line) if options.ascii_only else line

    def _lines(self, bright: bool, room: int) -> Iterator[Text]:
        from rich.text import Text

        for panel in self.panels:
            yield Text.assemble((panel.title, "bold"), f"  {panel.figure}", (f"  {panel.method}", "dim"))
            for view in panel.views:
                yield from _lines(panel, view, bright, min(self.width, room), self.top)
            yield Text()
        yield Text.assemble(*_legend(bright), (f"  {note(list(self.panels))}", "dim"))


def _lines(panel: Panel, view: View, bright: bool, width: int, top: int) -> Iterator[Text]:
    from rich.text import Text

    if view.placed:
        yield from _blocks(panel, view, width) if bright else _signs(view, width)
        yield _loudest(view, top, bright)
        if view.loose:
            yield Text(" ").join(_word(unit, bright) for unit in view.loose)
    elif view.kind == "words":
        if panel.several_texts:
            yield Text(view.name, style="dim")
        yield Text(" ").join(_word(unit, bright) for unit in view.units)
    else:
        yield Text(view.name, style="dim")
        if bright:
            yield Text.assemble(*((" ", f"on {hexed(colour(unit.strength))}") for unit in view.units))
        yield _loudest(view, top, bright)


def _blocks(panel: Panel, view: View, width: int) -> Iterator[Text]:
    """Two points to a character: the upper one is its colour, the lower one its background."""
    import numpy as np
    from PIL import Image
    from rich.style import Style
    from rich.text import Text

    share = view.rows / view.columns if view.kind == "patches" else 1.0
    if panel.picture is not None:
        share = panel.picture.shape[0] / panel.picture.shape[1]
    high = max(2, 2 * round(min(share, 2.0) * width / 2))
    points = coloured(strengths(view, width, high))
    if panel.picture is not None:
        small = Image.fromarray(panel.picture).resize((width, high), Image.Resampling.BOX)
        points = overlaid(np.asarray(small), points, OPACITY)
    for above, below in zip(points[::2].tolist(), points[1::2].tolist(), strict=True):
        yield Text.assemble(*(("▀", Style(color=_of(a), bgcolor=_of(b))) for a, b in zip(above, below, strict=True)))


def _of(point: list[float]) -> str:
    red, green, blue = (round(level) for level in point)
    return hexed((red, green, blue))


def _signs(view: View, width: int) -> Iterator[Text]:
    """Each patch as its sign and tenths of its strength: +9 is nearly the strongest, · nearly nothing."""
    from rich.text import Text

    wide = view.columns if view.kind == "patches" else 16
    high = view.rows if view.kind == "patches" else 16
    while wide * 2 > width and wide > 8:
        wide, high = -(-wide // 2), -(-high // 2)
    field = _gathered(view, wide, high)
    for row in field:
        yield Text("".join(_cell(strength) for strength in row).rstrip())


def _gathered(view: View, wide: int, high: int) -> list[list[float | None]]:
    """The strongest of the units in each cell, so that none is averaged away."""
    found: list[list[float | None]] = [[None] * wide for _ in range(high)]
    left, top, right, bottom = view.window
    for unit in (each for each in view.patches if not each.silent):
        x0, y0, x1, y1 = unit.window or view.window
        columns = _span((x0 - left) / (right - left), (x1 - left) / (right - left), wide)
        rows = _span((y0 - top) / (bottom - top), (y1 - top) / (bottom - top), high)
        for row in rows:
            for column in columns:
                met = found[row][column]
                if met is None or abs(unit.strength) > abs(met):
                    found[row][column] = unit.strength
    return found


def _span(first: float, last: float, cells: int) -> range:
    start = min(max(int(first * cells + 1e-6), 0), cells - 1)
    return range(start, max(min(int(last * cells + 1 - 1e-6), cells), start + 1))


def _cell(strength: float | None) -> str:
    if strength is None:
        return UNSEEN
    tenths = min(int(abs(strength) * 10), 9)
    return f"{'+' if strength > 0 else '-'}{tenths}" if tenths else NOTHING


def _word(unit: Unit, bright: bool) -> Text:
    from rich.style import Style
    from rich.text import Text

    if bright:
        fill: RGB = colour(unit.strength)
        return Text(f" {unit.name} ", Style(color=hexed(ink(fill)), bgcolor=hexed(fill)))
    return Text(unit.name if abs(unit.strength) < 0.05 else f"{unit.name}({_signed(unit.strength)})")


def _loudest(view: View, top: int, bright: bool) -> Text:
    """The strongest of each sign by name."""
    from rich.text import Text

    text = Text()
    for sign, full in ((1, FOR), (-1, AGAINST)):
        units = sorted((u for u in view.units if u.strength * sign > 0.05), key=lambda u: -abs(u.strength))[:top]
        if units:
            told = ", ".join(f"{unit.name} {_signed(unit.strength)}" for unit in units)
            text.append("\n" if text else "")
            text.append("for: " if sign > 0 else "against: ", f"bold {_readable(full)}" if bright else "")
            text.append(told)
    return text


def _legend(bright: bool) -> list[tuple[str, str]]:
    if bright:
        bar = [(" ", f"on {hexed(colour(step / 6))}") for step in range(-6, 7)]
        return [("against ", f"bold {_readable(AGAINST)}"), *bar, (" for", f"bold {_readable(FOR)}")]
    return [("+ for, - against", "")]


def _readable(full: RGB) -> str:
    """The colour of a sign for letters on a dark or a bright ground."""
    return "#e8334a" if full == FOR else "#2f94d6"


def _spelt(line: Text) -> Text:
    """For a console that knows ASCII alone."""
    from rich.text import Text

    return Text(line.plain.translate(SPELT).encode("ascii", "replace").decode())


def _signed(strength: float) -> str:
    return f"{strength:+.2f}"
