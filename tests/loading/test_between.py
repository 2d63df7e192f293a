"""Models that read a picture between the words of a text: what they are given, and what each written word came from."""

import numpy as np
import pytest
import torch

import heedmap
from heedmap import api
from heedmap.errors import InputError

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
    assert "".join(words.texts).replace("[IMAGE]", "").startswith("user:isthereazebra?")
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


def test_messages_are_taken(model, picture):
    said = [{"role": "system", "content": "the film was good"}, {"role": "user", "content": ASKED}]
    _, (shown,) = model.inputs(picture, said)
    words = shown.layouts["input_ids"]
    assert "".join(words.texts).replace("[IMAGE]", "").startswith("system:thefilmwasgooduser:")
    assert "film" in "".join(words.texts[: min(words.special)])


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
    with pytest.raises(InputError, match="2 texts were given. heedmap expected one, with its pictures"):
        model.explain(picture, [ASKED, "a zebra"])
