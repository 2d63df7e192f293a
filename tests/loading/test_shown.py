"""From a folder to what is seen and kept, for streams that hold more than what was given, or several kinds of it."""

import xml.etree.ElementTree as ET

import pytest
from test_families import given

import heedmap
from heedmap import render


def seen(explanation, **options):
    return {(view.part, view.kind): len(view.units) for view in render.panels(explanation, **options)[0].views}


@pytest.mark.parametrize(
    ("name", "kinds", "every"),
    [
        (
            "vilt",
            {("pixel_values", "regions"): 24, ("input_ids", "words"): 8},
            {("pixel_values", "regions"): 25, ("input_ids", "words"): 10},
        ),
        (
            "visual-bert",
            {("visual_embeds", "regions"): 5, ("input_ids", "words"): 8},
            {("visual_embeds", "regions"): 5, ("input_ids", "words"): 10},
        ),
        ("detr", {("", "patches"): 15}, {("", "patches"): 15, ("", "tokens"): 5}),
    ],
)
def test_what_is_seen(name, kinds, every, folder, tmp_path):
    model = heedmap.load(folder(name))
    e = model.explain(**given(model))
    assert seen(e) == kinds
    assert seen(e, special=True) == every
    for suffix in (".png", ".svg", ".html", ".heed"):
        e.save(tmp_path / f"x{suffix}")
    ET.parse(tmp_path / "x.svg")
    opened = heedmap.open(tmp_path / "x.heed")
    assert repr(opened.shown[0].layouts) == repr(e.shown[0].layouts)
    assert render.svg(opened) == (tmp_path / "x.svg").read_text(encoding="utf-8")


def test_tokens_that_the_model_brings_are_special(folder):
    names = {}
    for name in ("detr", "siglip"):
        model = heedmap.load(folder(name))
        layouts = model.explain(**given(model)).shown[0].layouts
        (brought,) = (layout for stream, layout in layouts.items() if "." in stream)
        names[name] = list(brought.special.values())
    assert names == {"detr": [f"object query {i}" for i in range(5)], "siglip": ["learned token"]}


def test_a_learned_token_is_hidden(folder):
    model = heedmap.load(folder("siglip"))
    (panel,) = render.panels(model.explain(**given(model)))
    assert [view.stream for view in panel.hidden] == ["vision_model.head.probe"]
    assert not any("probe" in view.stream for view in panel.views)


def test_a_padded_batch_of_regions_is_shown(folder):
    from test_families import QUESTION, picture, regions

    model = heedmap.load(folder("lxmert"))
    e = model.explain([picture(), picture(seed=3)], QUESTION, regions=[regions(5), regions(3)])
    assert [len(panel.views[0].units) for panel in render.panels(e)] == [5, 3]
    assert [len(panel.views[0].loose) for panel in render.panels(e, special=True)] == [0, 2]
