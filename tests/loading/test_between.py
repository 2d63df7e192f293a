"""Models that read a picture between the words of a text: what they are given, and what each written word came from."""

import numpy as np
import pytest
import torch

import heedmap
from heedmap import api
from heedmap.errors import InputError
from heedmap.families import sinks
from heedmap.render import panels

ASKED = "is there a zebra?"
PATCHES = 16


@pytest.fixture(scope="module")
def model(folder):
    return heedmap.load(folder("llava"))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_the_picture_stands_before_the_text_under_the_template(model, picture):
    inputs, (shown,) = model.inputs(picture, ASKED)
    words = shown.layouts["input_ids"]
    plain = model.processor.text.decode(inputs["input_ids"][0]).replace("<image>", "")
    assert plain == f"user: {ASKED} assistant:"
    assert said(words) == "isthereazebra?"  # the template's own tokens are special
    assert words.parts == ()
    assert [i for i, name in words.special.items() if name == "[IMAGE]"] == [
        i for i, index in enumerate(inputs["input_ids"][0]) if index == model.config.image_token_id
    ]
    assert sum(name == "[IMAGE]" for name in words.special.values()) == PATCHES


def test_whoever_says_where_the_picture_stands_is_heard(model, picture):
    _, (shown,) = model.inputs(picture, "a zebra <image> ?")
    words = shown.layouts["input_ids"]
    first = min(words.special)
    assert "".join(words.texts[:first]).startswith("azebra")
    assert words.texts[-1] == "?"


def said(words, first=0, last=None):
    return "".join(text for i, text in enumerate(words.texts[:last]) if i >= first and i not in words.special)


def spoken(words):
    """What each has said, by his part."""
    found, start = {}, 0
    for name, tokens in words.parts:
        found[name] = said(words, start, start + tokens)
        start += tokens
    assert start == len(words.texts)
    return found


def places(model, inputs):
    """Where the pictures stand: each run of marks from where to where."""
    marks = (inputs["input_ids"][0] == model.config.image_token_id).int()
    edges = torch.diff(marks, prepend=marks.new_zeros(1), append=marks.new_zeros(1)).nonzero()[:, 0].tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


TALK = [
    {"role": "system", "content": "the film was good"},
    {"role": "user", "content": ASKED},
    {"role": "assistant", "content": "a cafe"},
    {"role": "user", "content": "is it in the picture?"},
]


def test_messages_are_taken(model, picture):
    inputs, (shown,) = model.inputs(picture, TALK)
    words = shown.layouts["input_ids"]
    assert spoken(words) == {
        "system": "thefilmwasgood", "user": "isthereazebra?", "assistant": "acafe", "user 2": "isitinthepicture?"
    }  # fmt: skip
    ((first, last),) = places(model, inputs)
    assert last - first == PATCHES
    assert said(words, last=first) == "thefilmwasgood"
    assert said(words, last).startswith("isthere")


def test_pictures_may_stand_in_messages(model, picture):
    other = np.random.default_rng(1).integers(0, 256, (80, 50, 3), dtype=np.uint8)
    parts = [
        {"type": "text", "text": "is the zebra in"}, {"type": "image", "image": picture},
        {"type": "text", "text": " a well-drawn"}, {"type": "image", "image": other},
    ]  # fmt: skip
    talk = [{"role": "user", "content": parts}]
    inputs, (shown,) = model.inputs(None, talk)
    words = shown.layouts["input_ids"]
    first, second = places(model, inputs)
    assert said(words, last=first[0]) == "isthezebrain"
    assert said(words, first[1], second[0]) == "awell-drawn"
    assert shown.text == "user: is the zebra in [IMAGE] a well-drawn [IMAGE]"
    e = model.explain(text=talk)
    torch.testing.assert_close(e["input_ids"], model.explain([picture, other], [{**talk[0], "content": [
        part if part["type"] == "text" else {"type": "image"} for part in parts
    ]}])["input_ids"])  # fmt: skip
    found = model.generate(talk, tokens=2)
    assert [name for name, _ in found.layout.parts] == ["user", "written"]


def test_words_on_two_sides_of_a_picture_are_two(model, picture):
    asked = [{"type": "text", "text": "is it in"}, {"type": "image", "image": picture}, {"type": "text", "text": "or"}]
    e = model.explain(text=[{"role": "user", "content": asked}])
    layout = e.shown[0].layouts["input_ids"]
    assert ["".join(layout.texts[token] for token in word) for word in layout.words] == ["is", "it", "in", "or"]


def test_several_pictures_lie_side_by_side(model, picture):
    """A spot in the second is drawn in the second, and nothing is lost."""
    other = np.random.default_rng(1).integers(0, 256, (80, 50, 3), dtype=np.uint8)
    e = model.explain([picture, other], ASKED)
    layout = e.shown[0].layouts["pixel_values"]
    assert [len(layout.tokens(i)) for i in (0, 1)] == [PATCHES, PATCHES]
    left, right = layout.frames
    seen = e.shown[0].picture
    assert seen.shape[0] == 80
    assert (left[2] - left[0]) * seen.shape[1] == pytest.approx(120, abs=1)  # 90 x 60, as high as the other
    assert (right[2] - right[0]) * seen.shape[1] == pytest.approx(50, abs=1)
    (view,) = (view for view in panels(e)[0].views if view.placed)
    flowed = e["pixel_values"][0].double()
    for frame, tokens in ((left, slice(1, 17)), (right, slice(18, 34))):
        within = [unit for unit in view.patches if frame[0] <= (unit.window[0] + unit.window[2]) / 2 <= frame[2]]
        assert sum(unit.value for unit in within) == pytest.approx(float(flowed[tokens].sum()), abs=1e-9)


def test_what_a_processor_puts_around_tiles_is_no_word(folder, picture):
    model = heedmap.load(folder("smolvlm"))
    parts = [{"type": "text", "text": "a cafe"}, {"type": "image", "image": picture}, {"type": "text", "text": "?"}]
    inputs, (shown,) = model.inputs(None, [{"role": "user", "content": parts}])
    assert "<row_2_col_1>" in model.processor.text.decode(inputs["input_ids"][0])
    assert said(shown.layouts["input_ids"]) == "acafe?"


def test_as_many_pictures_as_places(model, picture):
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
    with pytest.raises(InputError, match="2 pictures were given, and the messages have 1 place for one"):
        model.explain([picture, picture], talk)
    with pytest.raises(InputError, match="needs a picture"):
        model.explain(None, talk)
    talk[0]["content"][0]["image"] = picture
    with pytest.raises(InputError, match="Give all of them in one way"):
        model.explain(picture, talk)
    talk[0]["content"][0] = {"type": "video"}
    with pytest.raises(InputError, match=r"has the part .*expected parts such as"):
        model.explain(picture, talk)


def test_explained_as_by_hand_with_every_patch_and_word(model, picture):
    inputs, _ = model.inputs(picture, ASKED)
    e = model.explain(picture, ASKED)
    best = int(model.module(**inputs).logits[0, -1].argmax())
    by_hand = api.explain(model.module, inputs, lambda output: output.logits[:, -1, best])
    assert e.streams == by_hand.streams == ("pixel_values", "input_ids")
    for stream in e.streams:
        torch.testing.assert_close(e[stream], by_hand[stream])
    shown = inputs["input_ids"] == model.config.image_token_id
    assert not e["input_ids"][shown].any()
    assert e["pixel_values"][0, 1:].all()


def test_each_written_word_is_what_it_is_alone(model, picture):
    found = model.explain_produced(picture, ASKED, tokens=4)
    inputs, _ = model.inputs(picture, ASKED)
    begun = inputs["input_ids"].shape[1]
    for i, (index, each) in enumerate(zip(found.indices, found.explanations, strict=True)):
        ids = torch.cat([inputs["input_ids"], torch.tensor([found.indices[:i]], dtype=torch.long)], 1)
        step = inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        alone = api.explain(model.module, step, lambda output, index=index: output.logits[:, -1, index])
        for stream in ("pixel_values", "input_ids"):
            scale = float(alone[stream].abs().max())
            np.testing.assert_allclose(
                each[stream][0, : begun + i if stream == "input_ids" else None], alone[stream][0], atol=1e-4 * scale
            )


def test_several_texts_are_refused(model, picture):
    with pytest.raises(InputError, match=r"2 texts were given\. heedmap expected one, with its pictures"):
        model.explain(picture, [ASKED, "a zebra"])


def log_p(model, inputs, ids):
    """log p of tokens after what was given, in a forward pass of their own."""
    begun = inputs["input_ids"].shape
    more = torch.tensor([ids])
    step = {
        name: torch.cat([x, more if name == "input_ids" else torch.full_like(more, name == "attention_mask")], 1)
        for name, x in inputs.items()
        if x.shape == begun
    }
    with torch.no_grad():
        logits = model.module(**inputs | step).logits[0, begun[1] - 1 : -1].double()
    return float(logits.log_softmax(-1)[range(len(ids)), ids].sum())


@pytest.mark.parametrize("name", ["llava", "qwen2-vl", "smolvlm"])
def test_an_answer_against_another(name, folder, picture):
    model = heedmap.load(folder(name))
    found = model.generate(ASKED, picture, tokens=3, against="the film")
    inputs, _ = model.inputs(picture, ASKED)
    tokenizer = model.processor.text
    before = " " if tokenizer.decode(list(found.indices)).startswith(" ") else ""
    theirs = tokenizer(f"{before}the film")["input_ids"]
    expected = log_p(model, inputs, list(found.indices)) - log_p(model, inputs, theirs)
    assert found.contrast.value.item() == pytest.approx(expected, abs=1e-4)
    (seen,) = (stream for stream in found.contrast.streams if stream.startswith("pixel_values"))
    assert found.contrast[seen].shape == found.explanations[0][seen].shape
    assert [view.placed for view in panels(found.contrast)[0].views].count(True) == 1
    assert "input_ids (against)" in found.contrast.streams


def test_sinks_are_looked_for_where_the_text_is_read_with_its_picture(model, picture, monkeypatch):
    monkeypatch.setattr(sinks, "EXCESS", 0.0)
    e = model.explain(picture, ASKED)
    inputs, (shown,) = model.inputs(picture, ASKED)
    tokens = inputs["input_ids"].shape[1]
    met = [weights[0] for weights in api.weights(model.module, inputs) if weights.shape[-1] == tokens]
    assert len(met) == model.config.text_config.num_hidden_layers
    shares = {j: float(np.mean([weights[:, j + 1 :, j].mean() for weights in met])) for j in range(tokens - 8)}
    told = dict(part.split("): ") for part in e.metadata["sinks"].split(", "))
    assert told
    for token, share in told.items():
        assert share == f"{shares[int(token.split('(token ')[1])]:.0%}"
    assert shown.layouts["input_ids"].special.items() != e.shown[0].layouts["input_ids"].special.items()


def test_one_pass_explains_all_words_and_one_looks_for_sinks(model, picture):
    passes = []
    hook = model.module.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    model.generate(ASKED, picture, tokens=3)
    hook.remove()
    assert passes.count(True) == 2
