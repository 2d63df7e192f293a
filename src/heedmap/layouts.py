"""What the tokens of a stream are, for whoever shows an explanation. The numbers never need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Window: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom as shares of the picture


@dataclass(frozen=True)
class Grid:
    """Patches of the picture, row by row, from token `first` on.

    `window` is the part of the shown picture that the grid covers: (0, 0, 1, 1) is all of it, more where the model's
    processor padded, less where it cropped.
    """

    rows: int
    columns: int
    first: int = 0
    window: Window = (0.0, 0.0, 1.0, 1.0)
    special: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tiles:
    """Grids that show parts of the picture, or all of it again, or patches in an order of their own: drawn as one map.

    `order` has the token of each cell, grid by grid and row by row; without it a grid's tokens are those from its
    `first` on. Of several pictures side by side `frames` says of which part each grid is.
    """

    grids: tuple[Grid, ...]
    order: tuple[int, ...] = ()
    frames: tuple[Window, ...] = ()
    special: Mapping[int, str] = field(default_factory=dict)

    def tokens(self, number: int) -> tuple[int, ...]:
        """The tokens of a grid's cells, row by row."""
        grid = self.grids[number]
        last = grid.first + grid.rows * grid.columns
        return self.order[grid.first : last] if self.order else tuple(range(grid.first, last))


@dataclass(frozen=True)
class Words:
    """Tokens of a text. `words` are the tokens of each whole word in reading order, special ones left out.

    `parts` says whose words they are where several took turns: what each part is called, and how many tokens it has.
    """

    texts: tuple[str, ...]  # of each token
    words: tuple[tuple[int, ...], ...]
    special: Mapping[int, str] = field(default_factory=dict)
    parts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Regions:
    """Boxes of the picture, one for each token, special ones too; each with a name (empty where it has none)."""

    boxes: tuple[Window, ...]
    names: tuple[str, ...]
    special: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Frames:
    """Stretches of sound or video of `seconds` each."""

    seconds: float
    special: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plain:
    """Tokens of which nothing is known but their number."""

    special: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Joined:
    """Kinds of tokens side by side in one stream. Each part: what it is called, how many tokens it has, its layout."""

    parts: tuple[tuple[str, int, Grid | Words | Regions | Frames | Plain], ...]

    @property
    def special(self) -> dict[int, str]:
        """The special tokens of all parts, counted from the start of the stream."""
        found, start = {}, 0
        for _, tokens, layout in self.parts:
            found |= {start + token: name for token, name in layout.special.items()}
            start += tokens
        return found


Layout: TypeAlias = Grid | Tiles | Words | Regions | Frames | Plain | Joined


@dataclass(frozen=True)
class Shown:
    """One example as a person sees it: what was given, and what each stream's tokens are in it.

    `special` of a layout names the tokens that are no part of what was given (CLS, registers, padding, end marks).
    `box` is the detection that is explained, `sure` how probable the model finds it, `answer` what the explained target
    is in words.
    """

    layouts: Mapping[str, Layout]
    picture: np.ndarray | None = None  # bytes, (height, width, 3)
    text: str | None = None
    box: Window | None = None
    answer: str | None = None
    sure: float | None = None
