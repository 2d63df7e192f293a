"""`heedmap evaluate questions`, as a person uses it."""

import json
import shutil

import pytest

from heedmap import zoo
from heedmap.menagerie.__main__ import detected
from heedmap.menagerie.export import export

ZOO = ("evaluate", "questions", "--model", "zoo:lxmert")


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return export("questions", 6, 650_000, tmp_path_factory.mktemp("asked") / "q", features=detected())


def test_drawn_questions_and_their_export_say_the_same(run, asked, tmp_path):
    drawn = run(*ZOO, "--count", 6, "--methods", "gae,odam,random")
    assert drawn.code == 0, drawn.err
    assert "zoo:lxmert: 6 questions. Explained: the likeliest answer." in drawn.out
    assert "odam says nothing of text" in drawn.out
    assert (tmp_path / "out" / "questions.zoo-lxmert.png").is_file()
    kept = json.loads((tmp_path / "out" / "questions.zoo-lxmert.json").read_text())
    files = ("--questions", asked / "questions.json", "--annotations", asked / "annotations.json")
    told = run(*ZOO, *files, "--regions", asked / "features.npz", "--methods", "gae,odam,random", "--json").json
    assert told == {**kept, "files": []}


def test_a_model_that_does_not_name_its_answers(run, asked, tmp_path):
    shutil.copytree(zoo.path("lxmert"), tmp_path / "own")
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    names = list(config.pop("id2label").values())
    del config["label2id"]
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    for name in ("questions.json", "annotations.json", "features.npz"):
        shutil.copy(asked / name, tmp_path)
    given = "--questions questions.json --annotations annotations.json --regions features.npz --methods gae --json"
    command = ("evaluate", "questions", "--model", "own", *given.split())
    assert "does not say what its answers are called" in run(*command).line
    (tmp_path / "trainval_label2ans.json").write_text(json.dumps(names))
    found = run(*command)
    assert found.code == 0, found.err
    assert found.json["curves"][0]["accuracy"][0]["value"] == 1.0
    (tmp_path / "few.txt").write_text("no\nyes\n")
    assert "names 2 answers, and the model chooses among 33" in run(*command, "--answers", "few.txt").line


def test_what_cannot_be_asked_is_named_and_the_rest_is_measured(run, asked, tmp_path):
    held = json.loads((asked / "questions.json").read_text())
    held["questions"][1]["question"] = "is there " + "a zebra and " * 9 + "a cat?"
    held["questions"][2]["image_id"] = 1
    (tmp_path / "q.json").write_text(json.dumps(held))
    files = ("--questions", "q.json", "--annotations", asked / "annotations.json", "--images", asked / "images")
    found = run(*ZOO, *files, "--methods", "gae", "--modality", "text")
    assert found.code == 1
    assert "question 650001: The text 'is there a zebra" in found.line
    assert "4 questions; left out: 1 about pictures that are not there; 1 could not be asked" in found.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--methods gea", "Did you mean 'gae'?"),
        ("--modality pixels", "--modality 'pixels' is not one of image, text."),
        ("--order positiv", "Did you mean positive?"),
        ("--questions nope.json", "There is no file 'nope.json'. --questions expects one."),
        ("--regions nope.npz", "--regions belongs to --questions"),
        ("--questions q.json", "--regions) or them (--images)"),
        ("--questions q.json --count 3", "Name one of them"),
        ("--questions q.json --images nope", "There is no folder 'nope'"),
        ("--model own --questions q.json", "reads regions of pictures, not pixels"),
        ("--model zoo:vit", "Drawn questions are for zoo:lxmert"),
        ("--model zoo:lxmrt", "Did you mean zoo:lxmert?"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_loaded(run, tmp_path, arguments, said):
    (tmp_path / "q.json").write_text("{}")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text("{}")
    found = run(*ZOO, *arguments.split())
    assert (found.code, found.out) == (2, "")
    assert said in found.line
