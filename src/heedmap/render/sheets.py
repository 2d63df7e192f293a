"""A sheet of panels, laid out: what `picture` paints and `svg` writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from heedmap.errors import InputError
from heedmap.render import panelling
from heedmap.render.arranging import Row, Several, rows_of
from heedmap.render.colours import AGAINST, FOR, UNSEEN, colour
from heedmap.render.fonts import broken, width
from heedmap.render.marks import Mark, Sheet, Text, Tile, moved
from heedmap.render.panelling import FAINT, Style
from heedmap.render.units import NUMBERED, Panel, number

MARGIN, GAP, BETWEEN = 20.0, 16.0, 26.0
BAR, STEPS = 220.0, 44
MOST = 120_000_000  # pixels of a sheet


@dataclass(frozen=True)
class Block:
    """Marks that begin at (0, 0), and how much room they take."""

    width: float
    height: float
    marks: list[Mark]


def sheet(explanations: Several, style: Style, special: bool = False, given: bool = True, columns: int = 4) -> Sheet:
    """Rows under one another, a colour bar below; `given` puts the picture as it is before its first row.

    Where the panels of a row are of several pictures, none of them stands for the row.
    """
    if columns < 1:
        raise InputError(f"columns={columns}. heedmap expected at least 1.")
    rows = rows_of(explanations, special)
    check_size(sum(len(row.panels) for row in rows) * (style.side * style.scale) ** 2)
    given = given and all(len({panel.source[0] for panel in row.panels}) == 1 for row in rows)
    blocks = [_row(row, style, given, _is_new(rows, i), columns) for i, row in enumerate(rows)]
    inner = max(*(block.width for block in blocks), BAR + 120)
    blocks.append(_legend(rows, inner))
    marks: list[Mark] = []
    y = MARGIN
    for block in blocks:
        marks += moved(block.marks, MARGIN, y)
        y += block.height + BETWEEN
    return Sheet(inner + 2 * MARGIN, y - BETWEEN + MARGIN, tuple(marks), in_words(rows))


def check_size(pixels: float) -> None:
    if pixels > MOST:
        raise InputError(
            f"The sheet would have about {pixels:,.0f} pixels. heedmap draws up to {MOST:,}: show fewer explanations "
            "at a time, or choose a smaller side= or scale=."
        )


def in_words(rows: tuple[Row, ...]) -> str:
    """What a sheet shows, for whoever does not see it."""
    told = []
    for panel in (panel for row in rows for panel in row.panels):
        units = [unit for view in panel.views for unit in view.units if unit.value and not unit.silent]
        units.sort(key=lambda unit: -abs(unit.strength))
        loudest = ", ".join(f"{unit.name} {unit.strength:+.2f}" for unit in units[:3])
        told.append(f"{panel.title} = {number(panel.value)} ({panel.method}): strongest {loudest or 'nothing'}.")
    return " ".join(told)


def _is_new(rows: tuple[Row, ...], i: int) -> bool:
    sources = [row.panels[0].source for row in rows[: i + 1]]
    return sources[i] not in sources[:i]


def _row(row: Row, style: Style, given: bool, new: bool, columns: int) -> Block:
    marks: list[Mark] = []
    top = 0.0
    if row.name:
        marks.append(Text(0, 13, row.name, 13, FAINT, bold=True))
        top = 24.0
    methods = len({panel.method for panel in row.panels}) > 1
    lines = max(len(panelling.heading(panel, style)) for panel in row.panels)
    blocks = [
        Block(style.side, height, made)
        for made, height in (panelling.panel(p, style, lines, p.method if methods else "") for p in row.panels)
    ]
    indent, least = 0.0, 0.0
    if given and row.panels[0].picture is not None:
        indent = style.side + GAP  # also where the picture stands above already: columns stay columns
        if new:
            made, height = panelling.given(row.panels[0], style, lines, methods)
            marks += moved(made, 0, top)
            least = top + height
    wide = 0.0
    for first in range(0, len(blocks), columns):
        line = blocks[first : first + columns]
        for i, block in enumerate(line):
            marks += moved(block.marks, indent + i * (style.side + GAP), top)
        wide = max(wide, indent + len(line) * (style.side + GAP) - GAP)
        top += max(block.height for block in line) + GAP
    return Block(wide, max(top - GAP, least), marks)


def _legend(rows: tuple[Row, ...], room: float) -> Block:
    """The colour bar from -1 to 1, and what the numbers are."""
    before, after = width("against", 12) + 10, width("for", 12) + 10
    step = BAR / STEPS
    marks: list[Mark] = [Text(0, 13, "against", 12, AGAINST, bold=True)]
    before = width("against", 12, bold=True) + 10
    for i in range(STEPS):
        strength = (i + 0.5) / STEPS * 2 - 1
        marks.append(Tile(before + i * step, 2, step + (0.5 if i < STEPS - 1 else 0), 13, colour(strength)))
    marks.append(Tile(before, 2, BAR, 13, outline=UNSEEN))
    marks.append(Text(before + BAR + 10, 13, "for", 12, FOR, bold=True))
    for at, text in ((0.0, "−1"), (0.5, "0"), (1.0, "+1")):
        marks.append(Text(before + at * BAR, 28, text, 10.5, FAINT, anchor="middle"))
    used = before + BAR + after + 24
    beside = room - used > 300
    lines = broken(note([panel for row in rows for panel in row.panels]), room - used if beside else room, 11)
    x, y = (used, 12.0) if beside else (0.0, 50.0)
    for i, line in enumerate(lines):
        marks.append(Text(x, y + i * 16, line, 11, FAINT))
    return Block(room, max(30.0, y + (len(lines) - 1) * 16 + 4), marks)


def note(panels: list[Panel]) -> str:
    """How the colours were made, in a line."""
    methods = tuple(dict.fromkeys(panel.method for panel in panels))
    left = _kinds(unit.name for panel in panels for view in (*panel.views, *panel.hidden) for unit in view.left_out)
    told = f"Method {methods[0]}. " if len(methods) == 1 else ""
    told += "±1 is the strongest that each panel shows."
    if left:
        told += f" Left out: {', '.join(left[:4])}{f' and {len(left) - 4} more' if len(left) > 4 else ''}."
    return told


def _kinds(names: Iterable[str]) -> list[str]:
    """Each name once; those that differ in their number alone are one kind: object queries."""
    kinds: dict[str, set[str]] = {}
    for name in names:
        found = NUMBERED.fullmatch(name)
        kinds.setdefault(found[1] if found else name, set()).add(name)
    return [plural(kind) if len(same) > 1 else next(iter(same)) for kind, same in kinds.items()]


def plural(kind: str) -> str:
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
