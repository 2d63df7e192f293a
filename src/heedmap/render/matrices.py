"""What was written by what was read: a row for each word that was written, a column for each that it may have read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from heedmap.errors import InputError
from heedmap.render.colours import AGAINST, FOR, UNSEEN, colour, hexed
from heedmap.render.fonts import broken, fitted, font_for, width
from heedmap.render.marks import Mark, Sheet, Text, Tile
from heedmap.render.panelling import FAINT
from heedmap.render.sheets import BAR, MARGIN, STEPS
from heedmap.render.units import Unit, number

if TYPE_CHECKING:
    from PIL.Image import Image

CELL = 20.0
LABEL, ROOM = 12.0, 140.0  # size of type, and how long a word may run
GAP, SKIP, BESIDE = 22.0, 5.0, 46.0  # between blocks; where columns are left out; for the number beside a row
MOST = 40  # words across in a block
BINS, SOUND = 160, 440.0  # stretches of sound across, and the width they share
TICK = 46.0  # from one time to the next, at least


@dataclass(frozen=True)
class Column:
    """A word that may be read, or a stretch of sound; `place` is its number among all there are."""

    name: str
    place: int


@dataclass(frozen=True)
class Block:
    """One stream: a strength for each row and column; None is what was not yet there."""

    name: str
    columns: tuple[Column, ...]
    strengths: tuple[tuple[float | None, ...], ...]
    peaks: tuple[float, ...]  # what the strength 1 is in each row
    timed: bool = False
    all: int = 0  # how many columns there are, those left out among them

    @property
    def cell(self) -> float:
        """How wide a column is."""
        return min(max(SOUND / len(self.columns), 2.0), 2 * CELL) if self.timed else CELL

    @property
    def starts(self) -> list[float]:
        """Where each column begins; where some are left out there is a gap."""
        gaps = 0.0
        starts = [0.0]
        for i, (before, column) in enumerate(zip(self.columns, self.columns[1:], strict=False), start=1):
            gaps += SKIP if not self.timed and column.place > before.place + 1 else 0.0
            starts.append(i * self.cell + gaps)
        return starts

    @property
    def width(self) -> float:
        return self.starts[-1] + self.cell + BESIDE


@dataclass(frozen=True)
class Matrix:
    """A sheet, and the texts on it that are read from below: the words above the columns."""

    sheet: Sheet
    turned: tuple[Text, ...]


def block(name: str, names: Sequence[str], rows: Sequence[Sequence[Unit]], timed: bool) -> Block:
    """`rows` has for each word that was written the units that were there; they are the first of `names`."""
    count = max(map(len, rows), default=0)
    if timed:
        rows, names = _binned(rows, names[:count])
        count = len(names)
    peaks = [_peak(row) for row in rows]
    strengths = [[unit.strength for unit in row] + [None] * (count - len(row)) for row in rows]
    loud = [max((abs(row[i] or 0.0) for row in strengths), default=0.0) for i in range(count)]
    kept = sorted(sorted(range(count), key=lambda i: -loud[i])[:MOST]) if not timed else list(range(count))
    return Block(
        name,
        tuple(Column(names[i], i) for i in kept),
        tuple(tuple(row[i] for i in kept) for row in strengths),
        tuple(peaks),
        timed,
        count,
    )


def _peak(row: Sequence[Unit]) -> float:
    """What the strength 1 is: the loudest may stand in another part of the stream."""
    loudest = max(row, key=lambda unit: abs(unit.strength), default=None)
    return abs(loudest.value / loudest.strength) if loudest and loudest.strength else 0.0


def matrix(title: str, names: Sequence[str], blocks: Sequence[Block], note: str) -> Matrix:
    """Blocks beside one another, the words that were written to their left, a colour bar below."""
    blocks = [one for one in blocks if one.columns]
    if not blocks:
        raise InputError("There is nothing that was read. heedmap expected a stream with at least one word.")
    left = max(min(width(name, LABEL, bold=True), ROOM) for name in names) + 10
    room = left + sum(one.width + GAP for one in blocks) - GAP
    room = max(room, *(left + width(one.name, 11) for one in blocks), BAR + 120)
    lines = broken(title, room, 14, bold=True)
    marks: list[Mark] = [Text(0, 14 + 18 * i, line, 14, bold=True) for i, line in enumerate(lines)]
    top = 18.0 * len(lines) + 10
    above = max(_above(one) for one in blocks)
    turned: list[Text] = []
    x = left
    for one in blocks:
        made, labels = _drawn(one, x, top, above)
        marks += made
        turned += labels
        x += max(one.width, width(one.name, 11)) + GAP
    room = max(room, x - GAP)
    top += 18 + above
    for i, name in enumerate(names):
        text = fitted(name, ROOM, LABEL, bold=True)
        marks.append(Text(left - 10, top + CELL * i + 14, text, LABEL, bold=True, anchor="right"))
    top += CELL * len(names) + 20
    made, height = _legend(note, room)
    marks += [replace(mark, y=mark.y + top) for mark in made]
    shifted = tuple(replace(mark, x=mark.x + MARGIN, y=mark.y + MARGIN) for mark in marks)
    across = tuple(replace(mark, x=mark.x + MARGIN, y=mark.y + MARGIN) for mark in turned)
    size = room + 2 * MARGIN, top + height + 2 * MARGIN
    return Matrix(Sheet(*size, shifted, _in_words(title, names, blocks)), across)


def painted(made: Matrix, scale: float = 1) -> Image:
    from heedmap.render import painting

    image = painting.painted(made.sheet, scale)
    for mark in made.turned:
        _paint_turned(image, mark, scale)
    return image


def written(made: Matrix) -> str:
    """As SVG."""
    from xml.sax.saxutils import escape

    from heedmap.render import vectors

    labels = "".join(
        f'<text transform="translate({mark.x:.2f} {mark.y:.2f}) rotate(-90)" font-size="{mark.size:g}" '
        f'fill="{hexed(mark.colour)}">{escape(mark.text)}</text>\n'
        for mark in made.turned
    )
    body, end = vectors.written(made.sheet).rsplit("</svg>", 1)
    return f"{body}{labels}</svg>{end}"


# ---- one block


def _above(one: Block) -> float:
    """How high the names of its columns reach."""
    if one.timed:
        return 16.0
    return max(min(width(column.name, LABEL), ROOM) for column in one.columns) + 8


def _drawn(one: Block, x: float, y: float, above: float) -> tuple[list[Mark], list[Text]]:
    top = y + 18 + above
    marks: list[Mark] = [Text(x, y + 10, one.name, 11, FAINT)]
    turned = []
    if one.timed:
        marks += _times(one, x, top - 5)
    else:
        for column, at in zip(one.columns, one.starts, strict=True):
            text = fitted(column.name, ROOM, LABEL)
            turned.append(Text(x + at + CELL / 2 + 0.36 * LABEL, top - 6, text, LABEL))
    apart = 0.0 if one.timed else 1.0
    for i, (row, peak) in enumerate(zip(one.strengths, one.peaks, strict=True)):
        if peak:
            marks.append(Text(x + one.width - BESIDE + 5, top + CELL * i + 14, f"±{number(peak)}", 10, FAINT))
        for at, strength in zip(one.starts, row, strict=True):
            fill = UNSEEN if strength is None else colour(strength)
            marks.append(Tile(x + at, top + CELL * i, one.cell - apart, CELL - 1, fill))
            if strength is not None and not one.timed:
                marks.append(Tile(x + at, top + CELL * i, one.cell, CELL, outline=UNSEEN))
        if one.timed:
            marks.append(Tile(x, top + CELL * i, one.width - BESIDE, CELL, outline=UNSEEN))
    return marks, turned


def _times(one: Block, x: float, y: float) -> list[Mark]:
    """The time at which every so many stretches begin."""
    marks, free = [], 0.0
    for column, at in zip(one.columns, one.starts, strict=True):
        if at >= free and one.width - BESIDE - at >= TICK / 2:
            marks.append(Text(x + at, y, f"{column.name.split(' to ')[0]} s", 9.5, FAINT))
            free = at + TICK
    return marks


def _binned(rows: Sequence[Sequence[Unit]], names: Sequence[str]) -> tuple[list[list[Unit]], list[str]]:
    """Stretches put together until there is room for them: what flowed adds up."""
    size = max(1, math.ceil(len(names) / BINS))
    firsts = range(0, len(names), size)
    made = []
    for row in rows:
        sums = [sum(unit.value for unit in row[first : first + size]) for first in firsts]
        peak = max(map(abs, sums), default=0.0) or 1.0
        made.append([Unit(names[first], value, value / peak) for first, value in zip(firsts, sums, strict=True)])
    return made, [names[first] for first in firsts]


# ---- around them


def _legend(note: str, room: float) -> tuple[list[Mark], float]:
    """The colour bar, and below it what is to be known."""
    before = width("against", 12, bold=True) + 10
    marks: list[Mark] = [Text(0, 13, "against", 12, AGAINST, bold=True)]
    step = BAR / STEPS
    for i in range(STEPS):
        strength = (i + 0.5) / STEPS * 2 - 1
        marks.append(Tile(before + i * step, 2, step + (0.5 if i < STEPS - 1 else 0), 13, colour(strength)))
    marks.append(Tile(before, 2, BAR, 13, outline=UNSEEN))
    marks.append(Text(before + BAR + 10, 13, "for", 12, FOR, bold=True))
    for at, text in ((0.0, "−1"), (0.5, "0"), (1.0, "+1")):
        marks.append(Text(before + at * BAR, 28, text, 10.5, FAINT, anchor="middle"))
    lines = broken(note, room, 11)
    marks += [Text(0, 50 + 16 * i, line, 11, FAINT) for i, line in enumerate(lines)]
    return marks, 50 + 16.0 * len(lines) - 10


def _in_words(title: str, names: Sequence[str], blocks: Sequence[Block]) -> str:
    """What is to be seen, for whoever does not see it."""
    told = []
    for i, name in enumerate(names):
        cells = [
            (column.name, strength)
            for one in blocks
            for column, strength in zip(one.columns, one.strengths[i], strict=True)
            if strength
        ]
        cells.sort(key=lambda cell: -abs(cell[1]))
        loudest = ", ".join(f"{column} {strength:+.2f}" for column, strength in cells[:3])
        told.append(f"{name}: strongest {loudest or 'nothing'}.")
    return f"{title} {' '.join(told)}"


def _paint_turned(image: Image, mark: Text, scale: float) -> None:
    """A text read from below: drawn level, then turned."""
    from PIL import Image, ImageDraw

    font = font_for(mark.text, mark.size * scale)
    rise = math.ceil(1.1 * mark.size * scale)  # above the line on which it stands
    size = math.ceil(font.getlength(mark.text)) + 2, rise + math.ceil(0.4 * mark.size * scale)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).text((0, rise), mark.text, 255, font, "ls")
    mask = mask.transpose(Image.Transpose.ROTATE_90)
    image.paste(mark.colour, (round(mark.x * scale) - rise, round(mark.y * scale) - size[0]), mask)
