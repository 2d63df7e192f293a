"""Where do models look that read pictures between words: each patch at its place, nothing lost, each word as alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from seers import SEERS
from transformers.models.smolvlm import processing_smolvlm

import heedmap
from heedmap import api
from heedmap.errors import InputError, ModelError
from heedmap.layouts import Grid, Plain, Tiles
from heedmap.render import panels
from heedmap.render.reading import read

ASKED = "is there a zebra?"
TILED = ("idefics3", "smolvlm", "internvl", "llava-next", "llava-onevision")
LISTED = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl")
SIZES = {"wide": (90, 40), "tall": (31, 77), "odd": (53, 48)}  # width, height
SEEN = [(name, shape) for name in (*LISTED, *TILED) for shape in ("wide", "tall")]
SEEN += [
    (name, "odd") for name in ("qwen2-vl", "glm-4v", "smolvlm", "llava-next", "smolvlm-whole", "paligemma", "blip-2")
]
SPOTS = ((0.21, 0.13), (0.58, 0.87), (0.9, 0.4))


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def spotted(size, at):
    """A grey picture with one bright spot, smaller than a patch; the share of the picture at which its middle is."""
    picture = np.full((size[1], size[0], 3), 90, np.uint8)
    x, y = (round(share * side) for share, side in zip(at, size, strict=True))
    picture[y - 1 : y + 2, x - 1 : x + 2] = 255
    return picture, ((x + 0.5) / size[0], (y + 0.5) / size[1])


def embedded(model, picture):
    """The tokens of a picture as the model's own first layer makes them, (piece x token, channel)."""
    ends = ("patch_embed", "embeddings")
    layer = next(part for name, part in model.module.named_modules() if "vis" in name and name.endswith(ends))
    met = []
    hook = layer.register_forward_hook(lambda _, __, out: met.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        model.module(**model.inputs(picture, ASKED)[0])
    hook.remove()
    return met[-1].reshape(-1, *met[-1].shape[-2:]) if met[-1].ndim > 2 else met[-1][None]


def patches(explanation):
    return next(name for name in explanation.streams if name.startswith("pixel_values"))


def alone(explanation, token):
    """The view of a picture of which one token speaks."""
    stream = patches(explanation)
    row = torch.zeros_like(explanation[stream])
    row[0, token] = 1
    shown = replace(explanation, relevance={stream: row}, starts={stream: 0 * row})
    return next(view for view in panels(shown)[0].views if view.placed)


def changed(model, size, at):
    """The tokens that a spot changes most, one of each piece that shows it; and where it is."""
    flat, (picture, place) = np.full((size[1], size[0], 3), 90, np.uint8), spotted(size, at)
    change = (embedded(model, picture) - embedded(model, flat)).norm(dim=-1)
    loud = change.max(-1).values > 0.3 * change.max()
    return [int(p) * change.shape[1] + int(change[p].argmax()) for p in loud.nonzero()[:, 0]], place


def holds(unit, place):
    """Whether a patch is at a place, or so near its edge that the spot may be seen there most."""
    left, top, right, bottom = unit.window
    near = [(high - low) / 5 for low, high in ((left, right), (top, bottom))]
    return left - near[0] <= place[0] <= right + near[0] and top - near[1] <= place[1] <= bottom + near[1]


@pytest.mark.parametrize(("name", "shape"), SEEN)
def test_what_is_seen_of_a_spot_is_drawn_where_it_is(folder, name, shape):
    model, size = heedmap.load(folder(name)), SIZES[shape]
    explanation = model.explain(noise(size), ASKED)
    for at in SPOTS:
        tokens, place = changed(model, size, at)
        assert tokens
        for token in tokens:
            told = [unit for unit in alone(explanation, token).units if abs(unit.value) > 0.05]
            assert any(holds(unit, place) for unit in told), (at, token)
            assert sum(unit.value for unit in told) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("name", LISTED)
def test_rows_of_patches_would_be_the_wrong_places(folder, name):
    """These list their patches square after square."""
    model, size = heedmap.load(folder(name)), SIZES["wide"]
    explanation = model.explain(noise(size), ASKED)
    stream = patches(explanation)
    layout = explanation.shown[0].layouts[stream]
    assert isinstance(layout, Tiles)
    plain = replace(explanation.shown[0], layouts={stream: replace(layout, order=())})
    wrong = replace(explanation, shown=(plain,))
    hits = [0, 0]
    for at in SPOTS:
        (token,), place = changed(model, size, at)
        for right, each in ((True, explanation), (False, wrong)):
            hits[right] += any(holds(unit, place) for unit in alone(each, token).units if unit.value)
    assert hits[True] == 3
    assert hits[False] <= 1


@pytest.mark.parametrize(
    ("name", "shape"), [*zip(TILED, ("wide", "tall", "odd", "wide", "tall"), strict=True), ("qwen2-vl", "odd")]
)
def test_what_is_drawn_is_all_that_flowed(folder, name, shape):
    e = heedmap.load(folder(name)).explain(noise(SIZES[shape]), ASKED)
    view = next(view for view in panels(e)[0].views if view.placed)
    drawn = sum(unit.value for unit in (*view.units, *view.left_out))
    flowed = e[patches(e)].double()
    assert drawn == pytest.approx(float(flowed.sum()), abs=1e-5 * float(flowed.abs().sum()))
    assert all(unit.special for unit in view.left_out)


@pytest.mark.parametrize("name", TILED)
def test_a_wide_picture_is_tiles_and_the_whole(folder, name):
    e = heedmap.load(folder(name)).explain(noise(SIZES["wide"]), ASKED)
    layout = e.shown[0].layouts[patches(e)]
    assert len(layout.grids) > 2
    wholes = [grid for grid in layout.grids if np.allclose(grid.window, (0, 0, 1, 1), atol=0.02)]
    assert len(wholes) == 1


@pytest.mark.parametrize("name", SEERS)
def test_explained_as_by_hand(folder, name):
    model = heedmap.load(folder(name))
    inputs, (shown,) = model.inputs(noise(SIZES["wide"]), ASKED)
    e = model.explain(noise(SIZES["wide"]), ASKED)
    with torch.no_grad():
        best = int(model.module(**inputs).logits[0, -1].argmax())
    by_hand = api.explain(model.module, inputs, lambda output: output.logits[:, -1, best])
    assert e.streams == by_hand.streams
    for stream in e.streams:
        torch.testing.assert_close(e[stream][0], by_hand[stream].flatten())
    assert shown.layouts[patches(e)] == e.shown[0].layouts[patches(e)]
    assert isinstance(shown.layouts[patches(e)], Grid | Tiles)


@pytest.mark.parametrize("name", SEERS)
def test_each_written_word_is_what_it_is_alone(folder, name):
    model, picture = heedmap.load(folder(name)), noise(SIZES["odd"], 3)
    found = model.explain_produced(picture, ASKED, tokens=3)
    assert found.overruled == ()
    inputs, _ = model.inputs(picture, ASKED)
    begun = inputs["input_ids"].shape
    heard = ("attention_mask", "token_type_ids" if name == "paligemma" else "")
    for i, (index, each) in enumerate(zip(found.indices, found.explanations, strict=True)):
        later = torch.tensor([found.indices[:i]], dtype=torch.long)
        step = {
            key: torch.cat([x, later if key == "input_ids" else torch.full_like(later, key in heard)], 1)
            for key, x in inputs.items()
            if x.shape == begun
        }
        by_hand = api.explain(model.module, inputs | step, lambda output, index=index: output.logits[:, -1, index])
        for stream in by_hand.streams:
            theirs = by_hand[stream].flatten()
            ours = each[stream][0, : len(theirs)]
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4 * float(theirs.abs().max()))


def test_the_mark_of_a_picture_is_no_word(folder, monkeypatch):
    from heedmap.families import writing

    model = heedmap.load(folder("qwen2-vl"))
    monkeypatch.setattr(writing, "continued", lambda *_: [5, model.config.image_token_id, 6])
    with pytest.raises(ModelError, match="in whose place a picture stands, as token 2"):
        model.explain_produced(noise(SIZES["odd"]), ASKED, tokens=3)


def test_what_a_query_former_puts_in_is_special(folder):
    e = heedmap.load(folder("blip-2")).explain(noise(SIZES["odd"]), ASKED)
    assert list(e.shown[0].layouts["query_tokens"].special) == [0, 1, 2, 3]
    e = heedmap.load(folder("instructblip")).explain(noise(SIZES["odd"]), ASKED)
    learned, asked = (view for view in read("qformer_input_ids", e.shown[0].layouts["qformer_input_ids"], [0.0] * 9))
    assert all(unit.special for unit in learned.units)
    assert [unit.name for unit in asked.units] == ["is", "there", "a", "zebra", "?"]


def test_one_that_reads_and_then_writes_is_refused(folder, tmp_path):
    config = heedmap.load(folder("blip-2")).config
    config.text_config = transformers.T5Config()
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="whose language model is a t5: it reads a text with its picture, and writes"):
        heedmap.load(tmp_path)


def test_a_package_that_a_processor_needs_is_named(folder, monkeypatch):
    place = folder("smolvlm")
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(ModelError, match=r"needs the package num2words: `pip install num2words`\.$"):
        heedmap.load(place)


def test_a_long_strip_is_refused(folder):
    with pytest.raises(InputError, match="no side more than 50 times"):
        heedmap.load(folder("qwen2-vl")).explain(noise((300, 4)), ASKED)


def test_what_a_processor_says_nothing_of_stays_plain(folder, monkeypatch):
    from heedmap.families import between

    monkeypatch.setattr(between, "places", lambda ask, sizes: ())
    e = heedmap.load(folder("qwen2-vl")).explain(noise((41, 43)), ASKED)
    assert isinstance(e.shown[0].layouts["pixel_values"], Plain)


def test_pieces_of_which_no_place_is_known_are_tokens_in_one_row(folder, tmp_path):
    model = heedmap.load(folder("smolvlm"))
    e = model.explain(noise((1000, 20)), ASKED)
    pieces = model.inputs(noise((1000, 20)), ASKED)[0]["pixel_values"].shape[1]
    assert e[patches(e)].shape == (1, 16 * pieces)
    assert isinstance(e.shown[0].layouts[patches(e)], Plain)
    e.save(tmp_path / "strip.png")
