"""Logical inspection: what is explained, what its voices say; and the figure's rules, roles and removals, by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import heedmap
from heedmap import logit, menagerie
from heedmap.errors import InputError, LabelError
from heedmap.experiments.inspection import inspect
from heedmap.families.regions import Given
from heedmap.menagerie import Question
from heedmap.reproduce.findings import Setting
from heedmap.reproduce.heterogenous_attention import inspection as figure
from heedmap.reproduce.heterogenous_attention import roles

TEXT, PICTURE = "input_ids", "visual_feats"
QUESTION = "is there a zebra and a dog?"


@pytest.fixture(scope="module")
def scene():
    return menagerie.scene(["zebra", "elephant", "cat"], seed=7)


@pytest.fixture(scope="module")
def lxmert():
    return heedmap.load("zoo:lxmert", device="cpu")


@pytest.fixture(scope="module")
def found(lxmert, scene):
    return inspect(lxmert, scene.image, QUESTION, ("yes", "no"))


def test_one_answer_alone_and_held_against_the_other(lxmert, scene, found):
    inputs, _ = lxmert.inputs(scene.image, QUESTION)
    yes, no = logit(lxmert.index("yes")), logit(lxmert.index("no"))
    for e, target in ((found.alone, yes), (found.difference, yes - no)):
        expected = heedmap.explain(lxmert.module, inputs, target, correction="complete")
        torch.testing.assert_close(e.value, expected.value)
        for stream in (TEXT, PICTURE):
            torch.testing.assert_close(e[stream], expected[stream])
    shares = {answer.label: answer.value for answer in lxmert.predict(scene.image, QUESTION, top=33)[0]}
    assert found.answers == ("yes", "no")
    assert found.probabilities == (shares["yes"], shares["no"])
    assert found.given.label == max(shares, key=lambda label: shares[label])


def test_voices_say_for_whom_they_speak_and_how_loud(found):
    flowed = found.difference[PICTURE][0]
    names = found.difference.shown[0].layouts[PICTURE].names
    assert {voice.name for voice in found.regions} == set(names)
    for voice in found.regions:
        value = flowed[names.index(voice.name)]
        assert voice.value == pytest.approx(float(value))
        assert voice.answer == ("yes" if value > 0 else "no")
        assert voice.share == pytest.approx(float(value.abs() / flowed.abs().sum()))
    assert sum(voice.share for voice in found.words) == pytest.approx(1)
    assert [voice.share for voice in found.regions] == sorted((v.share for v in found.regions), reverse=True)
    assert not {"[CLS]", "[SEP]"} & {voice.name for voice in found.words}


def test_turned_round_the_value_turns(lxmert, scene, found):
    other = inspect(lxmert, scene.image, QUESTION, ("no", "yes"))
    torch.testing.assert_close(other.difference.value, -found.difference.value)
    assert other.probabilities == found.probabilities[::-1]


def test_without_answers_the_two_likeliest_are_taken(lxmert, scene):
    likeliest = tuple(answer.label for answer in lxmert.predict(scene.image, "what colour is the cat?", top=2)[0])
    found = inspect(lxmert, scene.image, "what colour is the cat?")
    assert found.answers == likeliest
    assert found.difference.shown[0].answer == " rather than ".join(likeliest)


def test_a_model_without_names_is_asked_by_index(folder, scene):
    rng = np.random.default_rng(0)
    regions = {"boxes": np.array([[0, 0, 0.5, 0.5], [0.2, 0.3, 0.9, 0.8]])}
    model = heedmap.load(folder("lxmert"))
    regions["features"] = rng.normal(size=(2, model.config.visual_feat_dim))
    by_name = inspect(model, scene.image, "is there a zebra?", ("zebra", "dog"), regions=regions)
    by_index = inspect(model, scene.image, "is there a zebra?", (0, 4), regions=regions)
    assert by_name.answers == by_index.answers == (model.labels[0], model.labels[4])
    torch.testing.assert_close(by_name.difference[PICTURE], by_index.difference[PICTURE])
    assert {voice.name for voice in by_name.regions} == {"region 1", "region 2"}


@pytest.mark.parametrize("answers", [("yes",), ("yes", "yes"), "yes", ("yes", "no", "1")])
def test_two_answers_that_differ_are_needed(lxmert, scene, answers):
    with pytest.raises(InputError, match=r"heedmap expected two that differ, such as \('yes', 'no'\)"):
        inspect(lxmert, scene.image, QUESTION, answers)


def test_what_cannot_be_inspected_is_refused(lxmert, scene):
    with pytest.raises(LabelError, match="Did you mean 'zebra'"):
        inspect(lxmert, scene.image, QUESTION, ("yes", "zebre"))
    with pytest.raises(InputError, match="one of each at a time"):
        inspect(lxmert, [scene.image] * 2, QUESTION)
    for name in ("vit", "clip"):
        with pytest.raises(InputError, match=f"'zoo:{name}' does .*questions about pictures"):
            inspect(heedmap.load(f"zoo:{name}"), scene.image, QUESTION)


# ---- figure 8: what must be


@pytest.mark.parametrize(
    ("question", "musts"),
    [
        (Question("exists", "is there a cat?", "yes", (1, 3)), ["other -1", "asked +1", "other -1"]),
        (Question("exists", "is there a dog?", "no", ()), ["other +1", "other +1", "other +1"]),
        (Question("both", "is there a zebra and a dog?", "no", (0,)), ["asked -1", "other +1", "other +1"]),
        (Question("both", "is there a zebra and an owl?", "yes", (0, 2)), ["asked +1", "other -1", "asked +1"]),
        (Question("colour", "what colour is the owl?", "grey", (2,)), [None, None, "colour +1"]),
        (Question("left", "which animal is left of the owl?", "zebra", (2, 0)), ["left +1", None, "left +1"]),
        (Question("count", "how many animals are there?", "4", (0, 1, 2, 3)), [None, None, None]),
    ],
)
def test_what_each_animal_must_say(question, musts):
    """Of the zebra, of both cats together, of the owl."""
    drawn = menagerie.scene(["zebra", "cat", "owl", "cat"], seed=3)
    told = {animals: f"{part} {sign:+d}" for part, sign, animals in roles.musts(drawn, question)}
    assert [told.pop(animals, None) for animals in ((0,), (1, 3), (2,))] == musts
    assert not told


def test_a_region_is_the_animal_that_it_overlaps(scene):
    boxes = np.array([animal.box for animal in scene.animals]) / scene.size
    corner = np.array([[0, 0, 0.01, 0.01]])
    assert roles.matched(np.concatenate([boxes[::-1], corner]), scene) == [2, 1, 0, None]


def test_roles_are_the_rows_of_what_was_found(scene):
    boxes = np.array([animal.box for animal in scene.animals], dtype=np.float32) / scene.size
    twice = Given(boxes[[1, 0, 0]], np.zeros((3, 4)), ("", "", ""))  # the cat was not seen, the zebra twice
    question = Question("both", QUESTION, "no", (0,))
    posed = roles.Posed(scene, question, twice, "no", "yes")
    assert posed.roles == [roles.Role("asked", -1, (1, 2)), roles.Role("other", 1, (0,))]
    assert posed.right
    assert not replace(posed, answer="yes").right


# ---- figure 8: what is measured


@pytest.fixture(scope="module")
def posed(lxmert):
    return roles.pose(lxmert, list(menagerie.questions(10, 640_000)), lambda share: None)


def test_the_answer_is_held_against_its_own_kind(lxmert, posed):
    for each in posed:
        assert each.other != each.answer
        assert any({each.answer, each.other} <= set(group) for group in roles.LIKE)
    assert posed[0].answer == lxmert.predict(posed[0].scene.image, posed[0].question.text, top=1)[0][0].label


def test_voices_are_those_of_each_question_alone(lxmert, posed):
    for each, said in zip(posed, roles.voices(lxmert, posed, against=True), strict=True):
        alone = lxmert.explain(**each.given, target=each.answer, against=each.other)
        assert said == pytest.approx(alone[PICTURE][0].numpy(), abs=1e-5)


def test_removing_a_region_is_never_having_seen_it(lxmert, posed):
    several = [each for each in posed if len(each.found.boxes) > 1]
    lost = roles.removals(lxmert, several, [(0,)] * len(several), True)
    for each, change in zip(several, lost, strict=True):
        found = each.found
        values = []
        for seen in (found, Given(found.boxes[1:], found.features[1:], found.names[1:])):
            inputs, _ = lxmert.inputs(each.scene.image, each.question.text, regions=seen)
            with torch.no_grad():
                logits = lxmert.module(**inputs).question_answering_score[0]
            values.append(float(logits[lxmert.index(each.answer)] - logits[lxmert.index(each.other)]))
        assert change == pytest.approx(values[0] - values[1], abs=1e-4)
    every = [tuple(range(len(each.found.boxes))) for each in posed]
    assert np.isnan(roles.removals(lxmert, posed, every, True)).all()


def test_attention_turned_by_one_is_the_model_as_it_is(lxmert, posed):
    logits = roles.turned(lxmert, posed, [(0,)] * len(posed), (0.0, 1.0), lambda share: None)
    assert logits.shape == (len(posed), 2, 2)
    for each, row in zip(posed, logits, strict=True):
        values = [float(lxmert.explain(**each.given, target=name).value) for name in (each.answer, each.other)]
        assert row[1] == pytest.approx(values, abs=1e-3)
    assert np.abs(logits[:, 0] - logits[:, 1]).max() > 0.1


def heard(question, part, says, does=1.0):
    return figure.Heard(question, part, part, {"logit": -says, "difference": says}, {"logit": does, "difference": does})


def test_rates_are_means_over_the_roles_of_each_question():
    told = [heard(0, "asked", 2.0), heard(0, "asked", -1.0), heard(1, "asked", 3.0), heard(2, "asked", 0.0)]
    rates = figure.rates(told, figure._right("difference"))
    assert rates[:2] == [0.5, 1.0]
    assert np.isnan(rates[2])  # what says nothing is neither right nor wrong
    assert figure.rates([heard(0, "asked", 2.0, float("nan"))], figure._does("logit"))[0] != 1


@pytest.mark.parametrize(("says", "holds"), [(1.0, True), (-1.0, False)])
def test_a_part_is_decided_by_its_numbers(says, holds):
    told = [heard(i, part, says) for i in range(20) for part in ("asked", "other")]
    assert figure._of("asked", told).holds is holds
    assert figure._better(told).holds is holds
    assert figure._alike(told).holds is holds


def test_the_figure_shows_the_first_questions_and_measures_all():
    finding = figure.figure_8(Setting(scenes=16))
    assert [len(row) for row in finding.rows.values()] == [2] * figure.SHOWN
    assert next(iter(finding.rows)) == "scene 908000: is there a conch?"
    assert [part.says for part in finding.parts[:4]] == list(figure.SAYS.values())
    better = finding.parts[4].measured
    assert better["right sign, by the difference"].count == 16
    assert better["difference less logit"].value == pytest.approx(
        better["right sign, by the difference"].value - better["right sign, by the logit"].value
    )
    assert set(finding.drawings) == {"attention"}
    assert {"exists, other", "colour", "left"} <= set(finding.more["by type"])


def test_a_persons_own_questions_are_shown_and_not_measured(scene, tmp_path):
    scene.image.save(tmp_path / "COCO_val2014_000000000042.png")
    (tmp_path / "q.json").write_text('[{"img_id": 42, "sent": "is there a zebra?", "label": {"yes": 1}}]')
    own = Setting(images=(tmp_path / "COCO_val2014_000000000042.png",), questions=tmp_path / "q.json")
    finding = figure.figure_8(own)
    assert finding.holds is None
    assert list(finding.rows) == ["COCO_val2014_000000000042.png: is there a zebra?"]
    with pytest.raises(InputError, match="Pictures alone ask nothing"):
        figure.figure_8(replace(own, questions=None))
    with pytest.raises(InputError, match="asks about none of the pictures"):
        figure.figure_8(replace(own, images=(tmp_path / "7.png",)))
