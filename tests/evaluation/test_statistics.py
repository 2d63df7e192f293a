"""Means and their intervals, against resampling written out and against what theory says of them."""

import numpy as np
import pytest

from heedmap.evaluation import statistics
from heedmap.evaluation.statistics import difference, mean


def test_the_interval_is_that_of_resampled_means_written_out():
    values = [0.0, 1.0, 1.0, 0.25, 0.5]
    rng = np.random.default_rng(3)
    means = sorted(sum(values[i] for i in rng.integers(0, 5, 5)) / 5 for _ in range(200))
    got = mean(values, seed=3, rounds=200)
    at = [0.025 * 199, 0.975 * 199]
    low, high = (means[int(p)] + (p - int(p)) * (means[int(p) + 1] - means[int(p)]) for p in at)
    assert (got.value, got.count) == (pytest.approx(0.55), 5)
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))


def test_the_interval_is_about_as_wide_as_the_normal_one():
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    got = mean(values)
    half = 1.96 * values.std() / 20
    assert got.low == pytest.approx(values.mean() - half, abs=0.02)
    assert got.high == pytest.approx(values.mean() + half, abs=0.02)


def test_scenes_that_say_nothing_are_left_out_and_nothing_at_all_is_nan():
    assert mean([1.0, float("nan"), 0.0]).value == 0.5
    assert mean([1.0, float("nan"), 0.0]).count == 2
    empty = mean([float("nan")])
    assert empty.count == 0
    assert np.isnan([empty.value, empty.low, empty.high]).all()


def test_one_scene_tells_its_number_and_no_interval():
    one = mean([float("nan"), 0.75])
    assert (one.value, one.count) == (0.75, 1)
    assert np.isnan([one.low, one.high]).all()
    assert str(one) == "0.750"


def test_a_constant_is_certain_and_a_seed_decides():
    assert str(mean([0.25] * 9)) == "0.250 [0.250, 0.250]"
    assert mean([0, 1, 1, 0, 1], seed=1) == mean([0, 1, 1, 0, 1], seed=1)
    values = np.random.default_rng(0).normal(size=30)
    assert mean(values, seed=1) != mean(values, seed=2)


def test_resampling_in_parts_changes_nothing(monkeypatch):
    values = np.random.default_rng(0).normal(size=37)
    whole = mean(values)
    monkeypatch.setattr(statistics, "AT_ONCE", 100)
    assert mean(values) == whole


def test_a_difference_is_paired():
    a, b = np.arange(50.0), np.arange(50.0) - 0.5  # differ by a half in each scene, and hugely between scenes
    got = difference(a.tolist(), b.tolist())
    assert (got.value, got.low, got.high) == (0.5, 0.5, 0.5)
    assert difference([1.0, float("nan")], [0.0, 5.0]).count == 1
