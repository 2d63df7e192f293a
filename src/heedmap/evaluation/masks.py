"""From a map to a mask: eight bits, Otsu's threshold, and up to the picture's size.

What speaks against an answer is no part of its object: of a signed map the positive part is taken. The clean way keeps
an object as large as its cells; `official` keeps what the published code does, step by step (docs/segmentation.md).
"""

from __future__ import annotations

import numpy as np

from heedmap.errors import InputError
from heedmap.installs import extra
from heedmap.layouts import Grid, Window
from heedmap.records import Explanation

WHOLE: Window = (0.0, 0.0, 1.0, 1.0)


def mask(
    values: np.ndarray,
    height: int,
    width: int,
    scale: float = 1.0,
    official: bool = False,
    *,
    window: Window = WHOLE,
    fed: tuple[int, int] | None = None,
) -> np.ndarray:
    """The pixels (height, width) of what a map of cells (row, column) marks.

    `window` is the part of the picture that the cells cover. Officially they are stretched over all of it, at the size
    (height, width) in which the model was `fed` the picture.
    """
    marked = otsu(values, scale, official)
    if official:
        return nearest(grown(marked, *(fed or (height, width))), height, width)
    left, top, right, bottom = window
    down = _bilinear(marked.shape[0], height, top, bottom)
    across = _bilinear(marked.shape[1], width, left, right)
    return down @ marked.astype(np.float64) @ across.T > 0.5


def otsu(values: np.ndarray, scale: float = 1.0, official: bool = False) -> np.ndarray:
    """The cells above `scale` times Otsu's threshold, of the map as eight bits; none where all are the same."""
    shades = eight_bits(values, official)
    return shades > scale * threshold(shades)


def eight_bits(values: np.ndarray, official: bool = False) -> np.ndarray:
    """The positive part from 0 (its least) to 255 (its most): to the nearest number, officially to the one below."""
    positive = np.clip(np.asarray(values, dtype=np.float64), 0, None)
    if not np.isfinite(positive).all():
        raise InputError("The map has numbers that are not finite. heedmap expected finite relevance.")
    low, high = positive.min(), positive.max()
    if high == low:
        return np.zeros(positive.shape, np.uint8)
    shades = (positive - low) / (high - low) * 255
    return (shades if official else np.rint(shades)).astype(np.uint8)


def threshold(shades: np.ndarray) -> int:
    """Otsu's threshold of an image of bytes: what parts it best in two, the lowest such; 0 where all are the same."""
    if shades.min() == shades.max():
        return 0
    return int(extra("skimage.filters").threshold_otsu(shades))


def cells(explanation: Explanation, example: int = 0) -> tuple[np.ndarray, Grid]:
    """The map of a picture's patches (row, column), and where on it they lie; those beyond the picture are 0."""
    layouts = explanation.shown[example].layouts if explanation.shown else {}
    for stream, grid in layouts.items():
        if isinstance(grid, Grid):
            flowed = explanation[stream][example].detach().double().cpu().numpy().copy()
            flowed[list(grid.special)] = 0.0
            return flowed[grid.first : grid.first + grid.rows * grid.columns].reshape(grid.rows, grid.columns), grid
    raise InputError("The explanation says of no stream that it is a grid of patches: there is nothing to mask.")


def grown(marked: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every pixel that a marked cell touches at all when 0 and 255 are made bilinear: half a cell more on every side.

    The published code asks where the sigmoid of it is over 0.5, and that is wherever it is over 0.
    """
    down, across = _bilinear(marked.shape[0], height), _bilinear(marked.shape[1], width)
    return down @ marked.astype(np.float64) @ across.T > 0


def nearest(marked: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels at another size, each the one that lies where its upper left corner does."""
    rows = np.arange(height) * marked.shape[0] // height
    columns = np.arange(width) * marked.shape[1] // width
    return marked[rows][:, columns]


def _bilinear(cells: int, pixels: int, start: float = 0.0, end: float = 1.0) -> np.ndarray:
    """(pixel, cell): how much each cell says in the middle of each pixel; beyond the outermost middles, they alone."""
    shares = (np.arange(pixels) + 0.5) / pixels
    places = np.clip((shares - start) / (end - start) * cells - 0.5, 0, cells - 1)
    return np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, None)
