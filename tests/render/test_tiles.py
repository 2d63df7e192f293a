"""Tiles and the whole beside them are drawn as one map, and nothing is lost."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from samples import explanation

import heedmap
from heedmap.layouts import Grid, Shown, Tiles
from heedmap.render.reading import read
from heedmap.render.spreading import spread


def test_the_whole_is_shared_out_over_the_tiles_by_area():
    tiles = Tiles((Grid(1, 2, 0, (0, 0, 0.5, 1)), Grid(1, 2, 2, (0.5, 0, 1, 1)), Grid(1, 1, 4)))
    field, window = spread(tiles, [1, 2, 3, 4, 8])
    np.testing.assert_allclose(field, [[3, 4, 5, 6]])
    assert window == (0, 0, 1, 1)


def test_where_edges_do_not_meet_each_part_has_its_share():
    """A whole of three columns over four: a column of it lies on one and a third."""
    tiles = Tiles((Grid(2, 4, 0), Grid(2, 3, 8)))
    field, _ = spread(tiles, [0] * 8 + [3, 0, 6, 0, 0, 0])
    np.testing.assert_allclose(field, [[2.25, 0.75, 1.5, 4.5], [0, 0, 0, 0]])


def test_what_lies_beyond_the_picture_is_left_out_and_told():
    """Four columns, of which the first is padding, and of the last half is: it is drawn in the half that is there."""
    grid = Grid(1, 4, 1, (-0.4, 0, 1.2, 1))
    tiles = Tiles((grid, Grid(1, 1, 5)), special={0: "[CLS]", 1: "[PAD]"})
    (view,) = read("x", tiles, [10.0, 20.0, 1.0, 2.0, 4.0, 0.0])
    assert [unit.value for unit in view.patches] == pytest.approx([1, 2, 4])
    assert view.window == pytest.approx((0, 0, 1.2, 1))
    assert {unit.name: unit.value for unit in view.loose} == {"[CLS]": 10, "[PAD]": 20}


def test_patches_in_an_order_of_their_own():
    """Square after square: 0 1 4 5 above, 2 3 6 7 below."""
    tiles = Tiles((Grid(2, 4),), order=(0, 1, 4, 5, 2, 3, 6, 7))
    (view,) = read("x", tiles, [float(i) for i in range(8)])
    assert [unit.value for unit in view.patches] == [0, 1, 4, 5, 2, 3, 6, 7]
    assert view.patches[2].name == "row 1, column 3"


def test_each_picture_keeps_what_is_its_own():
    frames = (0, 0, 0.6, 1), (0.7, 0, 1, 1)
    tiles = Tiles((Grid(1, 3, 0, frames[0]), Grid(1, 2, 3, frames[1])), frames=frames)
    field, window = spread(tiles, [1, 1, 1, 2, 2])
    middles = np.linspace(window[0], window[2], field.shape[1] + 1)
    middles = (middles[1:] + middles[:-1]) / 2
    assert field[0, middles < 0.65].sum() == pytest.approx(3)
    assert field[0, middles > 0.65].sum() == pytest.approx(4)


def test_tiles_are_kept_in_a_file(tmp_path):
    tiles = Tiles((Grid(1, 2, 0, (0, 0, 0.5, 1)), Grid(1, 1, 2)), (2, 0, 1), ((0, 0, 1, 1),) * 2, {0: "[PAD]"})
    e = explanation({"pixel_values": torch.tensor([[1.0, 2.0, 3.0]])}, (Shown({"pixel_values": tiles}),))
    e = replace(e, value=torch.tensor([1.0]))
    e.save(tmp_path / "x.heed")
    assert heedmap.open(tmp_path / "x.heed").shown[0].layouts == {"pixel_values": tiles}


def test_silence_is_no_number():
    tiles = Tiles((Grid(1, 2), Grid(1, 1, 2)))
    field, _ = spread(tiles, [float("nan"), 1, float("nan")])
    assert np.isnan(field[0, 0])
    assert field[0, 1] == 1
