"""Scenes: the same bytes everywhere, and truth that fits the picture."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heedmap import menagerie
from heedmap.menagerie import BACKGROUNDS, COLOURS, KINDS, PALETTE, SHARED, scene, scenes
from heedmap.menagerie.cast import PAINTS, drawing
from heedmap.menagerie.stage import PLAN, Stage, arranged, template

PAPERS = {"zebra", "elephant", "cat", "dog", "snail", "conch", "slug", "bald eagle", "kite"}

# Met with Pillow 11.2 to 13 and numpy 1.26 to 2.4. Whoever changes the drawings changes the world: the zoo must then be
# trained again.
HASHES = {
    "pictures": "8f36bcc76a31f534",
    "masks": "4154edb49c8463aa",
    "parts": "ee077340003ad0ab",
    "large pictures": "5bc9459e5b687beb",
}


def digest(blocks) -> str:
    total = hashlib.sha256()
    for block in blocks:
        total.update(block)
    return total.hexdigest()[:16]


def hashes() -> dict[str, str]:
    return {
        "pictures": digest(one.image.tobytes() for one in scenes(200, 0)),
        "masks": digest(animal.mask.tobytes() for one in scenes(50, 0) for animal in one.animals),
        "parts": digest(
            mask.tobytes() for one in scenes(20, 0) for animal in one.animals for mask in animal.parts.values()
        ),
        "large pictures": digest(scene(kind, 7, 224).image.tobytes() for kind in KINDS),
    }


def widened(mask: np.ndarray, by: int) -> np.ndarray:
    rows, columns = np.nonzero(np.pad(mask, by))
    wide = np.zeros((mask.shape[0] + 2 * by, mask.shape[1] + 2 * by), bool)
    for dy in range(-by, by + 1):
        for dx in range(-by, by + 1):
            wide[rows + dy, columns + dx] = True
    return wide[by:-by, by:-by]


def alone(animal):
    """The same animal on the same spot, with nobody in front of it."""
    stage = Stage(animal._stage.size)
    single = replace(animal, _stage=stage)
    stage.animals = (single,)
    return single


def test_the_same_seed_gives_the_same_bytes_everywhere():
    assert hashes() == HASHES


def test_the_cast():
    assert len(KINDS) >= 16
    assert set(KINDS) >= PAPERS
    for kind, colours in PALETTE.items():
        assert len(colours) == len(set(colours)) == 4, kind
        assert set(colours) <= set(COLOURS)


def test_scene_i_is_drawn_from_its_own_seed():
    many = list(scenes(5, 40))
    assert [one.seed for one in many] == [40, 41, 42, 43, 44]
    (fourth,) = scenes(1, 43)
    assert fourth.image.tobytes() == many[3].image.tobytes()
    assert scene([a.kind for a in fourth.animals], 43).image.tobytes() == fourth.image.tobytes()


def test_another_seed_is_another_scene():
    assert len({one.image.tobytes() for one in scenes(100, 0)}) == 100


@pytest.mark.parametrize("size", [16, 96, 97, 224])
def test_any_size_shows_the_same_scene(size):
    for small, large in zip(scenes(5, 9, size=size), scenes(5, 9, size=448), strict=True):
        assert small.image.size == (size, size)
        assert [a.kind for a in small.animals] == [a.kind for a in large.animals]
        for a, b in zip(small.animals, large.animals, strict=True):
            assert a.colour == b.colour
            assert np.abs(np.array(a.box) * 448 - np.array(b.box) * size).max() <= 448 + size


def test_mask_box_and_parts_agree():
    for one in scenes(40, 500):
        taken = np.zeros((one.size, one.size), int)
        for animal in one.animals:
            left, top, right, bottom = animal.box
            assert 0 <= left < right <= one.size
            assert 0 <= top < bottom <= one.size
            rows, columns = np.nonzero(animal.mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == animal.box
            assert np.array_equal(sum(mask.astype(int) for mask in animal.parts.values()), animal.mask)
            taken += animal.mask
        # A pixel that two animals share half and half belongs to both.
        assert taken.max() <= 2
        assert (taken == 2).sum() <= 0.02 * one.size**2


def test_masks_are_where_the_animal_is_painted():
    """Painted in another colour, an animal changes inside of its mask and (but for its soft edge) nowhere else."""
    for one in scenes(20, 900):
        for animal in one.animals:
            other = replace(animal, _paints=dict.fromkeys(animal._paints, (0, 255, 0)))
            repainted = replace(one, animals=tuple(other if a is animal else a for a in one.animals))
            changed = (np.asarray(one.image) != np.asarray(repainted.image)).any(-1)
            assert changed[animal.mask].all()
            edge = changed & ~animal.mask
            assert not (edge & ~widened(animal.mask, 4)).any()  # whiskers are thinner than a pixel


def test_animals_keep_clear_of_one_another():
    seen = [animal.mask.sum() / alone(animal).mask.sum() for one in scenes(150, 0, (2, 4)) for animal in one.animals]
    assert min(seen) > 0.3
    assert np.mean(np.array(seen) > 0.9) > 0.9


def test_animals_are_large_enough_to_be_seen():
    for one in scenes(100, 0, (4, 4)):
        for animal in one.animals:
            left, top, right, bottom = animal.box
            assert max(right - left, bottom - top) >= 20


@pytest.mark.parametrize(
    ("pair", "differ"), SHARED.items(), ids=lambda value: "-".join(value) if value[0] in KINDS else ""
)
def test_kinds_share_what_the_table_says(pair, differ):
    """What is listed is drawn differently, and nothing else."""
    own = [[(s.part, s.paint, s.curve) for s in drawing(kind)] for kind in pair]
    for kind, shapes, others, parts in zip(pair, own, own[::-1], differ, strict=True):
        assert {part for part, *_ in shapes} >= set(parts), kind
        if pair == ("snail", "conch"):  # one shell, in another place: the next test
            continue
        unique = {s[0] for s in shapes if s not in others}
        assert unique <= set(parts)


def test_snail_and_conch_have_one_shell_moved_and_turned():
    snail, conch = ([s for s in drawing(kind) if s.part == "shell"][-7:] for kind in ("snail", "conch"))
    assert [s.paint for s in snail] == [s.paint for s in conch]
    places = [np.concatenate([np.array(s.curve) @ (1, 1j) for s in shapes]) for shapes in (snail, conch)]
    one, other = ((z - z.mean()) / np.linalg.norm(z - z.mean()) for z in places)
    assert abs(np.vdot(one, other)) == pytest.approx(1)  # alike but for place, size and turn


def test_backgrounds_and_colours_say_nothing_about_the_kind():
    drawn = list(scenes(3200, 0, (1, 1)))
    assert {one.background for one in drawn} == set(BACKGROUNDS)
    for kind in KINDS:
        own = [one for one in drawn if one.animals[0].kind == kind]
        assert 140 < len(own) < 260
        for background in BACKGROUNDS:
            assert 0.08 < np.mean([one.background == background for one in own]) < 0.34
        for colour in PALETTE[kind]:
            assert 0.13 < np.mean([one.animals[0].colour == colour for one in own]) < 0.38


def test_distinct_kinds_and_counts():
    for one in scenes(60, 3, (2, 4), distinct=True):
        kinds = [a.kind for a in one.animals]
        assert 2 <= len(kinds) == len(set(kinds)) <= 4
    assert any(len({a.kind for a in one.animals}) < len(one.animals) for one in scenes(60, 3, (4, 4)))
    assert {a.kind for one in scenes(60, 3, kinds=("cat", "dog")) for a in one.animals} == {"cat", "dog"}


def test_every_paint_has_a_colour():
    own = {"coat", "shade", "deep", "light", "rim"}
    for kind in KINDS:
        assert {outline.paint for outline in template(kind).outlines} <= own | set(PAINTS)


def test_animals_stay_inside_of_the_plan():
    for kind in KINDS:
        for seed in range(20):
            (points,) = arranged([kind], menagerie.draws(seed))
            assert points.min() >= 0
            assert points.max() < PLAN


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scene("zebre", 0), "'zebre' is not one of the menagerie's 16 kinds. Did you mean 'zebra'?"),
        (lambda: scene([], 0), "A scene has 1 to 12 animals, not 0."),
        (lambda: scene("zebra", 0, 8), "A scene of 8 pixels is too small to draw in: 16 is the least."),
        (lambda: scene("zebra", -1), "seed -1 is negative. Seeds are whole numbers from 0 upwards."),
        (lambda: scene("zebra", 1.5), "seed 1.5 is no whole number. Seeds are whole numbers from 0 upwards."),
        (lambda: list(scenes(-1, 0)), "n=-1: give how many scenes to draw, 0 or more."),
        (lambda: list(scenes(1, 0, animals=2)), "animals=2: give the least and the most, as in (2, 2)."),
        (lambda: list(scenes(1, 0, (3, 2))), "animals=(3, 2): the least comes first, as in (1, 4)."),
        (
            lambda: list(scenes(1, 0, (1, 3), distinct=True, kinds=("cat", "dog"))),
            "animals=(1, 3) of distinct kinds cannot be drawn from 2 kinds.",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=r"\.") as caught:
        call()
    assert str(caught.value) == message


def test_needs_numpy_and_pillow_only():
    """Also when torch is not there."""
    code = (
        "import sys, types\n"
        "home = types.ModuleType('heedmap'); home.__path__ = [sys.argv[1]]; sys.modules['heedmap'] = home\n"
        "before = set(sys.modules)\n"
        "from heedmap import menagerie\n"
        "next(menagerie.scenes(1, 0)).image\n"
        "print(*{n.partition('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names))\n"
    )
    home = str(Path(menagerie.__file__).parents[1])
    run = subprocess.run([sys.executable, "-c", code, home], capture_output=True, text=True, check=False)
    assert run.stderr == ""
    brought = {name for name in run.stdout.split() if "cython" not in name}  # numpy's own machinery
    assert brought == {"heedmap", "numpy", "PIL"}
