"""Line charts: what is drawn where, and what is refused."""

import numpy as np
import pytest
from PIL import ImageChops

from heedmap.errors import InputError
from heedmap.render import curves
from heedmap.render.curves import BESIDE, LINES, _numbered, spread

STEPS = [i / 10 for i in range(10)]


def where(image, colour):
    """Columns that have a pixel of a colour."""
    return np.flatnonzero((np.asarray(image) == colour).all(-1).any(0))


def test_names_stand_beside_the_lines_and_cover_none():
    image = curves({"up": (STEPS, STEPS), "down": (STEPS, [1 - x for x in STEPS])}, title="Both", across="x", up="y")
    assert image.size == (640, 400)
    for colour in LINES[:2]:
        columns = where(image, colour)
        gap = int(np.argmax(np.diff(columns)))
        assert columns[gap + 1] - columns[gap] >= BESIDE - 8  # the line ends, and then comes its name
        assert columns[gap + 1] > 500


def test_the_same_numbers_are_the_same_picture_and_others_are_not():
    lines = {"one": (STEPS, STEPS)}
    assert ImageChops.difference(curves(lines), curves(lines)).getbbox() is None
    assert ImageChops.difference(curves(lines), curves({"one": (STEPS, STEPS[::-1])})).getbbox()
    banded = curves(lines, bands={"one": ([x - 0.1 for x in STEPS], [x + 0.1 for x in STEPS])})
    assert ImageChops.difference(curves(lines), banded).getbbox()


def test_room_between_given_numbers():
    low = where(np.asarray(curves({"flat": (STEPS, [0.5] * 10)}, between=(0, 1))).transpose(1, 0, 2), LINES[0])
    assert 150 < np.median(low) < 250
    high = where(np.asarray(curves({"flat": (STEPS, [0.9] * 10)}, between=(0, 1))).transpose(1, 0, 2), LINES[0])
    assert np.median(high) < 90


def test_odd_numbers_and_names_are_drawn():
    nan = float("nan")
    curves(
        {
            "gap": (STEPS, [nan, *STEPS[1:]]),
            "nothing": (STEPS, [nan] * 10),
            "one": ([1], [2]),
            "$x$ 层" * 30: ([0], [0]),
        }
    )


def test_global_state_is_left_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    curves({"one": (STEPS, STEPS)})
    assert dict(matplotlib.rcParams) == before


def test_heights_are_apart_within_bounds_and_in_order():
    rng = np.random.default_rng(0)
    for _ in range(50):
        wanted = rng.uniform(0, 100, 5).tolist()
        got = spread(wanted, 0, 100, 16)
        assert np.argsort(got).tolist() == np.argsort(wanted).tolist()
        assert np.diff(sorted(got)).min() >= 16 - 1e-9
        assert min(got) >= -1e-9
        assert max(got) <= 100
    assert spread([10, 50, 90], 0, 100, 16) == [10, 50, 90]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lines": {}}, "0 lines. heedmap draws 1 to"),
        ({"lines": {str(i): ([0], [0]) for i in range(40)}}, "40 lines"),
        ({"lines": {"a": ([0, 1], [0])}}, "'a' has 2 numbers across and 1 up"),
        ({"lines": {"a": ([], [])}}, "'a' has 0 numbers"),
        ({"lines": {"a": ([0], [0])}, "bands": {"b": ([0], [0])}}, "a band for 'b', but no line"),
        ({"lines": {"a": ([0], [0])}, "bands": {"a": ([0], [0, 1])}}, "has 1 and 2 numbers. heedmap expected 1"),
        ({"lines": {"a": ([0], [0])}, "width": 40}, "40 x 400 pixels"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        curves(given.pop("lines"), **given)


@pytest.mark.parametrize("steps", [[0], [0, 1, 2, 3], list(range(101))])
def test_there_is_no_half_step(steps):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    axes.plot(steps, steps)
    _numbered(axes, {"logit": (steps, steps)})
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
