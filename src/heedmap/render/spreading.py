"""Tiles and the whole beside them, drawn as one map: each patch's number is shared out over what it covers, and added.

    map = sum over grids of  down.T @ numbers @ across

where a row of `across` has the shares of a grid's column in the columns of the map, and sums to 1: what is drawn of a
patch is its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import TYPE_CHECKING

from heedmap.layouts import Grid, Tiles, Window

if TYPE_CHECKING:
    import numpy as np

WHOLE: Window = (0.0, 0.0, 1.0, 1.0)
CLOSE = 0.05  # of a cell: edges nearer than that are one


def spread(layout: Tiles, values: Sequence[float]) -> tuple[np.ndarray, Window]:
    """The map (row, column), as fine as the finest grid, and what it covers; nan where a method is silent of it all."""
    import numpy as np

    frames = layout.frames or (WHOLE,) * len(layout.grids)
    edges = [
        tuple(_clipped(grid, frame, axis) for axis in (0, 1)) for grid, frame in zip(layout.grids, frames, strict=True)
    ]
    lines = [_lines(layout.grids, edges, axis) for axis in (0, 1)]
    total, told = (np.zeros((len(lines[1]) - 1, len(lines[0]) - 1)) for _ in range(2))
    numbers = np.asarray(values, float)
    for i, (grid, (columns, rows)) in enumerate(zip(layout.grids, edges, strict=True)):
        across, down = _shares(columns, lines[0]), _shares(rows, lines[1])
        own = numbers[list(layout.tokens(i))].reshape(grid.rows, grid.columns)
        total += down.T @ np.nan_to_num(own) @ across
        told += down.T @ ~np.isnan(own) @ across
    total[(told == 0) & bool(np.isnan(numbers).any())] = np.nan
    return total, (lines[0][0], lines[1][0], lines[0][-1], lines[1][-1])


def _clipped(grid: Grid, frame: Window, axis: int) -> np.ndarray:
    """Where each column (axis 0) or row of a grid begins and ends within its picture, (cell, 2)."""
    import numpy as np

    count = grid.rows if axis else grid.columns
    edges = np.linspace(grid.window[axis], grid.window[axis + 2], count + 1).clip(frame[axis], frame[axis + 2])
    return np.stack([edges[:-1], edges[1:]], 1)


def _lines(grids: Sequence[Grid], edges: Sequence[tuple[np.ndarray, ...]], axis: int) -> np.ndarray:
    """Where the map's columns or rows begin, and where the last one ends: those of the finest grid, carried on."""
    import numpy as np

    def step(grid: Grid) -> float:
        return (grid.window[axis + 2] - grid.window[axis]) / (grid.rows if axis else grid.columns)

    finest = min(grids, key=step)
    wide, begin = step(finest), finest.window[axis]
    low, high = min(float(each[axis].min()) for each in edges), max(float(each[axis].max()) for each in edges)
    first, last = floor((low - begin) / wide + CLOSE), ceil((high - begin) / wide - CLOSE)
    return begin + wide * np.arange(first, max(last, first + 1) + 1)


def _shares(cells: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """The share of each cell that lies in each column or row of the map; none of a cell beyond the picture."""
    import numpy as np

    low, high = np.maximum(cells[:, :1], lines[None, :-1]), np.minimum(cells[:, 1:], lines[None, 1:])
    shares = (high - low).clip(0)
    total = shares.sum(1, keepdims=True)
    return np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
