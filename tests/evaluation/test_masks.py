"""From a map to a mask: Otsu's threshold against its definition, growth against torch, windows by hand."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from heedmap.errors import InputError
from heedmap.evaluation.masks import eight_bits, mask, nearest, otsu, threshold
from heedmap.installs import extra


def best_parting(shades):
    """Otsu's definition, threshold by threshold: the first that parts the variance best; 0 where nothing is parted."""
    histogram = np.bincount(shades.ravel(), minlength=256) / shades.size
    levels = np.arange(256)
    best, found = 0.0, 0
    for t in range(256):
        below = histogram[: t + 1].sum()
        if not 1e-12 < below < 1 - 1e-12:
            continue
        mean_below = (levels[: t + 1] * histogram[: t + 1]).sum()
        between = ((levels * histogram).sum() * below - mean_below) ** 2 / (below * (1 - below))
        if between > best * (1 + 1e-9):  # what is equal but for rounding is no better
            best, found = between, t
    return found


def blob(cells=8):
    values = np.zeros((cells, cells))
    values[3:5, 3:5] = 1
    return values


@pytest.mark.parametrize("seed", range(40))
def test_the_threshold_parts_the_variance_best(seed):
    rng = np.random.default_rng(seed)
    shades = (255 * rng.random((12, 17)) ** rng.integers(1, 6)).astype(np.uint8)
    assert threshold(shades) == best_parting(shades)


@pytest.mark.parametrize(
    ("shades", "expected", "marked"), [([10, 200, 10], 10, 1), ([0, 0, 0], 0, 0), ([7, 7, 7], 0, 3)]
)
def test_two_levels_and_one(shades, expected, marked):
    shades = np.array([shades], np.uint8)
    assert threshold(shades) == expected == best_parting(shades)
    assert (shades > threshold(shades)).sum() == marked


def test_a_share_of_the_threshold_marks_what_is_strictly_above():
    values = np.array([[0.0, 50, 51, 100, 101, 255]])
    shades = eight_bits(values)
    assert threshold(shades) == 101
    assert otsu(values).tolist() == [[False] * 5 + [True]]
    assert otsu(values, 51 / 101).tolist() == [[False] * 3 + [True] * 3]  # 51 is not above 51
    assert not otsu(np.full((3, 3), 7.0)).any()


def test_eight_bits_of_what_speaks_for():
    values = np.array([-9.0, 0.0, 1.0, 2.0])  # 1 is 127.5 of 255
    assert eight_bits(values).tolist() == [0, 0, 128, 255]
    assert eight_bits(values, official=True).tolist() == [0, 0, 127, 255]
    assert eight_bits(np.array([3.0, 5.0])).tolist() == [0, 255]
    with pytest.raises(InputError, match="not finite"):
        eight_bits(np.array([1.0, np.nan]))


def test_officially_a_mask_grows_by_half_a_cell_on_every_side():
    where = np.argwhere(mask(blob(), 256, 256, official=True))
    assert len(where) == 96 * 96
    assert (where.min(0).tolist(), where.max(0).tolist()) == ([80, 80], [175, 175])
    clean = mask(blob(), 256, 256)
    rows, columns = np.nonzero(clean)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (96, 159, 96, 159)
    assert 0.9 * 64 * 64 < clean.sum() < 64 * 64  # only its corners are rounded


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_both_ways_are_what_torch_makes_of_it(scale):
    values = np.random.default_rng(5).random((7, 9)) ** 3
    marks = torch.from_numpy(otsu(values, scale, official=True)).float()[None, None] * 255
    grown = interpolate(marks, size=(211, 277), mode="bilinear", align_corners=False).sigmoid() > 0.5
    expected = interpolate(grown.float(), size=(131, 190), mode="nearest")[0, 0].bool().numpy()
    assert np.array_equal(mask(values, 131, 190, scale, official=True, fed=(211, 277)), expected)
    marks = torch.from_numpy(otsu(values, scale)).double()[None, None] * 255
    smooth = interpolate(marks, size=(131, 190), mode="bilinear", align_corners=False)[0, 0].numpy()
    firm = np.abs(smooth - 127.5) > 1e-6  # on the line itself rounding decides
    assert np.array_equal(mask(values, 131, 190, scale)[firm], (smooth > 127.5)[firm])


def test_cells_that_reach_beyond_the_picture():
    values = np.zeros((4, 4))
    values[:, 1] = 1
    whole = mask(values, 40, 80)
    padded = mask(values, 40, 40, window=(0.0, 0.0, 2.0, 1.0))  # the right half of the cells is padding
    assert np.array_equal(padded, whole[:, :40])
    assert padded.any()
    stretched = mask(values, 40, 40, official=True, window=(0.0, 0.0, 2.0, 1.0))  # officially they are stretched
    assert np.argwhere(stretched)[:, 1].max() < np.argwhere(padded)[:, 1].max()


def test_another_size_takes_the_pixel_of_the_corner():
    assert nearest(np.array([[1, 2], [3, 4]]), 3, 4).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4]]


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.filters", None)
    with pytest.raises(Exception, match=r"scikit-image is needed.*pip install 'heedmap\[eval\]'"):
        extra("skimage.filters")
