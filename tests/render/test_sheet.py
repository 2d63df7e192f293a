"""The painted sheet, looked at pixel by pixel, and the same sheet as SVG."""

import base64
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from samples import GREY, PICTURE, bare, patches, question, sentence, sound

from heedmap import errors, render
from heedmap.render.colours import AGAINST, FOR, UNSEEN, colour, coloured, ink, overlaid, strengths
from heedmap.render.fonts import broken, fitted, width

SVG = "{http://www.w3.org/2000/svg}"
LEFT, TOP = 20, 44  # where the first panel's picture begins


def pixels(e, **options) -> np.ndarray:
    return np.asarray(render.picture(e, given=False, **options)).astype(int)


def layer(e, wide=60, high=40, **options) -> np.ndarray:
    return strengths(render.panels(e)[0].views[0], wide, high, **options)


# ---- colours


@pytest.mark.parametrize(
    ("strength", "expected"),
    [(1, FOR), (-1, AGAINST), (0, (255, 255, 255)), (2, FOR), (0.5, (228, 128, 144)), (-0.5, (130, 184, 216))],
)
def test_red_is_for_and_blue_against(strength, expected):
    assert colour(strength) == expected
    assert np.allclose(coloured(np.array([[min(strength, 1)]]))[0, 0], expected, atol=0.51)


def test_letters_stand_out_on_every_strength():
    for step in range(-10, 11):
        fill = colour(step / 10)
        ground, letters = (sum(x * w for x, w in zip(c, (0.3, 0.6, 0.1), strict=True)) for c in (fill, ink(fill)))
        assert abs(ground - letters) > 80, step


def test_patches_fill_their_place_exactly():
    field = layer(patches(), 60, 40, smooth=False)
    assert field.shape == (40, 60)
    assert (field[:20, :20] == 1).all()
    assert (field[:20, 40:] == -0.5).all()
    assert (field[20:, 20:40] == 0.25).all()


def test_a_smooth_field_keeps_signs_and_the_middle_of_patches():
    field = layer(patches())
    assert field[10, 10] == pytest.approx(1, abs=0.06)
    assert field[10, 50] == pytest.approx(-0.5, abs=0.06)
    assert np.abs(field).max() <= 1
    assert (field[:18, :24] > 0).all()


def test_what_was_cropped_away_is_not_nothing():
    field = layer(patches(window=(0.25, 0.0, 0.75, 1.0)), 80, 40, smooth=False)
    assert np.isnan(field[:, :20]).all()
    assert np.isnan(field[:, 60:]).all()
    assert not np.isnan(field[:, 20:60]).any()
    assert coloured(field)[0, 0].tolist() == list(UNSEEN)


def test_what_was_padded_is_cut_off():
    field = layer(patches([[1.0, 1.0], [-1.0, -1.0]], window=(0.0, -0.5, 1.0, 1.5)), 40, 40, smooth=False)
    assert (field[:20] == 1).all()
    assert (field[20:] == -1).all()
    top_only = layer(patches([[1.0], [-1.0]], window=(0.0, 0.0, 1.0, 2.0)), 40, 40, smooth=False)
    assert (top_only == 1).all()


def test_a_grid_beside_the_picture_covers_nothing():
    assert np.isnan(layer(patches(window=(1.0, 0.0, 2.0, 1.0)))).all()


def test_the_strongest_region_covers_a_pixel():
    field = strengths(render.panels(question())[0].views[0], 100, 100)
    assert field[10, 10] == 1
    assert field[45, 45] == 1  # cat and region 3 lie here, too
    assert field[55, 55] == -0.5  # region 3 is weaker
    assert np.isnan(field[90, 10])


def test_a_region_thinner_than_a_pixel_is_seen():
    e = question()
    boxes = ((0.5, 0.5, 0.5001, 0.5001), (0.0, 0.0, 0.1, 0.1), (0.0, 0.0, 0.1, 0.1))
    layouts = {**e.shown[0].layouts}
    layouts["visual_feats"] = type(layouts["visual_feats"])(boxes, ("a", "b", "c"))
    object.__setattr__(e.shown[0], "layouts", layouts)
    assert strengths(render.panels(e)[0].views[0], 50, 50)[25, 25] == 1


def test_the_veil_has_no_colour_of_its_own():
    white = np.full((96, 96, 3), 255.0)
    over = overlaid(PICTURE, white).astype(int)
    assert np.ptp(over, axis=2).max() == 0
    assert over.std() > 5
    assert (overlaid(PICTURE, white, 0.0) == 255).all()


# ---- the sheet


def test_the_panel_shows_the_colours_under_the_veil():
    shown = pixels(patches(picture=GREY), smooth=False, opacity=0.0)
    at = [shown[TOP + 60, LEFT + x] for x in (53, 160, 267)]
    assert np.allclose(at[0], FOR, atol=1)
    assert np.allclose(at[1], 255)
    assert np.allclose(at[2], colour(-0.5), atol=1)
    veiled = pixels(patches(picture=GREY), smooth=False)[TOP + 60, LEFT + 160]
    assert np.ptp(veiled) == 0
    assert 200 < veiled[0] < 250


def test_the_picture_keeps_its_shape():
    sizes = {"wide": (60, 240), "square": (100, 100), "tall": (400, 100), "point": (1, 1)}
    for name, (high, wide) in sizes.items():
        shown = render.picture(patches(picture=np.full((high, wide, 3), 90, np.uint8)))
        expected = min(320 * high / wide, 480)
        assert shown.height == pytest.approx(TOP + expected + 26 + 30 + 20, abs=30), name


def test_the_given_picture_stands_before_the_first_row_of_its_kind():
    with_, without = render.picture(patches()), render.picture(patches(), given=False)
    assert with_.width > without.width
    shown = np.asarray(with_.convert("RGB")).astype(int)[TOP : TOP + 320, LEFT : LEFT + 320]
    true = np.asarray(Image.fromarray(PICTURE).resize((320, 320), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(shown - true).max() <= 1
    other = patches(target="logit('cat')")
    twice = render.picture({"a": [patches(), other], "b": [patches(), other]})
    second = np.asarray(twice)[TOP + 24 + 320 + 26 + 48 : -60, LEFT : LEFT + 320]
    assert len(second) > 250
    assert (second == 255).all()  # its place is left empty in the second row


def test_a_scale_makes_the_same_sheet_finer():
    one, two = render.picture(question()), render.picture(question(), scale=2)
    assert two.size == (2 * one.width, 2 * one.height)
    small = np.asarray(two.resize(one.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(small - np.asarray(one).astype(int)).mean() < 4


def test_many_panels_go_into_several_lines():
    many = [patches(target=f"logit('{i}')") for i in range(9)]
    assert render.picture(many).width == 5 * 320 + 4 * 16 + 40  # the picture as it is, and four panels
    assert render.picture(many, columns=2).width == 3 * 320 + 2 * 16 + 40
    assert render.picture(many, given=False).width == 4 * 320 + 3 * 16 + 40
    assert render.picture(many).height > 3 * 340
    with pytest.raises(errors.InputError, match="at least 1"):
        render.picture(many, columns=0)


def test_a_detection_has_its_box():
    boxed = pixels(patches(picture=GREY, box=(0.25, 0.25, 0.75, 0.75)), opacity=0.0)
    free = pixels(patches(picture=GREY), opacity=0.0)
    changed = np.argwhere((boxed != free).any(axis=2))
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
    assert (left, right) == (pytest.approx(LEFT + 80, abs=4), pytest.approx(LEFT + 240, abs=4))
    assert (top, bottom) == (pytest.approx(TOP + 60, abs=4), pytest.approx(TOP + 180, abs=4))
    inside = (boxed == free).all(axis=2)[TOP + 70 : TOP + 170, LEFT + 90 : LEFT + 230]
    assert inside.all()


def test_words_stand_on_their_colours():
    shown = pixels(sentence())
    red = (np.abs(shown - colour(0.5)) <= 1).all(axis=2)
    blue = (np.abs(shown - AGAINST) <= 1).all(axis=2)
    assert red[:100].sum() > 300  # acting
    assert blue[:100].sum() > 300  # dreadful


def test_the_colour_bar_goes_from_against_to_for():
    shown = pixels(bare())
    below = shown[100:]
    for end in (FOR, AGAINST):
        assert (np.abs(below - colour(0.977 if end is FOR else -0.977)) <= 3).all(axis=2).any()


@pytest.mark.parametrize("make", [patches, sentence, question, sound, bare], ids=lambda make: make.__name__)
@pytest.mark.parametrize("special", [False, True])
def test_every_kind_can_be_painted_and_written(make, special):
    assert render.picture(make(), special=special).mode == "RGB"
    ET.fromstring(render.svg(make(), special=special))
    assert "<!doctype html>" in render.page(make(), special=special)


def test_text_of_any_length_and_letters_stays_in_its_panel():
    for answer in ("z" * 500, "斑马 " * 100, "a b" * 200, "\x00\x07", "🦓", "<&>\"'", "م" * 80):
        shown = pixels(patches(picture=GREY, answer=answer))
        assert (shown[:, -18:] == 255).all(), answer


def test_a_sheet_too_large_is_refused():
    with pytest.raises(errors.InputError, match="show fewer explanations"):
        render.picture([patches()] * 40, scale=40)


@pytest.mark.parametrize("option", [{"side": 3}, {"scale": 0}, {"opacity": 1.5}], ids=str)
def test_a_size_that_cannot_be_drawn_is_refused(option):
    for draw in (render.picture, render.svg):
        with pytest.raises(errors.InputError, match="cannot be drawn"):
            draw(patches(), **option)


# ---- type


def test_text_is_cut_where_room_ends():
    assert fitted("zebra", 400, 14) == "zebra"
    short = fitted("zebra and elephant", 80, 14)
    assert short.endswith("…")
    assert width(short, 14) <= 80
    lines = broken("the quick brown fox jumps over the lazy dog", 120, 12)
    assert len(lines) > 1
    assert " ".join(lines) == "the quick brown fox jumps over the lazy dog"
    assert max(width(line, 12) for line in lines) <= 120


# ---- svg


def test_a_row_of_several_pictures_has_none_before_it():
    one = patches()
    other = replace(one, shown=(replace(one.shown[0], picture=255 - one.shown[0].picture),))
    alone, pair = (render.picture({"gae": row}, side=200).width for row in ([one, one], [one, other]))
    assert alone - pair == 200 + 16


def test_svg_keeps_text_as_text_and_pictures_inside():
    tree = ET.fromstring(render.svg(question()))
    told = [element.text for element in tree.iter(f"{SVG}text")]
    assert {"yes", "which", "one", "against", "for", "−1", "+1"} <= set(told)
    links = [element.get("href") for element in tree.iter(f"{SVG}image")]
    assert len(links) == 2
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert "http" not in render.svg(question()).replace("http://www.w3.org/2000/svg", "")
    assert "yes = 1.5 (heed:complete): strongest zebra +1.00" in tree.find(f"{SVG}title").text


def test_svg_is_as_large_as_the_painted_sheet():
    tree = ET.fromstring(render.svg(question()))
    assert (float(tree.get("width")), float(tree.get("height"))) == pytest.approx(
        render.picture(question()).size, abs=1
    )


def test_pictures_in_svg_are_those_that_are_painted():
    link = [element.get("href") for element in ET.fromstring(render.svg(patches(), scale=1)).iter(f"{SVG}image")][1]
    inside = np.asarray(Image.open(io.BytesIO(base64.b64decode(link.split(",")[1]))))
    painted = np.asarray(render.picture(patches()))[TOP : TOP + 320, LEFT + 336 : LEFT + 656]
    assert np.array_equal(inside, painted)


def test_svg_survives_any_text():
    bad = "<script>alert(1)</script>&\"'\x00\x0b\ud800"
    tree = ET.fromstring(render.svg({bad: patches(answer=bad)}))
    assert not list(tree.iter(f"{SVG}script"))
    assert any("<script>" in (element.text or "") for element in tree.iter(f"{SVG}text"))


# ---- in a notebook


def test_a_notebook_shows_a_picture_with_words_for_it():
    html = patches()._repr_html_()
    data = base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])
    assert Image.open(io.BytesIO(data)).width > 1000
    assert 'alt="zebra = 1.5 (heed:complete): strongest row 1, column 1 +1.00' in html
    assert "<script" not in html


def test_a_notebook_shows_the_first_of_many_examples():
    assert "The first 8 of 20 examples" in bare(20)._repr_html_()
    assert "The first" not in bare(8)._repr_html_()


def test_a_label_cannot_write_into_a_notebook():
    html = patches(answer='"><script>alert(1)</script>')._repr_html_()
    assert "<script" not in html


def test_a_long_title_takes_a_second_line_in_the_whole_row():
    short, long = patches(picture=GREY), patches(picture=GREY, answer="zebra rather than elephant and horse and slug")
    one, two = render.picture([short, short]), render.picture([short, long])
    assert two.height - one.height == 18
    assert (np.asarray(two)[TOP : TOP + 17, LEFT : LEFT + 320] == 255).all()  # the given picture comes down with it
    endless = render.picture(patches(picture=GREY, answer="zebra " * 99))
    assert endless.height - render.picture(short).height == 18
