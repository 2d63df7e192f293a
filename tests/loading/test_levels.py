"""Detectors that read several grids of one picture at points: what their tokens are, and that the map loses nothing."""

import numpy as np
import pytest
from folders import make

import heedmap
from heedmap.layouts import Tiles
from heedmap.render.spreading import spread


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return heedmap.load(make("deformable-detr", tmp_path_factory.mktemp("levels")))


def picture(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_each_level_covers_the_picture(model):
    e = model.explain(picture(150, 90), target="zebra")  # fed as 160 x 96 pixels
    layout = e.shown[0].layouts["pixel_values"]
    assert isinstance(layout, Tiles)
    assert [(grid.rows, grid.columns) for grid in layout.grids] == [(12, 20), (6, 10), (3, 5), (2, 3)]
    assert [grid.first for grid in layout.grids] == [0, 240, 300, 315]
    assert layout.grids[0].window == pytest.approx((0, 0, 1, 1))
    assert layout.grids[3].window == pytest.approx((0, 0, 192 / 160, 128 / 96))  # cells of 64 pixels go beyond
    assert len(e["pixel_values"][0]) == 321
    assert layout.special == {}
    drawn, window = spread(layout, e["pixel_values"][0].tolist())
    assert window == pytest.approx((0, 0, 1, 1))
    assert drawn.sum() == pytest.approx(float(e["pixel_values"].sum()), rel=1e-5)


def test_what_a_batch_pads_is_no_picture(model):
    e = model.explain([picture(150, 90), picture(90, 150, 1)], target="zebra")
    for shown, upright in zip(e.shown, (False, True), strict=True):
        layout = shown.layouts["pixel_values"]
        fine = layout.grids[0]
        inside = [token for token in layout.tokens(0) if token not in layout.special]
        assert len(inside) == (20 * 12)
        last = max((token - fine.first) % fine.columns for token in inside)
        assert last == (11 if upright else 19)


@pytest.mark.parametrize(("name", "grids"), [("rt-detr", [(12, 12), (6, 6), (3, 3)]), ("lw-detr", [(4, 4)])])
def test_a_detector_that_mixes_by_convolutions_needs_no_declaration(tmp_path, name, grids):
    model = heedmap.load(make(name, tmp_path))
    e = model.explain(picture(120, 80), target="zebra")
    assert e["features"].abs().max() > 0
    assert [(grid.rows, grid.columns) for grid in e.shown[0].layouts["features"].grids] == grids
    with pytest.raises(heedmap.errors.WiringError, match="read"):
        heedmap.explain(model.module, model.fed(picture(120, 80)).inputs, heedmap.logit(1, query=2))
