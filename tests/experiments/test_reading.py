"""Semantic reading: against rollouts by hand, stream by stream; where it is refused; the figure that measures it."""

import numpy as np
import pytest
import torch

import heedmap
from heedmap import Readout, menagerie
from heedmap.errors import InputError
from heedmap.experiments.reading import before_meeting, reading
from heedmap.families.regions import read
from heedmap.records import Call, State, Wiring
from heedmap.reproduce.findings import Setting
from heedmap.reproduce.heterogenous_attention import reading as figure

TEXT, PICTURE = "input_ids", "visual_feats"
QUESTION = "is there a zebra and a dog?"


@pytest.fixture(scope="module")
def scene():
    return menagerie.scene(["zebra", "elephant", "cat"], seed=7)


@pytest.fixture(scope="module")
def lxmert():
    return heedmap.load("zoo:lxmert", device="cpu", dtype=torch.float64)


def rollout(logit, layers):
    """The product of (I + mean over heads of |gradient| * weights), less the identity."""
    gradients = torch.autograd.grad(logit, layers, retain_graph=True)
    identity = torch.eye(layers[0].shape[-1], dtype=torch.float64)
    whole = identity
    for weights, gradient in zip(layers, gradients, strict=True):
        whole = (identity + (gradient.abs() * weights)[0].mean(0)) @ whole
    return (whole - identity).detach()


def by_hand(model, image, answer):
    """From the attention that transformers returns: the words' row of CLS, the regions' columns."""
    output = model.module(**model.inputs(image, QUESTION)[0], output_attentions=True)
    logit = output.question_answering_score[0, model.index(answer)]
    return rollout(logit, output.language_attentions)[0], rollout(logit, output.vision_attentions).sum(0)


@pytest.mark.parametrize("answer", ["no", "yes"])
def test_a_reading_is_the_rollout_of_each_encoder_by_itself(lxmert, scene, answer):
    e = reading(lxmert, scene.image, QUESTION, answer)
    words, regions = by_hand(lxmert, scene.image, answer)
    torch.testing.assert_close(e[TEXT][0], words, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(e[PICTURE][0], regions, rtol=1e-9, atol=1e-12)
    assert e.correction == "absolute"
    assert e.readout == (f"{PICTURE}@2, row 0, 1, 2", f"{TEXT}@1, row 0")


def test_regions_are_the_sum_of_what_each_of_them_took(lxmert, scene):
    whole = reading(lxmert, scene.image, QUESTION)[PICTURE]
    each = [
        lxmert.explain(
            scene.image, QUESTION, correction="absolute", readout=Readout(PICTURE, after=2, rows=row)
        )[PICTURE]
        for row in range(whole.shape[1])
    ]  # fmt: skip
    torch.testing.assert_close(whole, sum(each))
    assert (each[0] != each[1]).any()


def test_what_comes_after_the_meeting_adds_nothing(lxmert, scene):
    """The whole explanation differs; the reading has what was read before, for the same answer."""
    e, whole = reading(lxmert, scene.image, QUESTION), lxmert.explain(scene.image, QUESTION, correction="absolute")
    torch.testing.assert_close(e.value, whole.value)
    assert e.predicted == whole.predicted == ("no",)
    for stream in (TEXT, PICTURE):
        assert torch.corrcoef(torch.stack([e[stream][0], whole[stream][0]]))[0, 1] < 0.99
    assert e.shown[0].answer == "reading: no"


def test_several_questions_are_read_as_each_alone(lxmert, scene):
    texts = [QUESTION, "what colour is the cat?"]
    (found,) = read(None, [scene.image], [None], lxmert.source)
    together = reading(lxmert, [scene.image] * 2, texts, regions=[found] * 2)
    for i, text in enumerate(texts):
        alone = reading(lxmert, scene.image, text, regions=found)
        for stream in (TEXT, PICTURE):
            tokens = alone[stream].shape[1]
            torch.testing.assert_close(together[stream][i, :tokens], alone[stream][0], rtol=1e-9, atol=1e-12)
            assert not together[stream][i, tokens:].any()


# ---- where it begins, and where it cannot


def call(index, reading, read):
    return Call(index, f"layer {index}", "softmax, matmul", State(*reading), State(*read), 4, 4, 2, "A")


def wired(*calls):
    return Wiring(tuple(call(i, *pair) for i, pair in enumerate(calls)), {"words": 4, "boxes": 3})


def test_the_states_are_those_of_the_first_meeting():
    found = before_meeting(
        wired(
            (("boxes", None), ("boxes", None)),
            (("words", None), ("words", None)),
            (("boxes", 0), ("boxes", 0)),
            (("words", 1), ("boxes", 2)),
            (("boxes", 2), ("words", 1)),
            (("words", 3), ("boxes", 4)),
        )
    )
    assert found == [Readout("words", 1, rows=0), Readout("boxes", 2, rows="all")]


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ([(("words", None), ("words", None))], "No stream of this model reads another: it has words and boxes"),
        (
            [(("words", None), ("words", None)), (("words", 0), ("boxes", None))],
            r"In call 1 \(layer 1\) words@0 reads boxes, and boxes has not read anything before",
        ),
        ([(("words", None), ("boxes", None))], "and words has not read anything before"),
    ],
)
def test_a_model_without_such_a_place_is_refused(calls, said):
    with pytest.raises(InputError, match=said):
        before_meeting(wired(*calls))


@pytest.mark.parametrize("name", ["vit", "clip", "detr"])
def test_other_models_are_refused_by_what_they_do(scene, name):
    with pytest.raises(InputError, match=rf"'zoo:{name}' does .* as zoo:lxmert does"):
        reading(heedmap.load(f"zoo:{name}"), scene.image, QUESTION)
    with pytest.raises(InputError, match="The model is a Linear"):
        reading(torch.nn.Linear(2, 2), scene.image, QUESTION)


@pytest.mark.parametrize(
    ("name", "said"), [("vilt", "No stream of this model reads another"), ("blip", "does image-text-to-text")]
)
def test_one_stream_and_a_decoder_are_refused(folder, scene, name, said):
    with pytest.raises(InputError, match=said):
        reading(heedmap.load(folder(name)), scene.image, "is there a zebra?")


# ---- figure 7


@pytest.fixture(scope="module")
def finding():
    return figure.figure_7(Setting(scenes=15))


def test_the_figure_measures_words_and_regions(finding):
    words, animals, unasked, same = finding.parts
    assert words.measured["content outranks grammar"].count == 15
    assert 0 < animals.measured["an animal outranks the ground"].count <= 15
    assert unasked.holds == (unasked.measured["difference"].low > 0)
    assert same.measured["the reading: cosine"].high <= 1
    assert len(finding.rows) == figure.SHOWN
    assert all(len(row) == 2 for row in finding.rows.values())
    assert next(iter(finding.rows)).startswith("scene 907000: ")


def test_words_of_content_are_told_from_those_of_grammar():
    heard = [
        figure.Heard(("is", "there", "a", "zebra", "?"), ((1,), (2,), (3,), (4,), (5,)), np.array(said), np.ones(1))
        for said in ([5.0, 0, 0, 4, 0], [0.0, 0, 0, 1, 0])
    ]
    assert figure._ahead(heard, [each.said for each in heard]).value == pytest.approx((3 / 4 + 1) / 2)
    assert figure._ahead(heard, [each.said for each in heard], skip=1).value == 1


def test_ground_is_where_no_animal_is(scene):
    cells = figure._free(scene)
    covered = np.any([animal.mask for animal in scene.animals], axis=0)
    for left, top, right, bottom in cells:
        rows, columns = (slice(round(a * scene.size), round(b * scene.size)) for a, b in ((top, bottom), (left, right)))
        assert not covered[rows, columns].any()
    empty = menagerie.scene("snail", seed=1)
    assert len(figure._free(empty)) >= figure.EMPTY
