"""What is asked of a model in words, and what its answers are called."""

import json
import shutil

import numpy as np
import pytest
import torch

import heedmap
from heedmap import logit, menagerie
from heedmap.errors import InputError, LabelError, TargetError
from heedmap.families.words import said, token

SCENE = menagerie.scene(["zebra", "elephant"], seed=7)
ALONE = menagerie.scene("zebra", seed=3).image


@pytest.fixture(scope="module")
def vit():
    return heedmap.load("zoo:vit")


def logits(model, image):
    with torch.no_grad():
        return model.module(**model.inputs(image)[0]).logits


def test_from_a_picture_to_what_is_shown(vit):
    e = vit.explain(SCENE.image, target="zebra", against="elephant")
    shown = e.shown[0]
    grid = shown.layouts["pixel_values"]
    assert (grid.rows, grid.columns, grid.first, grid.window) == (12, 12, 1, (0, 0, 1, 1))
    assert grid.special == {0: "[CLS]"}
    assert shown.picture.shape == (96, 96, 3)
    assert (shown.text, shown.box, shown.answer) == (None, None, "zebra rather than elephant")
    assert e.target == "logit('zebra') - logit('elephant')"


def test_what_speaks_for_the_zebra_is_on_the_zebra(vit):
    flowed = vit.explain(SCENE.image, target="zebra", against="elephant")["pixel_values"][0, 1:].reshape(12, 12)
    zebra, elephant = (torch.tensor(animal.mask).reshape(12, 8, 12, 8).float().mean((1, 3)) for animal in SCENE.animals)
    assert (flowed * zebra).sum() / zebra.sum() > flowed.mean() > (flowed * elephant).sum() / elephant.sum()


@pytest.mark.parametrize(
    ("loss", "value", "answer"),
    [
        (None, lambda a, b: a - b, "zebra rather than elephant"),
        ("difference", lambda a, b: a - b, "zebra rather than elephant"),
        ("ratio", lambda a, b: a / b, "zebra / elephant"),
        ("relative", lambda a, b: (a - b) / a, "(zebra - elephant) / zebra"),
    ],
)
def test_losses(vit, loss, value, answer):
    e = vit.explain(SCENE.image, target="zebra", against="elephant", loss=loss)
    a, b = (logits(vit, SCENE.image)[:, vit.labels.index(name)] for name in ("zebra", "elephant"))
    torch.testing.assert_close(e.value, value(a, b))
    assert e.shown[0].answer == answer


def test_against_alone_weighs_the_prediction(vit):
    e = vit.explain(ALONE, against="elephant")
    assert (e.target, e.predicted) == ("logit('zebra') - logit('elephant')", ("zebra",))
    with pytest.raises(InputError, match="against='zebra' is what the model predicts"):
        vit.explain(ALONE, against="zebra")


def test_the_prediction_is_named(vit):
    e = vit.explain(ALONE)
    assert e.predicted == ("zebra",)
    assert e.shown[0].answer == "zebra"


@pytest.mark.parametrize("target", [0, "zebra", "Zebra", logit("zebra"), logit(0)])
def test_targets_in_every_form(vit, target):
    e = vit.explain(SCENE.image, target=target)
    torch.testing.assert_close(e.value, logits(vit, SCENE.image)[:, 0])
    assert e.shown[0].answer == "zebra"


def test_expressions_and_callables_are_called_as_they_are_written(vit):
    assert vit.explain(SCENE.image, target=logit("zebra") + logit(2)).shown[0].answer == (
        "logit('zebra') + logit('elephant')"
    )
    assert vit.explain(SCENE.image, target=lambda output: output.logits[:, 2]).shown[0].answer == "<lambda>"


def test_one_target_for_each_example(vit):
    other = menagerie.scene("cat", seed=3).image
    e = vit.explain([SCENE.image, other], target=["elephant", "cat"], against=["zebra", "dog"])
    assert [shown.answer for shown in e.shown] == ["elephant rather than zebra", "cat rather than dog"]
    alone = vit.explain(other, target="cat", against="dog")["pixel_values"]
    torch.testing.assert_close(e["pixel_values"][1:], alone, rtol=1e-4, atol=1e-5)


def test_several_targets_of_one_picture(vit):
    both = vit.explain_each(ALONE, targets=["zebra", None, "elephant"], against="cat")
    assert [e.shown[0].answer for e in both] == [
        "zebra rather than cat",
        "zebra rather than cat",
        "elephant rather than cat",
    ]


@pytest.mark.parametrize(
    ("asked", "error", "match"),
    [
        ({"target": "zebre"}, LabelError, "Label 'zebre' is not one of this model's 16 labels. Did you mean 'zebra'?"),
        ({"target": 16}, LabelError, "this model has 16 classes, 0 to 15"),
        ({"target": "zebra", "against": "zebro"}, LabelError, "Did you mean 'zebra'"),
        ({"target": "zebra", "against": "ZEBRA"}, InputError, "against='zebra' is the target itself"),
        ({"target": "zebra", "against": 0}, InputError, "against='zebra' is the target itself"),
        ({"target": "zebra", "loss": "ratio"}, InputError, "but one was named"),
        ({"target": "zebra", "against": "cat", "loss": "sum"}, InputError, "loss is 'sum'. heedmap expected one of"),
        ({"target": ["zebra", "cat"]}, InputError, "A list of 2 was given for 1 examples"),
        ({"regions": {}}, InputError, r"'zoo:vit' does not read regions\. Leave regions= out"),
        ({"text": "a zebra"}, InputError, "it takes a picture, not a text. Leave text= out"),
        ({"sound": "x.wav"}, InputError, "it takes a picture, not a sound"),
        ({"target": 1.5}, TargetError, "1.5 is not a target"),
    ],
)
def test_what_cannot_be_asked(vit, asked, error, match):
    with pytest.raises(error, match=match):
        vit.explain(SCENE.image, **asked)


def test_no_picture(vit):
    with pytest.raises(InputError, match=r"'zoo:vit' does image-classification: it needs a picture\. Give image="):
        vit.explain()
    with pytest.raises(InputError, match="image is an empty list"):
        vit.explain([])
    with pytest.raises(InputError, match="expected a detector, such as zoo:detr"):
        vit.explain_detections(SCENE.image)


def test_predictions(vit):
    (answers,) = vit.predict(SCENE.image, top=3)
    assert {answer.label for answer in answers[:2]} == {"zebra", "elephant"}
    assert len(answers) == 3
    assert sum(answer.value for answer in vit.predict(SCENE.image, top=99)[0]) == pytest.approx(1)
    assert [len(row) for row in vit.predict([SCENE.image] * 3)] == [5, 5, 5]


def test_wiring_and_estimate(vit):
    assert vit.wiring(SCENE.image).streams == ("pixel_values",)
    assert vit.estimate(SCENE.image).total > 0


def test_a_picture_of_one_pixel(vit):
    e = vit.explain(np.full((1, 1, 3), 200, np.uint8))
    assert e.shown[0].layouts["pixel_values"].window == (0, 0, 1, 1)


# ---- detectors


def test_a_label_means_its_surest_object(folder):
    model = heedmap.load(folder("detr"))
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    inputs, _ = model.inputs(picture)
    with torch.no_grad():
        output = model.module(**inputs)
    query = int(output.logits.softmax(-1)[0, :, 3].argmax())
    e = model.explain(picture, target="cat", against="dog")
    assert e.target == f"logit('cat', query={query}) - logit('dog', query={query})"
    x, y, w, h = output.pred_boxes[0, query].tolist()
    expected = [min(max(edge, 0), 1) for edge in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]
    assert e.shown[0].box == pytest.approx(expected, abs=1e-5)


def test_every_detection_in_one_go(folder):
    model = heedmap.load(folder("detr"))
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    found = model.explain_detections(picture, threshold=0.0)
    answers = model.predict(picture, top=9)[0]
    assert [(e.shown[0].answer, e.shown[0].box) for e in found] == [(a.label, pytest.approx(a.box)) for a in answers]
    assert model.explain_detections(picture, threshold=1.0) == []
    assert len(model.explain_detections(picture, threshold=0.0, top=1, correction="positive")) == 1


# ---- words


def test_tokens_are_targets(folder):
    model = heedmap.load(folder("bert-masked"))
    e = model.explain(text="is there a [MASK] ?", target="zebra", against="elephant")
    assert e.shown[0].answer == "zebra rather than elephant"
    assert "position=4" in e.target
    with pytest.raises(LabelError, match="'unbelievables' is 2 tokens of this model: 'unbelievable', '##s'"):
        model.explain(text="is there a [MASK] ?", target="unbelievables")
    with pytest.raises(LabelError, match="'ostrich' is not in this model's vocabulary"):
        model.explain(text="is there a [MASK] ?", target="ostrich")
    with pytest.raises(InputError, match="The text has no mask"):
        model.explain(text="is there a zebra ?", target="zebra")
    with pytest.raises(InputError, match=r"has 2 masks, at tokens \[3, 4\]"):
        model.explain(text="is there [MASK] [MASK] ?", target="zebra")
    several = model.explain(text="is there [MASK] [MASK] ?", target=logit("zebra", position=4))
    assert "position=4" in several.target


def test_a_word_is_the_token_that_begins_it(folder):
    """Byte-level tokens tell a word that follows a space from the same letters within a word."""
    model = heedmap.load(folder("gpt2"))
    vocabulary = model.processor.text.get_vocab()
    assert {"a", "Ġa"} <= vocabulary.keys()
    text = "is there"
    assert model.explain(text=text, target="a").value == model.explain(text=text, target=vocabulary["Ġa"]).value
    assert model.explain(text=text, target="Ġa").value == model.explain(text=text, target="a").value


def test_a_token_that_cannot_be_seen_has_the_name_its_tokenizer_gives_it(folder):
    tokenizer = heedmap.load(folder("gpt2")).processor.text
    for text in ("\n", "\x15", "é"):
        *_, index = tokenizer(text)["input_ids"]
        name = said(tokenizer, index)
        assert name.isprintable()
        assert "\N{REPLACEMENT CHARACTER}" not in name
        assert token(tokenizer, name) == index


def test_a_strip_is_refused_before_it_is_enlarged(folder):
    strip = np.zeros((2, 2000, 3), np.uint8)
    with pytest.raises(InputError, match="2000 x 2, and this model's processor enlarges the shorter side"):
        heedmap.load(folder("clip")).explain(strip, ["a zebra"])
    assert heedmap.load(folder("vit")).explain(strip).shown[0].layouts["pixel_values"].rows == 4


def test_tokens_out_of_range(folder):
    with pytest.raises(LabelError, match=r"Index 99999 is out of range"):
        heedmap.load(folder("gpt2")).explain(text="a zebra", target=99999)


def test_a_name_that_two_classes_share(folder, tmp_path):
    there = tmp_path / "model"
    shutil.copytree(folder("vit"), there)
    config = json.loads((there / "config.json").read_text())
    config["id2label"]["3"] = "zebra"
    (there / "config.json").write_text(json.dumps(config))
    model = heedmap.load(there)
    with pytest.raises(LabelError, match=r"'zebra' is the name of classes \[0, 3\]\. Give one of these indices"):
        model.explain(SCENE.image, target="zebra")
    assert model.explain(SCENE.image, target=3).shown[0].answer == "zebra"


def test_texts_that_cannot_be_read(folder):
    model = heedmap.load(folder("bert"))
    with pytest.raises(InputError, match="The text is empty"):
        model.explain(text="  ")
    with pytest.raises(InputError, match=r"has 102 tokens; this model takes 64. Shorten it"):
        model.explain(text="zebra " * 100)
    with pytest.raises(InputError, match="The text is a int"):
        model.explain(text=3)


# ---- captions


def test_captions(folder):
    model = heedmap.load(folder("clip"))
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    texts = ["a zebra", "an elephant in the picture", "a cat"]
    with torch.no_grad():
        scores = model.module(**model.inputs(picture, texts)[0]).logits_per_image[0]
    e = model.explain(picture, texts, target="a cat")
    torch.testing.assert_close(e.value[0], scores[2], rtol=1e-4, atol=1e-4)
    assert e.shown[0].text == "a cat"
    assert e["input_ids"].shape[0] == 1
    pair = model.explain(picture, texts, target="a cat", against="a zebra")
    torch.testing.assert_close(pair.value[0], scores[2] - scores[0], rtol=1e-4, atol=1e-4)
    assert pair.shown[0].answer == "a cat rather than a zebra"
    torch.testing.assert_close(pair["input_ids"][:, : e["input_ids"].shape[1]], e["input_ids"], rtol=1e-3, atol=1e-4)
    assert pair.streams == ("pixel_values", "input_ids", "input_ids (against)")
    assert {flowed.shape[0] for flowed in pair.relevance.values()} == {1}
    assert pair.row("input_ids (against)").shape == pair["input_ids"].shape
    against = pair.shown[0].layouts["input_ids (against)"]
    assert [against.texts[word[0]] for word in against.words] == ["a", "zebra"]
    every = model.explain(picture, texts, target=logit("a cat") - logit(texts[1]) / 2)
    assert every.streams == ("pixel_values", "input_ids", "input_ids (2)", "input_ids (3)")
    assert every["input_ids"].abs().max() == 0  # "a zebra" was not asked about
    assert model.explain(picture, texts).predicted == (texts[int(scores.argmax())],)
    assert model.explain(picture, target="a cat").shown[0].text == "a cat"
    with pytest.raises(LabelError, match=r"'a cut' is not one of the 3 captions given\. Did you mean 'a cat'"):
        model.explain(picture, texts, target="a cut")
    with pytest.raises(InputError, match="against='a cat' is the target itself"):
        model.explain(picture, texts, target="a cat", against=2)
    with pytest.raises(InputError, match="is what the model predicts"):
        model.explain(picture, texts, against=int(scores.argmax()))
    with pytest.raises(InputError, match="loss='ratio' weighs two answers"):
        model.explain(picture, texts, target="a cat", loss="ratio")
    with pytest.raises(InputError, match=r"it needs the captions to choose from\. Give text="):
        model.explain(picture)


def test_captions_of_several_pictures(folder):
    model = heedmap.load(folder("clip"))
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8))
    both = model.explain(pictures, ["a zebra", "a cat"], target="a cat")
    alone = model.explain(pictures[1], ["a zebra", "a cat"], target="a cat")
    torch.testing.assert_close(both["pixel_values"][1:], alone["pixel_values"], rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="one picture at a time"):
        model.explain(pictures, ["a zebra", "a cat"], target="a cat", against="a zebra")
