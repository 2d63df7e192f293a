"""A picture and its guide side by side, and an explanation of the pair cut back to the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from heedmap.errors import InputError
from heedmap.layouts import Grid, Shown, Window
from heedmap.records import Explanation

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

# Where the guide stands, and where that leaves the picture: left, top, right, bottom as shares of the pair.
SIDES: Mapping[str, Window] = {
    "right": (0.0, 0.0, 0.5, 1.0),
    "left": (0.5, 0.0, 1.0, 1.0),
    "below": (0.0, 0.0, 1.0, 0.5),
    "above": (0.0, 0.5, 1.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class Stitched:
    """A pair, and which part of it is the picture."""

    image: Image
    window: Window


def stitch(picture: Image, guide: Image, side: str = "right", size: tuple[int, int] | None = None) -> Stitched:
    """The guide put on a side of the picture, both of one size.

    `size` (width, height) is that of the pair; by default the picture keeps its own.
    """
    from PIL import Image

    if side not in SIDES:
        raise InputError(f"side is {side!r}. heedmap expected one of {', '.join(SIDES)}.")
    beside = side in ("left", "right")
    width, height = size or (picture.width * (1 + beside), picture.height * (2 - beside))
    if min(width, height) < 2:
        raise InputError(f"A pair of {width} x {height} pixels has no room for two pictures.")
    half = (width // 2, height) if beside else (width, height // 2)
    pair = Image.new("RGB", (width, height))
    x, y = (width - half[0] if side == "left" else 0), (height - half[1] if side == "above" else 0)
    # What is left of an odd side goes to the guide.
    rest = (width - half[0], height) if beside else (width, height - half[1])
    pair.paste(_sized(guide, rest), (half[0] if side == "right" else 0, half[1] if side == "below" else 0))
    pair.paste(_sized(picture, half), (x, y))
    window = (x / width, y / height, (x + half[0]) / width, (y + half[1]) / height)
    return Stitched(pair, window)


def _sized(image: Image, size: tuple[int, int]) -> Image:
    from PIL import Image

    image = image.convert("RGB")
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def cut(explanation: Explanation, window: Window, pictures: Sequence[np.ndarray]) -> Explanation:
    """Of an explanation of a pair, what is said of the picture: the patches whose middle lies in the window.

    `pictures` are what is shown instead of the pairs, one per example.
    """
    grids = [
        {name: one for name, one in example.layouts.items() if isinstance(one, Grid)} for example in _shown(explanation)
    ]
    streams = list(grids[0])
    if not streams or any(list(each) != streams for each in grids):
        raise InputError(
            "No stream of this model is known to be a grid of patches, so what is said of the picture cannot be told "
            "from what is said of its guide. Explain the stitched picture as it is: heedmap.guidance.stitch."
        )
    relevance, starts = dict(explanation.relevance), dict(explanation.starts)
    shown = [replace(example, picture=picture) for example, picture in zip(explanation.shown, pictures, strict=True)]
    for stream in streams:
        cuts = [_cut(each[stream], relevance[stream].shape[1], window) for each in grids]
        kept = cuts[0][0]
        if any(tokens != kept for tokens, _ in cuts):
            raise InputError("The pictures lie differently in their pairs. Explain them one at a time.")
        relevance[stream], starts[stream] = relevance[stream][:, kept], starts[stream][:, kept]
        shown = [
            replace(example, layouts={**example.layouts, stream: layout})
            for example, (_, layout) in zip(shown, cuts, strict=True)
        ]
    pixels = explanation.pixels
    if pixels is not None:
        pixels = _cut_pixels(pixels, grids[0][streams[0]], window)
    return replace(explanation, relevance=relevance, starts=starts, shown=tuple(shown), pixels=pixels)


def _shown(explanation: Explanation) -> tuple[Shown, ...]:
    return explanation.shown or (Shown({}),)


def _within(grid: Grid, window: Window) -> tuple[range, range]:
    """The rows and columns of a grid whose middle lies in a window."""
    left, top, right, bottom = grid.window
    across, down = (right - left) / grid.columns, (bottom - top) / grid.rows
    columns = [i for i in range(grid.columns) if window[0] < left + (i + 0.5) * across < window[2]]
    rows = [i for i in range(grid.rows) if window[1] < top + (i + 0.5) * down < window[3]]
    if not rows or not columns:
        raise InputError(f"No patch of the {grid.rows} x {grid.columns} lies in the picture's part of the pair.")
    return range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1)


def _cut_pixels(pixels: Tensor, grid: Grid, window: Window) -> Tensor:
    """The pixels of the patches that stay."""
    high, wide = pixels.shape[1] // grid.rows, pixels.shape[2] // grid.columns
    rows, columns = _within(grid, window)
    return pixels[:, rows.start * high : rows.stop * high, columns.start * wide : columns.stop * wide]


def _cut(grid: Grid, tokens: int, window: Window) -> tuple[list[int], Grid]:
    """The tokens that stay, those that are no patches among them, and the grid that they make."""
    left, top, right, bottom = grid.window
    across, down = (right - left) / grid.columns, (bottom - top) / grid.rows
    rows, columns = _within(grid, window)
    end = grid.first + grid.rows * grid.columns
    patches = [grid.first + row * grid.columns + column for row in rows for column in columns]
    kept = [*range(grid.first), *patches, *range(end, tokens)]
    wide, high = window[2] - window[0], window[3] - window[1]
    own = (
        (left + columns[0] * across - window[0]) / wide,
        (top + rows[0] * down - window[1]) / high,
        (left + (columns[-1] + 1) * across - window[0]) / wide,
        (top + (rows[-1] + 1) * down - window[1]) / high,
    )
    special = {kept.index(token): name for token, name in grid.special.items() if token in set(kept)}
    return kept, Grid(len(rows), len(columns), grid.first, own, special)
