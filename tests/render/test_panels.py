"""What there is to see: names, strengths, titles, and what is left out."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from samples import BOTH, PICTURE, STREAM, bare, detection, explanation, joined, patches, question, sentence, sound

from heedmap import errors, render
from heedmap.layouts import Frames, Grid, Joined, Plain, Regions, Shown, Words
from heedmap.render.arranging import rows_of
from heedmap.render.colours import UNSEEN
from heedmap.render.sheets import note


def view(e, number=0, **options):
    return render.panels(e, **options)[0].views[number]


def test_a_strength_is_a_share_of_the_strongest_that_is_shown():
    seen = view(patches())
    assert [unit.strength for unit in seen.units] == [1.0, 0.0, -0.5, 0.0, 0.25, 0.0]
    assert [unit.value for unit in seen.units] == [1.0, 0.0, -0.5, 0.0, 0.25, 0.0]
    assert seen.peak == 1.0
    assert [(unit.name, unit.value) for unit in seen.left_out] == [("[CLS]", 9.0)]


def test_the_noise_link_is_told():
    e = dataclasses.replace(patches(), method="heed", correction="positive", metadata={"noise": "pixel_values@1"})
    assert render.panels(e)[0].method == "heed:positive+noise"


def test_special_tokens_take_part_when_they_are_asked_for():
    seen = view(patches(), special=True)
    assert seen.peak == 9.0
    assert [unit.name for unit in seen.loose] == ["[CLS]"]
    assert seen.patches[0].strength == pytest.approx(1 / 9)
    assert seen.left_out == ()


def test_where_nothing_flowed_everything_is_nothing():
    seen = view(patches([[0.0, 0.0]]))
    assert [unit.strength for unit in seen.units] == [0.0, 0.0]


def test_patches_lie_where_the_window_says():
    units = view(patches(window=(0.25, 0.0, 0.75, 1.0))).units
    assert units[0].window == pytest.approx((0.25, 0.0, 0.25 + 1 / 6, 0.5))
    assert units[-1].window == pytest.approx((0.75 - 1 / 6, 0.5, 0.75, 1.0))
    assert units[-1].name == "row 2, column 3"


def test_pieces_of_a_word_add_up_and_special_ones_stay_out():
    seen = view(sentence())
    assert [(unit.name, unit.value) for unit in seen.units] == [
        ("the", pytest.approx(0.1)),
        ("acting", 0.5),
        ("is", 0.0),
        ("dreadful", -1.0),
    ]
    assert [unit.name for unit in view(sentence(), special=True).units] == "[CLS] the acting is dreadful [SEP]".split()


@pytest.mark.parametrize(
    ("pieces", "word"),
    [
        (["wonder", "##ful"], "wonderful"),
        (["Ġwonder", "ful"], "wonderful"),
        (["▁wonder", "ful"], "wonderful"),
        (["wonder@@", "ful"], "wonderful"),
        (["wonderful</w>"], "wonderful"),
        (["##"], "##"),
        (["▁"], "▁"),
        ([" "], "␣"),
        (["斑", "马"], "斑马"),
    ],
)
def test_words_are_spelt_as_people_write_them(pieces, word):
    layout = Words(tuple(pieces), (tuple(range(len(pieces))),))
    e = explanation({"input_ids": torch.ones(1, len(pieces))}, (Shown({"input_ids": layout}),))
    assert view(e).units[0].name == word


def test_a_token_of_no_word_is_not_lost():
    layout = Words(("a", "b"), ((0,),))
    e = explanation({"input_ids": torch.ones(1, 2)}, (Shown({"input_ids": layout}),))
    assert [unit.name for unit in view(e).units] == ["a", "b"]


def test_regions_without_a_name_are_numbered_and_pictures_come_first():
    regions, words = render.panels(question())[0].views
    assert [unit.name for unit in regions.units] == ["zebra", "cat", "region 3"]
    assert [unit.name for unit in words.units] == ["which", "one"]


def test_special_regions_have_a_place_among_the_boxes():
    layout = Regions(((0, 0, 0, 0), (0, 0, 0.5, 1), (0, 0, 0, 0), (0.5, 0, 1, 1)), ("",) * 4, {0: "[CLS]", 2: "[PAD]"})
    e = explanation({"x": torch.tensor([[9.0, 1.0, 9.0, -2.0]])}, (Shown({"x": layout}),))
    assert [(u.name, u.value, u.window) for u in view(e).units] == [
        ("region 1", 1.0, (0, 0, 0.5, 1)),
        ("region 2", -2.0, (0.5, 0, 1, 1)),
    ]
    assert [unit.name for unit in view(e, special=True).loose] == ["[CLS]", "[PAD]"]


def test_parts_of_a_stream_are_views_with_one_measure():
    regions, words = render.panels(joined())[0].views
    assert (regions.stream, regions.part, regions.kind) == (BOTH, "visual_embeds", "regions")
    assert (words.stream, words.part, words.kind) == (BOTH, "input_ids", "words")
    assert [(unit.name, unit.value, unit.strength) for unit in regions.units] == [
        ("zebra", 2.0, 1.0),
        ("region 2", -0.5, -0.25),
    ]
    assert [(unit.name, unit.value, unit.strength) for unit in words.units] == [("which", 0.5, 0.25), ("one", -1, -0.5)]
    assert [unit.name for v in (words, regions) for unit in v.left_out] == ["[CLS]", "[SEP]", "[IMG]"]
    assert {v.peak for v in render.panels(joined())[0].views} == {2.0}
    assert {v.peak for v in render.panels(joined(), special=True)[0].views} == {9.0}
    assert [unit.name for unit in render.strongest(joined(), stream=BOTH)] == ["zebra", "one", "region 2", "which"]


def test_parts_that_do_not_fit_are_refused():
    (shown,) = joined().shown
    words = shown.layouts[BOTH].parts[0]
    for parts, message in (
        ((words,), f"The layout of '{re.escape(BOTH)}' is 4 of 'input_ids', which takes 4 tokens; 7 are there"),
        ((words, ("visual_embeds", 3, words[2])), "The layout of 'visual_embeds' is 4 tokens of text"),
    ):
        layout = Joined(parts)
        with pytest.raises(errors.InputError, match=message):
            render.panels(dataclasses.replace(joined(), shown=(Shown({BOTH: layout}),)))


def test_a_stream_of_special_tokens_alone_is_hidden_and_told_in_a_word():
    (panel,) = render.panels(detection())
    assert [v.stream for v in panel.views] == [STREAM]
    assert [len(v.left_out) for v in panel.hidden] == [16]
    assert note([panel]).endswith("Left out: object queries.")
    (panel,) = render.panels(detection(), special=True)
    assert [(v.stream, len(v.units)) for v in panel.views] == [(STREAM, 4), ("queries", 16)]
    assert panel.hidden == ()
    assert "Left out" not in note([panel])


def test_one_of_a_kind_keeps_its_name():
    special = {0: "[CLS]", 1: "query 0", 2: "[REG 1]", 3: "[REG 2]"}
    e = explanation({"x": torch.ones(1, 5)}, (Shown({"x": Plain(special)}),))
    assert note(list(render.panels(e))).endswith("Left out: [CLS], query 0, [REG 1], [REG 2].")


def test_sound_is_named_by_time_and_bare_tokens_by_number():
    assert view(sound()).units[50].name == "1.00 to 1.02 s"
    assert view(bare()).units[50].name == "token 50"
    assert view(bare()).kind == "tokens"


def test_short_stretches_of_sound_have_names_of_their_own():
    made = explanation({"frames": torch.ones(1, 800)}, (Shown({"frames": Frames(0.00125)}),))
    names = [unit.name for unit in view(made).units]
    assert names[2] == "0.003 to 0.004 s"
    assert len(set(names)) == len(names)


def test_a_stream_without_a_layout_is_a_strip():
    e = explanation({"a": torch.ones(1, 3), "b": torch.ones(1, 2)}, (Shown({"a": Grid(1, 3)}),))
    assert [(v.stream, v.kind) for v in render.panels(e)[0].views] == [("a", "patches"), ("b", "tokens")]


@pytest.mark.parametrize(
    ("target", "title"),
    [
        ("logit('zebra')", "zebra"),
        ("logit(340)", "logit(340)"),
        ("logit('zebra') - logit('elephant')", "zebra − elephant"),
        ("(logit('zebra') - logit('cat')) / logit('zebra')", "(zebra − cat) / zebra"),
        ("logit('zebra', query=7)", "zebra"),
        ("logit(['zebra', 'cat'])", "zebra"),
        ("logit([3, 4], position=[1, 2])", "logit(3)"),
        ('logit("lion\'s mane")', "lion's mane"),
        (r"logit('a \'b\' c')", "a 'b' c"),
        ("2 * logit('tern (bird)')", "2 × tern (bird)"),
        ("my_function", "my_function"),
    ],
)
def test_titles_are_targets_as_people_say_them(target, title):
    assert render.panels(bare())[0].title == "logit(340)"
    assert render.panels(dataclasses.replace(bare(), target=target))[0].title == title


def test_each_example_has_its_own_title():
    e = dataclasses.replace(bare(2), target="logit(['zebra', 'cat'])")
    assert [panel.title for panel in render.panels(e)] == ["zebra", "cat"]
    e = dataclasses.replace(bare(2), target="predicted - logit('dog')", predicted=("zebra", 7))
    assert [panel.title for panel in render.panels(e)] == ["zebra − dog", "7 − dog"]
    assert [panel.figure for panel in render.panels(e)] == ["predicted, 1.5", "predicted, 2.5"]
    assert render.panels(bare())[0].figure == "1.5"


def test_an_answer_goes_before_the_target():
    assert render.panels(patches(answer="a zebra by the sea"))[0].title == "a zebra by the sea"


def test_the_strongest_leave_special_tokens_out():
    assert [(u.name, u.value) for u in render.strongest(patches(), top=2)] == [
        ("row 1, column 1", 1.0),
        ("row 1, column 3", -0.5),
    ]
    assert render.strongest(patches(), special=True)[0].name == "[CLS]"
    assert [u.name for u in render.strongest(question(), stream="input_ids")] == ["one", "which"]
    with pytest.raises(errors.InputError, match="No stream is called 'words'"):
        render.strongest(question(), stream="words")


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ((Shown({STREAM: Grid(3, 3)}),), "3 x 3 patches from token 0 on, which takes 9 tokens; 7 are there"),
        ((Shown({STREAM: Words(("a",), ((0,),))}),), "1 tokens of text, which takes 1 tokens; 7 are there"),
        ((Shown({STREAM: Regions(((0, 0, 1, 1),), ("a",))}),), "1 regions, which takes 1 tokens; 7 are there"),
        ((Shown({}), Shown({})), "1 examples, and `shown` says what 2 of them are"),
        ((Shown({}, picture=np.zeros((4, 4), np.uint8)),), r"shape \(4, 4\) and type uint8"),
        ((Shown({}, picture=np.zeros((4, 4, 3))),), "type float64"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(shown, message):
    with pytest.raises(errors.InputError, match=message):
        render.panels(dataclasses.replace(patches(), shown=shown))


def test_relevance_without_a_colour_is_refused():
    with pytest.raises(errors.InputError, match="not finite"):
        render.panels(explanation({"x": torch.tensor([[1.0, float("inf")]])}))


SILENT = float("nan")


def test_what_a_method_is_silent_of_is_neither_counted_nor_listed():
    words = sentence()
    flowed = words["input_ids"].clone()
    flowed[0, [0, 5]] = SILENT  # [CLS], and the loudest word
    seen = view(dataclasses.replace(words, relevance={"input_ids": flowed}))
    assert [(unit.name, unit.strength) for unit in seen.units[:2]] == [("the", pytest.approx(0.2)), ("acting", 1.0)]
    assert "dreadful" not in [unit.name for unit in seen.units]
    assert [unit.name for unit in seen.left_out] == ["[SEP]"]
    assert not render.panels(explanation({"x": torch.full((1, 3), SILENT)}))[0].views


def test_a_silent_patch_keeps_its_place_and_is_drawn_as_unseen():
    e = patches([[1.0, SILENT], [0.0, -0.5]])
    seen = view(e)
    assert [unit.silent for unit in seen.patches] == [False, True, False, False]
    painted = np.asarray(render.picture(e, given=False, smooth=False, opacity=0.0)).astype(int)
    assert tuple(painted[44 + 80, 20 + 240]) == UNSEEN
    assert [unit.name for unit in render.strongest(e)] == ["row 1, column 1", "row 2, column 2"]
    told = json.loads(re.search(r'id="?numbers"?[^>]*>(.*?)</script>', render.page(e), re.S)[1])
    assert told["panels"][0]["views"][0]["units"][1] == {
        "name": "row 1, column 2", "value": None, "strength": None, "window": [0.5, 0.0, 1.0, 0.5],
    }  # fmt: skip


def test_pixels_are_gathered_into_squares_and_lie_where_the_grid_does():
    pixels = torch.zeros(1, 96, 192)
    pixels[0, :4, 4:8] = 1.0  # one square of 4 x 4
    e = patches([[SILENT] * 2], window=(0.0, 0.0, 0.5, 1.0), pixels=pixels)
    (seen,) = render.panels(e)[0].views
    assert (seen.stream, seen.rows, seen.columns) == ("pixels", 24, 48)
    loud = [unit for unit in seen.patches if unit.value]
    assert [(unit.name, unit.value) for unit in loud] == [("row 1, column 2", 16.0)]
    assert loud[0].window == pytest.approx((1 / 96, 0.0, 2 / 96, 1 / 24))


def test_streams_of_another_batch_are_refused():
    e = dataclasses.replace(bare(2), value=torch.ones(1))
    with pytest.raises(errors.InputError, match="'hidden' has 2 examples, the explained value 1"):
        render.panels(e)


# ---- which panels stand beside which


def shape(explanations):
    return [(row.name, [panel.title for panel in row.panels]) for row in rows_of(explanations)]


def test_rows_are_what_was_given_and_columns_targets():
    one, other = patches(), patches(target="logit('cat')")
    third = patches(picture=255 - PICTURE)
    assert shape(one) == [("", ["zebra"])]
    assert shape([one, other, third]) == [("", ["zebra", "cat"]), ("", ["zebra"])]


def test_rows_are_methods_where_they_differ():
    one, other = patches(), patches(target="logit('cat')")
    mine, theirs = (dataclasses.replace(e, correction="positive") for e in (one, other))
    assert shape([one, other, mine, theirs]) == [
        ("heed:complete", ["zebra", "cat"]),
        ("heed:positive", ["zebra", "cat"]),
    ]
    assert shape([one, mine]) == [("", ["zebra", "zebra"])]


def test_rows_can_be_told():
    one, other = patches(), patches(target="logit('cat')")
    assert shape([[one, other], [one]]) == [("", ["zebra", "cat"]), ("", ["zebra"])]
    assert shape({"first": [one, other], "second": one}) == [("first", ["zebra", "cat"]), ("second", ["zebra"])]


@pytest.mark.parametrize("nothing", [[], {}, [[]], {"a": []}], ids=str)
def test_nothing_is_refused(nothing):
    with pytest.raises(errors.InputError, match="nothing to show"):
        rows_of(nothing)


@pytest.mark.parametrize(
    "wrong", [3, "zebra", [3], [patches(), 3], {"a": 3}, [[3]], None], ids=lambda x: type(x).__name__
)
def test_what_is_no_explanation_is_refused(wrong):
    with pytest.raises(errors.InputError, match="heedmap expected"):
        rows_of(wrong)
