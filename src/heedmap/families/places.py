"""Where the patches lie that a processor cuts pictures into: in an order of its own, in tiles, beside the whole.

Processors differ in all of that, so they are asked, as in `placing`: each picture in turn is white among black ones,
which tells what is of it, and then grows brighter from left to right and from top to bottom, which tells where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from heedmap.families.placing import Placement, line

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Ask: TypeAlias = Callable[[Sequence["Image"]], Mapping[str, "Tensor"]]
OFF = 0.25  # of a patch: farther from its place on an even grid, it lies on none


@dataclass(frozen=True)
class Piece:
    """What a model is given of a picture: all of it or a tile, as pixels; `index` counts through all pieces."""

    picture: int
    index: int
    placement: Placement


@dataclass(frozen=True)
class Patches:
    """What a model is given of a picture, as patches from `first` on.

    `order` has the patch of each cell, row by row; the grid covers `window`, as shares of the picture.
    """

    picture: int
    first: int
    rows: int
    columns: int
    order: tuple[int, ...]
    window: tuple[float, float, float, float]


Places: TypeAlias = tuple[Piece, ...] | tuple[Patches, ...]


def places(ask: Ask, sizes: Sequence[tuple[int, int]]) -> Places:
    """Where everything lies that a processor makes of pictures of such sizes; nothing where that cannot be told."""
    found: list[Any] = []
    for picture in range(len(sizes)):
        met = _seen(ask, sizes, picture)
        if met is None:
            return ()
        across, down, given = met
        if across.ndim == 1:
            patches = _patches(picture, across, down, sizes[picture], given)
            found += [] if patches is None else [patches]
        else:
            found += _pieces(picture, across, down, sizes[picture])
        if not any(each.picture == picture for each in found):
            return ()
    return tuple(sorted(found, key=lambda each: each.index if isinstance(each, Piece) else each.first))


def _seen(
    ask: Ask, sizes: Sequence[tuple[int, int]], picture: int
) -> tuple[np.ndarray, np.ndarray, Mapping[str, Tensor]] | None:
    """The share from the left and from the top that each pixel of each piece, or each patch, shows of a picture.

    Not a number where it shows nothing of it.
    """
    from PIL import Image

    width, height = sizes[picture]

    def made(shades: Any) -> Mapping[str, Tensor]:
        given = [Image.new("RGB", size) for size in sizes]
        given[picture] = Image.fromarray(np.ascontiguousarray(np.broadcast_to(shades, (height, width, 3))))
        return ask(given)

    dark = made(np.uint8(0))
    if "pixel_values" not in dark:
        return None
    black = dark["pixel_values"].float().numpy()
    scale = made(np.uint8(255))["pixel_values"].float().numpy() - black
    scale[np.abs(scale) <= np.abs(scale).max() / 2] = np.nan

    def share(shades: np.ndarray) -> np.ndarray:
        return _mean((made(shades)["pixel_values"].float().numpy() - black) / scale)

    return share(_growing(width)[None]), share(_growing(height)[:, None]), dark


def _growing(pixels: int) -> np.ndarray:
    """From 0 to 1 in three channels, one after the other: their mean has three times as many shades as each."""
    share = (np.arange(pixels)[:, None] + 0.5) / pixels
    return (255 * (3 * share - np.arange(3)).clip(0, 1)).round().astype(np.uint8)


def _mean(shares: np.ndarray) -> np.ndarray:
    """One number for each pixel (piece, row, column), or for each patch."""
    if shares.ndim >= 4:
        shares = np.moveaxis(shares, -3, -1)  # channels last
        return _told(shares.reshape(-1, *shares.shape[-3:]), -1)
    return _told(shares.reshape(-1, shares.shape[-1]), -1)


def _told(shares: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is a number."""
    with np.errstate(invalid="ignore"):
        return np.nansum(shares, axis, dtype=np.float64) / (~np.isnan(shares)).sum(axis)


def _pieces(picture: int, across: np.ndarray, down: np.ndarray, size: tuple[int, int]) -> Iterator[Piece]:
    for index, (x, y) in enumerate(zip(across, down, strict=True)):
        columns, rows = (np.flatnonzero(~np.isnan(x).all(axis)) for axis in (0, 1))
        if not len(columns):
            continue
        horizontal = line(columns, _told(x, 0)[columns], size[0])
        vertical = line(rows, _told(y, 1)[rows], size[1])
        if horizontal and vertical:
            yield Piece(picture, index, Placement(*horizontal, *vertical))


def _patches(
    picture: int, across: np.ndarray, down: np.ndarray, size: tuple[int, int], given: Mapping[str, Tensor]
) -> Patches | None:
    own = np.flatnonzero(~np.isnan(across))
    shape = _grid(given, picture, len(own)) if len(own) and len(own) == own[-1] - own[0] + 1 else None
    if shape is None:
        return None
    rows, columns = shape
    lying, standing = _even(across[own], columns), _even(down[own], rows)
    if lying is None or standing is None:
        return None
    (column, left, wide), (row, top, high) = lying, standing
    cells = row * columns + column
    if len(set(cells.tolist())) != len(own):
        return None
    order = tuple(int(patch) for patch in np.argsort(cells))
    window = (left, top, left + columns * wide, top + rows * high)
    whole = all(abs(met - edge) < 1 / side for met, edge, side in zip(window, (0, 0, 1, 1), size * 2, strict=True))
    return Patches(picture, int(own[0]), rows, columns, order, (0.0, 0.0, 1.0, 1.0) if whole else window)


def _grid(given: Mapping[str, Tensor], picture: int, patches: int) -> tuple[int, int] | None:
    """Rows and columns: what a processor says beside the patches (`image_grid_thw`, `spatial_shapes`)."""
    for tensor in given.values():
        if not tensor.is_floating_point() and tensor.ndim == 2 and tensor.shape[1] in (2, 3) and len(tensor) > picture:
            *times, rows, columns = tensor[picture].tolist()
            if rows * columns == patches and times in ([], [1]):
                return rows, columns
    return None


def _even(shares: np.ndarray, count: int) -> tuple[np.ndarray, float, float] | None:
    """The place of each share among so many that lie evenly, where the first begins, and how wide they are."""
    low, high = shares.min(), shares.max()
    if count == 1:
        return np.zeros(len(shares), int), 0.0, 1.0
    step = (high - low) / (count - 1)
    if step <= 0:
        return None
    exact = (shares - low) / step
    place = exact.round().astype(int)
    if np.abs(exact - place).max() > OFF:
        return None
    step, middle = np.polyfit(place, shares, 1)
    return place, float(middle - step / 2), float(step)
