"""Where relevance lies on a picture, against what is known to be there.

A patch spreads its relevance evenly over the pixels that it covers. Shares are NaN where nothing has the sign.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from heedmap.errors import InputError
from heedmap.evaluation.statistics import outranks
from heedmap.layouts import Grid
from heedmap.records import Explanation

DIGITS = 9  # beyond these a number is the error of its computing


def spread(explanation: Explanation, example: int = 0, shape: tuple[int, int] | None = None) -> np.ndarray:
    """The relevance of each pixel, (height, width) of `shape` or of the picture: sums are kept inside the picture."""
    shown = explanation.shown[example] if explanation.shown else None
    grids = {name: one for name, one in (shown.layouts if shown else {}).items() if isinstance(one, Grid)}
    if shown is None or (not grids and explanation.pixels is None):
        raise InputError("The explanation says of no stream that it is a grid of patches: nothing can be located.")
    if shape is None:
        if shown.picture is None:
            raise InputError("The explanation keeps no picture. Give shape=(height, width).")
        shape = shown.picture.shape[0], shown.picture.shape[1]
    cells = _cells(explanation, example, grids)
    window = next(iter(grids.values())).window if grids else (0.0, 0.0, 1.0, 1.0)
    left, top, right, bottom = window
    down = _shares(cells.shape[0], top, bottom, shape[0])
    across = _shares(cells.shape[1], left, right, shape[1])
    return down.T @ cells @ across


def _cells(explanation: Explanation, example: int, grids: Mapping[str, Grid]) -> np.ndarray:
    """The pixels of the model's input where a method scores them, else its patches; where it is silent, nothing."""
    if explanation.pixels is not None:
        return explanation.pixels[example].detach().double().nan_to_num(0.0).cpu().numpy()
    (stream, grid), *_ = grids.items()
    flowed = explanation[stream][example].detach().double().nan_to_num(0.0).cpu().numpy().copy()
    flowed[list(grid.special)] = 0.0
    return flowed[grid.first : grid.first + grid.rows * grid.columns].reshape(grid.rows, grid.columns)


def _shares(cells: int, start: float, end: float, pixels: int) -> np.ndarray:
    """(cell, pixel): how much of each cell lies on each pixel."""
    # Rounded: a cell that ends where a pixel does would else lie on the next one too, by the error of a division.
    edges = np.round((start + (end - start) * np.arange(cells + 1) / cells) * pixels, DIGITS)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(pixels)[None]
    covered = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return covered / max((end - start) / cells * pixels, 1e-12)


def share(values: np.ndarray, mask: np.ndarray, sign: int = 1) -> float:
    """How much of what speaks for (sign 1) or against (-1) lies on the mask."""
    kept = np.clip(sign * values, 0, None)
    total = kept.sum()
    return float(kept[mask].sum() / total) if total > 0 else float("nan")


def points(values: np.ndarray, mask: np.ndarray, sign: int = 1) -> float:
    """1 if the strongest pixel of a sign lies on the mask, else 0; of several as strong, how many do."""
    kept = sign * values
    best = kept.max()
    return float(mask[kept >= best - 1e-12 * abs(best)].mean()) if best > 0 else float("nan")


def covers(values: np.ndarray, mask: np.ndarray, sign: int = 1) -> float:
    """How much of the mask has a sign."""
    return float((sign * values[mask] > 0).mean()) if mask.any() else float("nan")


def balance(values: np.ndarray, mask: np.ndarray) -> float:
    """What the mask sums to, over all that is there of either sign: from -1 to 1."""
    total = np.abs(values[mask]).sum()
    return float(values[mask].sum() / total) if total > 0 else float("nan")


def ranks(values: np.ndarray, mask: np.ndarray) -> float:
    """How often a pixel of the mask outranks one beside it, ties half: 1 is perfect, 0.5 is chance."""
    peak = np.abs(values).max(initial=0.0)
    told = np.round(values / peak, DIGITS) if peak > 0 else values  # what is equal but for rounding is equal
    return outranks(told[mask], told[~mask])
