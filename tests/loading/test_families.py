"""Every family, from a folder on disk to an explanation: its layouts have as many tokens as its streams."""

import numpy as np
import pytest
import torch
from folders import KINDS, MAKERS

import heedmap
from heedmap.layouts import Frames, Grid, Joined, Plain, Regions, Tiles, Words

TEXT = "The film wasn't good: unbelievable, naïve cafés!"
QUESTION = "Is there a zebra in the picture?"
CAPTIONS = ("a zebra in the picture", "an elephant")
MASKED = "is there a [MASK] in the picture?"
WAVE = np.random.default_rng(2).standard_normal(12000).astype(np.float32) / 10

# What each stream's tokens are, as a person reads it off the architecture.
EXPECTED = {
    "vit": {"pixel_values": Grid},
    "deit": {"pixel_values": Grid},
    "beit": {"pixel_values": Grid},
    "dinov2-registers": {"pixel_values": Grid},
    "detr": {"pixel_values": Grid, "model.query_position_embeddings.weight": Plain},
    "deformable-detr": {"pixel_values": Tiles, "model.query_position_embeddings.weight": Plain},
    "rt-detr": {"pixel_values": Grid, "pixel_values (detached)": Plain, "features": Tiles},
    "lw-detr": {"pixel_values": Grid, "queries": Plain, "features": Tiles},
    "yolos": {"pixel_values": Grid},
    "clip": {"pixel_values": Grid, "input_ids": Words},
    "siglip": {"pixel_values": Grid, "vision_model.head.probe": Plain, "input_ids": Words},
    "lxmert": {"input_ids": Words, "visual_feats": Regions},
    "visual-bert": {"input_ids+visual_embeds": Joined},
    "vilt": {"input_ids+pixel_values (rearranged)": Joined},
    "blip": {"pixel_values": Grid, "input_ids": Words, "decoder_input_ids": Words},
    "bert": {"input_ids": Words},
    "bert-masked": {"input_ids": Words},
    "distilbert": {"input_ids": Words},
    "roberta": {"input_ids": Words},
    "roberta-masked": {"input_ids": Words},
    "gpt2": {"input_ids": Words},
    "llama": {"input_ids": Words},
    "t5": {"input_ids": Words, "decoder_input_ids": Words},
    "bart": {"input_ids": Words, "decoder_input_ids": Words},
    "marian": {"input_ids": Words, "decoder_input_ids": Words},
    "whisper": {"input_features": Frames, "decoder_input_ids": Words},
    "wav2vec2": {"frames": Frames},
    "ast": {"input_values": Grid},
    "llava": {"pixel_values": Grid, "input_ids": Words},
}
TEXTS = [
    name for name, streams in EXPECTED.items() if streams.get("input_ids") is Words and "pixel_values" not in streams
]


def picture(width=90, height=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def regions(n=5, seed=1):
    draw = np.random.default_rng(seed)
    corner = draw.random((n, 2)) / 2
    boxes = np.concatenate([corner, corner + 0.4], 1).astype(np.float32)
    return {
        "boxes": boxes,
        "features": draw.standard_normal((n, 12)).astype(np.float32),
        "names": [f"r{i}" for i in range(n)],
    }


def given(model):
    """What each task takes."""
    match model.task:
        case "image-classification" | "object-detection":
            return {"image": picture()}
        case "zero-shot-image-classification":
            return {"image": picture(), "text": list(CAPTIONS)}
        case "visual-question-answering" | "image-text-to-text" | "image-text-generation":
            found = {"regions": regions()} if model.config.model_type in ("lxmert", "visual_bert") else {}
            return {"image": picture(), "text": QUESTION, **found}
        case "fill-mask":
            return {"text": MASKED}
        case "audio-classification" | "automatic-speech-recognition":
            return {"sound": WAVE}
    return {"text": TEXT}


def size(layout, tokens):
    """How many tokens a layout speaks of."""
    match layout:
        case Words():
            return len(layout.texts)
        case Regions():
            return len(layout.boxes)
        case Joined():
            assert all(size(part, count) == count for _, count, part in layout.parts)
            return sum(count for _, count, _ in layout.parts)
        case Grid():
            cells = range(layout.first, layout.first + layout.rows * layout.columns)
            return len(cells) + len([token for token in layout.special if token not in cells])
    return tokens


@pytest.mark.parametrize("name", MAKERS)
def test_layouts_have_the_stream_s_tokens(name, folder):
    model = heedmap.load(folder(name))
    explanation = model.explain(**given(model))
    assert len(explanation.shown) == 1
    shown = explanation.shown[0]
    assert {stream: type(layout) for stream, layout in shown.layouts.items()} == EXPECTED[name]
    assert set(explanation.streams) <= set(shown.layouts)
    for stream in explanation.streams:  # not those that lie before a declared beginning
        layout, tokens = shown.layouts[stream], explanation[stream].shape[1]
        assert size(layout, tokens) == tokens
        assert all(0 <= token < tokens for token in layout.special)
    assert shown.answer == str(explanation.predicted[0])
    assert any(flowed.abs().max() > 0 for flowed in explanation.relevance.values())


@pytest.mark.parametrize("name", MAKERS)
def test_the_likeliest_answer_is_the_one_explained(name, folder):
    model = heedmap.load(folder(name))
    best = model.predict(**given(model))[0][0]
    shown = model.explain(**given(model)).shown[0]
    assert (best.label, best.box) == (shown.answer, shown.box)
    assert 0 < best.value <= 1


@pytest.mark.parametrize("name", MAKERS)
def test_inputs_are_what_explain_feeds(name, folder):
    model = heedmap.load(folder(name))
    inputs, shown = model.inputs(**given(model))
    with torch.no_grad():
        model.module(**inputs)
    if name not in ("clip", "siglip"):  # of these, explain feeds the one caption that is explained
        explained = model.explain(**given(model)).shown[0]
        assert {name: repr(layout) for name, layout in shown[0].layouts.items()} == {
            name: repr(layout) for name, layout in explained.layouts.items()
        }


@pytest.mark.parametrize("name", TEXTS)
def test_words_merge_back_to_the_text(name, folder):
    model = heedmap.load(folder(name))
    asked = given(model)
    shown = model.explain(**asked).shown[0]
    layout = shown.layouts["input_ids"]
    merged = ["".join(layout.texts[token] for token in word) for word in layout.words]
    assert "".join(merged) == "".join(shown.text.split())
    listed = [token for word in layout.words for token in word]
    assert sorted([*listed, *layout.special]) == list(range(len(layout.texts)))
    if asked["text"] == TEXT:
        assert merged == ["The", "film", "wasn't", "good", ":", "unbelievable", ",", "naïve", "cafés", "!"]


@pytest.mark.parametrize("name", ["deit", "dinov2-registers", "clip"])
def test_the_window_of_a_grid_is_what_the_processor_cropped(name, folder):
    """A white square of the picture lights up the patches under it, and no others."""
    model = heedmap.load(folder(name))
    dark = np.zeros((120, 200, 3), np.uint8)
    shown = model.explain(dark, text=["a zebra"] if name == "clip" else None).shown[0]
    grid = shown.layouts["pixel_values"]
    left, top, right, bottom = grid.window
    assert (left > 0.05, right < 0.95) == (True, True)
    for row, column in ((0, 0), (1, 2), (3, 3)):
        across, down = (right - left) / grid.columns, (bottom - top) / grid.rows
        x, y = left + column * across, top + row * down
        light = dark.copy()
        light[round(y * 120) : round((y + down) * 120), round(x * 200) : round((x + across) * 200)] = 255
        inputs, _ = model.inputs(light, text=["a zebra"] if name == "clip" else None)
        bright = torch.nn.functional.avg_pool2d(inputs["pixel_values"][0].mean(0)[None, None], 8)[0, 0]
        bright = (bright - bright.min()) / (bright.max() - bright.min())
        assert bright[row, column] == 1.0
        assert (bright > 0.5).sum() == 1


def test_a_detector_s_grid_ends_with_the_picture(folder):
    """90 x 60 becomes 144 x 96, and 5 x 3 cells of 32 reach beyond it by a tenth."""
    model = heedmap.load(folder("detr"))
    grid = model.explain(picture()).shown[0].layouts["pixel_values"]
    assert (grid.rows, grid.columns) == (3, 5)
    assert grid.window == pytest.approx((0, 0, 160 / 144, 1))


def test_cells_beyond_the_smaller_picture_of_a_batch_are_special(folder):
    model = heedmap.load(folder("detr"))
    explanation = model.explain([picture(90, 60), picture(60, 60)])
    wide, narrow = (shown.layouts["pixel_values"] for shown in explanation.shown)
    assert wide.special == {}
    assert set(narrow.special) == {3, 4, 8, 9, 13, 14}
    assert set(narrow.special.values()) == {"[PAD]"}
    assert narrow.window == pytest.approx((0, 0, 160 / 96, 1))
    alone = model.explain(picture(60, 60)).shown[0]
    assert alone.layouts["pixel_values"].columns == 3
    assert [shown.picture.shape for shown in explanation.shown] == [(60, 90, 3), (60, 60, 3)]


def test_vilt_s_shuffled_patches_are_where_they_are(folder):
    """A patch that is changed alone changes the token whose box it is."""
    model = heedmap.load(folder("vilt"))
    layout = model.explain(picture(48, 32), QUESTION).shown[0].layouts["input_ids+pixel_values (rearranged)"]
    (_, words, _), (name, tokens, boxes) = layout.parts
    assert (name, tokens) == ("pixel_values", 1 + 6 * 4)
    corners = [box[:2] for box in boxes.boxes[1:]]
    assert corners != sorted(corners, key=lambda corner: corner[::-1])
    every = [(x / 6, y / 4) for x in range(6) for y in range(4)]
    np.testing.assert_allclose(sorted(corners), sorted(every), atol=1e-6)
    changed = picture(48, 32)
    changed[8:16, 16:24] = 0  # row 1, column 2
    moved = (embeddings(model, picture(48, 32)) != embeddings(model, changed)).any(-1).nonzero().flatten().tolist()
    assert len(moved) == 1
    assert boxes.boxes[moved[0] - words][:2] == pytest.approx((2 / 6, 1 / 4))
    assert boxes.names[moved[0] - words] == "row 2, column 3"


def test_vilt_s_patches_of_a_batch(folder):
    """Of pictures of two sizes: the smaller one's places beyond its edge are padding."""
    model = heedmap.load(folder("vilt"))
    e = model.explain([picture(48, 32), picture(32, 32)], QUESTION)
    (stream,) = e.streams
    wide, narrow = (shown.layouts[stream].parts[1][2] for shown in e.shown)
    assert wide.special == {0: "[CLS]"}
    assert list(narrow.special.values()).count("[PAD]") == 24 - 16
    inside = [box[:2] for token, box in enumerate(narrow.boxes) if token not in narrow.special]
    np.testing.assert_allclose(sorted(inside), sorted((x / 4, y / 4) for x in range(4) for y in range(4)), atol=1e-6)
    assert all(size(shown.layouts[stream], e[stream].shape[1]) == e[stream].shape[1] for shown in e.shown)


@pytest.mark.parametrize("name", ["vit", "detr", "lxmert", "bert", "gpt2", "t5", "whisper"])
def test_the_numbers_are_those_of_the_module_alone(name, folder):
    model = heedmap.load(folder(name))
    ours = model.explain(**given(model))
    theirs = heedmap.explain(model.module, model.inputs(**given(model))[0])
    assert ours.streams == theirs.streams
    for stream in ours.streams:
        torch.testing.assert_close(ours[stream], theirs[stream])


def embeddings(model, image):
    """The states that enter the first layer, in the order in which explain met them."""
    kept = []
    hook = model.module.vilt.encoder.register_forward_pre_hook(lambda _, args: kept.append(args[0][0]))
    model.explain(image, QUESTION)
    hook.remove()
    return kept[-1].detach()


def test_a_batch_of_texts_is_padded_and_each_keeps_its_words(folder):
    for name in ("bert", "gpt2"):
        model = heedmap.load(folder(name))
        both = model.explain(text=["a zebra", TEXT])
        short, long = (shown.layouts["input_ids"] for shown in both.shown)
        assert len(short.texts) == len(long.texts)
        assert set(short.special.values()) >= {"[PAD]"}
        assert [shown.text for shown in both.shown] == ["a zebra", TEXT]
        alone = model.explain(text="a zebra", target=both.predicted[0])["input_ids"]
        torch.testing.assert_close(both["input_ids"][:1, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)


def test_prefix_is_what_a_decoder_has_written(folder):
    model = heedmap.load(folder("t5"))
    explanation = model.explain(text=TEXT, prefix="the film")
    layout = explanation.shown[0].layouts["decoder_input_ids"]
    assert ["".join(layout.texts[token] for token in word) for word in layout.words] == ["the", "film"]
    assert layout.special == {0: "<pad>"}
    assert f"position={len(layout.texts) - 1}" in explanation.target
    with pytest.raises(heedmap.errors.InputError, match="prefix is what an answer begins with"):
        heedmap.load(folder("bert")).explain(text=TEXT, prefix="the")


def test_a_prefix_is_not_passed_over(folder):
    picture = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(heedmap.errors.InputError, match="prefix is what an answer begins with"):
        heedmap.load(folder("llava")).explain(picture, TEXT, prefix="the")


def test_blip_says_what_it_generates(folder):
    from transformers import BlipForQuestionAnswering

    model = heedmap.load(folder("blip"))
    whole = BlipForQuestionAnswering.from_pretrained(folder("blip")).eval()
    inputs, _ = model.inputs(picture(), QUESTION)
    written = whole.generate(inputs["input_ids"], inputs["pixel_values"], inputs["attention_mask"], max_new_tokens=1)
    token = model.processor.text.decode([written[0, 1]])
    assert model.predict(picture(), QUESTION)[0][0].label == token
    assert model.explain(picture(), QUESTION, target=token).shown[0].answer == token


def test_every_kind_is_named(folder):
    assert heedmap.load(folder("vit")).labels == KINDS
    assert heedmap.load(folder("clip")).labels == ()
