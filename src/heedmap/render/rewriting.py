"""The sheet of a rewritten picture: before, after, what was changed, and what explains either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heedmap.records import Explanation
from heedmap.render.fonts import fitted, width
from heedmap.render.marks import Mark, Photo, Sheet, Text, moved
from heedmap.render.panelling import FAINT, Style
from heedmap.render.sheets import BETWEEN, GAP, MARGIN, sheet

if TYPE_CHECKING:
    import numpy as np

GREY = 128
NOTE = "Grey is no change, brighter more and darker less of a colour."


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture with what it is called, and a number beside that."""

    title: str
    figure: str
    pixels: np.ndarray


def amplified(change: np.ndarray) -> tuple[np.ndarray, int]:
    """Signed levels as a picture, grey where nothing changed, and by how much they were multiplied to be seen."""
    import numpy as np

    factor = max(1, (GREY - 1) // max(int(np.abs(change).max()), 1))
    return (GREY + factor * change.astype(np.int32)).clip(0, 255).astype(np.uint8), factor


def rewriting_sheet(
    shots: Sequence[Shot], explanations: Mapping[str, Sequence[Explanation]], note: str, style: Style | None = None
) -> Sheet:
    """Pictures above, each as wide as a panel; below them a row of explanations for each of the mapping."""
    style = style or Style(side=260.0)
    below = sheet(explanations, style, given=False)
    marks: list[Mark] = []
    tallest = 0.0
    for i, shot in enumerate(shots):
        made, height = _shot(shot, style)
        marks += moved(made, MARGIN + i * (style.side + GAP), MARGIN)
        tallest = max(tallest, height)
    note_at = MARGIN + tallest + 18
    marks.append(Text(MARGIN, note_at, fitted(note, below.width - 2 * MARGIN, 11), 11, FAINT))
    top = note_at + BETWEEN - MARGIN
    says = f"{'; '.join(f'{shot.title} {shot.figure}' for shot in shots)}. {note} {below.says}"
    return Sheet(below.width, top + below.height, (*marks, *moved(list(below.marks), 0, top)), says)


def _shot(shot: Shot, style: Style) -> tuple[list[Mark], float]:
    high, wide = shot.pixels.shape[:2]
    factor = min(style.side / wide, 1.5 * style.side / high)
    place = (style.side - wide * factor) / 2, 24.0, wide * factor, high * factor
    room = style.side - width(shot.figure, 13) - 10
    return [
        Text(style.side, 14, shot.figure, 13, FAINT, anchor="right"),
        Text(0, 14, fitted(shot.title, room, 14, bold=True), 14, bold=True),
        Photo(*place, shot.pixels),
    ], 24.0 + high * factor
