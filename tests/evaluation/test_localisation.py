"""Where relevance lies, against sums over fine points."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from heedmap.errors import InputError
from heedmap.evaluation.localisation import balance, covers, points, ranks, share, spread
from heedmap.layouts import Grid, Plain, Shown

FINE = 12  # points a pixel and a patch are cut into, each way


class Explained:
    """As much of an explanation as is measured."""

    def __init__(self, flowed, layout, picture=None, pixels=None):
        self.pixels = None if pixels is None else torch.from_numpy(np.asarray([pixels], float))
        self.shown = (Shown({"pixel_values": layout}, picture),)
        self._flowed = torch.from_numpy(np.asarray([flowed], float))

    def __getitem__(self, stream):
        assert stream == "pixel_values"
        return self._flowed


def slowly(cells, window, height, width):
    """Each point of a fine raster of the picture belongs to the patch it lies in, and carries its share of it."""
    left, top, right, bottom = window
    rows, columns = cells.shape
    fine = np.zeros((height, width))
    patch = ((bottom - top) / rows * height) * ((right - left) / columns * width)  # in pixels
    for y in range(height * FINE):
        for x in range(width * FINE):
            down, across = (y + 0.5) / (height * FINE), (x + 0.5) / (width * FINE)
            row = int(np.floor((down - top) / (bottom - top) * rows))
            column = int(np.floor((across - left) / (right - left) * columns))
            if 0 <= row < rows and 0 <= column < columns:
                fine[y // FINE, x // FINE] += cells[row, column] / patch / FINE**2
    return fine


@pytest.mark.parametrize(
    ("window", "shape"),
    [((0, 0, 1, 1), (4, 6)), ((0, 0, 1, 1), (3, 4)), ((-0.25, 0, 1.25, 1), (4, 4)), ((0.25, 0.5, 0.75, 1), (8, 8))],
)
def test_a_patch_spreads_evenly_over_its_pixels(window, shape):
    flowed = np.array([9.0, 1.0, -2.0, 3.0, 0.5, -1.5, 4.0])  # CLS, then 2 x 3 patches
    grid = Grid(2, 3, 1, window, {0: "[CLS]"})
    got = spread(Explained(flowed, grid), shape=shape)
    assert got == pytest.approx(slowly(flowed[1:].reshape(2, 3), window, *shape), abs=1e-9)
    if window == (0, 0, 1, 1):
        assert got.sum() == pytest.approx(flowed[1:].sum())


def test_the_kept_picture_gives_the_shape_and_special_patches_carry_nothing():
    picture = np.zeros((4, 2, 3), np.uint8)
    grid = Grid(2, 1, 0, special={1: "[PAD]"})
    assert spread(Explained([1.0, 5.0], grid, picture)).tolist() == [[0.25, 0.25], [0.25, 0.25], [0, 0], [0, 0]]


def test_pixels_lie_where_the_grid_does_and_silence_carries_nothing():
    pixels = [[1.0, 2.0], [3.0, 4.0]]
    grid = Grid(1, 1, 0, window=(0.0, 0.0, 0.5, 1.0))
    got = spread(Explained([9.0], grid, pixels=pixels), shape=(2, 4))
    assert got.tolist() == [[1, 2, 0, 0], [3, 4, 0, 0]]
    silent = [float("nan"), 5.0]
    assert spread(Explained(silent, Grid(1, 2)), shape=(1, 2)).tolist() == [[0, 5]]


def test_what_cannot_be_located_is_refused():
    with pytest.raises(InputError, match="no stream that it is a grid"):
        spread(Explained([1.0], Plain()))
    with pytest.raises(InputError, match=r"keeps no picture. Give shape="):
        spread(Explained([1.0], Grid(1, 1)))
    with pytest.raises(InputError, match="nothing can be located"):
        spread(SimpleNamespace(shown=(), pixels=None))


def test_shares_points_covers_and_balance_against_sums_written_out():
    rng = np.random.default_rng(1)
    values, mask = rng.normal(size=(5, 7)), rng.random((5, 7)) < 0.4
    inside = [float(v) for v, m in zip(values.ravel(), mask.ravel(), strict=True) if m]
    everything = [float(v) for v in values.ravel()]
    assert share(values, mask) == pytest.approx(sum(v for v in inside if v > 0) / sum(v for v in everything if v > 0))
    against = sum(v for v in inside if v < 0) / sum(v for v in everything if v < 0)
    assert share(values, mask, -1) == pytest.approx(against)
    assert points(values, mask) == (max(everything) in inside)
    assert points(values, mask, -1) == (min(everything) in inside)
    assert covers(values, mask) == pytest.approx(sum(v > 0 for v in inside) / len(inside))
    assert balance(values, mask) == pytest.approx(sum(inside) / sum(map(abs, inside)))


def test_nothing_of_a_sign_is_nan_and_not_a_failure():
    nothing, some = np.zeros((2, 2)), np.array([[True, False], [False, False]])
    assert np.isnan([share(nothing, some), points(nothing, some), balance(nothing, some)]).all()
    assert np.isnan(covers(nothing, ~some & some))
    assert np.isnan(share(np.ones((2, 2)), some, -1))


def test_of_several_strongest_pixels_the_share_on_the_mask_counts():
    """All pixels of a patch are as strong: one that merely touches the mask does not lie on it."""
    patch = np.array([[0.0, 2.0, 2.0], [1.0, 2.0, 2.0]])
    touched = np.array([[False, True, False], [True, False, False]])
    assert points(patch, touched) == 0.25
    assert points(-patch, touched, -1) == 0.25
    assert points(patch * 3, patch == 2) == 1


@pytest.mark.parametrize("window", [(0.0, 0.0, 1.0, 1.0), (0.0625, 0.0625, 0.9375, 0.9375)])
@pytest.mark.parametrize("shape", [(96, 96), (97, 61), (384, 50)])
def test_rounding_breaks_no_tie(window, shape):
    """Patches of equal relevance: whatever the mask, chance. And none where there is none."""
    even = spread(Explained(np.ones(24 * 12), Grid(24, 12, 0, window)), shape=shape)
    left, top, right, bottom = window
    inside = np.zeros(shape, bool)
    rows, columns = (slice(-int(-low * side // 1), int(high * side)) for low, high, side in (
        (top, bottom, shape[0]), (left, right, shape[1])
    ))  # fmt: skip
    inside[rows, columns] = True
    halved = inside & (np.arange(shape[1]) < shape[1] * 0.45)
    assert ranks(even[inside], halved[inside]) == 0.5
    bare = np.zeros((24, 12))
    bare[:, 4] = 1.0
    said = spread(Explained(bare.ravel(), Grid(24, 12, 0, window)), shape=shape)
    width = (right - left) / 12 * shape[1]
    first, last = left * shape[1] + 4 * width, left * shape[1] + 5 * width
    columns = np.flatnonzero((said > 0).any(0))
    assert columns[0] == int(first + 1e-6)
    assert columns[-1] == -int(-(last - 1e-6) // 1) - 1
