"""`heedmap inspect` and `heedmap read`, as a person uses them."""

import pytest

import heedmap
from heedmap.experiments.inspection import inspect
from heedmap.experiments.reading import reading

LXMERT = ("--model", "zoo:lxmert")
ASKED = ("--text", "is there a zebra and a dog?", *LXMERT)


def test_a_question_is_inspected(run, savanna, tmp_path):
    found = run("inspect", savanna, *ASKED, "--answers", "yes,no", "--out", "seen")
    assert (found.code, found.err) == (0, "")
    expected = inspect(heedmap.load("zoo:lxmert"), savanna, "is there a zebra and a dog?", ("yes", "no"))
    assert f"the model says {expected.given.label} ({expected.given.value:.1%})" in found.out
    assert f"yes rather than no, {float(expected.difference.value):+.2f}:" in found.out
    for voice in expected.regions:
        assert f"{voice.name} speaks for {voice.answer} ({voice.share:.0%})" in found.out
    made = {path.name for path in (tmp_path / "seen").iterdir()}
    stem = "savanna.is-there-a-zebra-and-a-dog.yes.no.inspected"
    assert made == {f"{stem}.png", f"{stem}.html"}
    assert "yes rather than no" in (tmp_path / "seen" / f"{stem}.html").read_text(encoding="utf-8")


def test_what_is_inspected_can_be_had_as_numbers(run, savanna, tmp_path):
    found = run("inspect", savanna, *ASKED, "--answers", "yes,no", "--json").json
    assert [each["label"] for each in found["answers"]] == ["yes", "no"]
    assert sum(region["share"] for region in found["regions"]) == pytest.approx(1)
    for region in found["regions"]:
        assert region["speaks for"] == ("yes" if region["value"] > 0 else "no")
    alone, difference = found["explanations"]
    assert (alone["answer"], difference["answer"]) == ("yes", "yes rather than no")
    assert found["files"] == []
    assert not (tmp_path / "out").exists()


def test_whoever_has_no_picture_takes_a_drawn_one(run, tmp_path):
    found = run("inspect", "menagerie:owl, cat", "--text", "what colour is the owl?", *LXMERT, "-f", "json")
    assert found.code == 0
    assert "owl speaks for" in found.out
    assert "cat speaks for" in found.out
    (made,) = (tmp_path / "out").iterdir()
    assert made.name.startswith("owl-cat.what-colour-is-the-owl.")


def test_a_question_is_read(run, savanna, tmp_path):
    found = run("read", savanna, *ASKED, "-f", "png,json")
    assert (found.code, found.err) == (0, "")
    first, regions, words, *_ = found.out.splitlines()
    assert first == f"{savanna}: is there a zebra and a dog? (no, the prediction)"
    assert regions.startswith("  regions: ")
    assert words.startswith("  words: ")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".png", ".json"}


def test_the_numbers_of_a_reading_are_the_librarys(run, savanna):
    found = run("read", savanna, *ASKED, "-T", "yes", "--json").json
    expected = reading(heedmap.load("zoo:lxmert"), savanna, "is there a zebra and a dog?", "yes")
    streams = {stream["stream"]: stream for stream in found["reading"]["streams"]}
    regions = [unit["value"] for unit in streams["visual_feats"]["units"]]
    assert regions == pytest.approx(expected["visual_feats"][0].tolist(), rel=1e-4)
    words = [unit["value"] for unit in streams["input_ids"]["units"]]
    assert words == pytest.approx(expected["input_ids"][0, 1:-1].tolist(), rel=1e-3, abs=1e-7)
    assert (found["reading"]["answer"], found["whole"]["answer"]) == ("reading: yes", "yes")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["inspect", "menagerie:zebra", *ASKED, "--answers", "yes"], 2, "--answers 'yes' is not two answers"),
        (["inspect", "menagerie:zebra", *ASKED, "--answers", "no,No"], 2, "is not two answers that differ"),
        (["inspect", "menagerie:zebra", *ASKED, "--answers", "yes,zebre"], 2, "Did you mean 'zebra'?"),
        (["inspect", "menagerie:zebre", *ASKED], 2, "Did you mean 'zebra'?"),
        (["inspect", "menagerie:zebra", "--text", " ", *LXMERT], 2, "--text is empty"),
        (["inspect", "menagerie:zebra", *ASKED, "--correction", "total"], 2, "--correction 'total' is not one of"),
        (["inspect", "nowhere.png", *ASKED], 1, "There is no picture 'nowhere.png'"),
        (["inspect", "menagerie:zebra", *ASKED[:2], "-m", "zoo:lxmret"], 2, "Did you mean zoo:lxmert?"),
        (["inspect", "menagerie:zebra", *ASKED[:2], "-m", "zoo:vit"], 1, "does image-classification"),
        (["read", "menagerie:zebra", *ASKED, "-T", "zebre"], 2, "Did you mean 'zebra'?"),
        (["read", "menagerie:zebra", *ASKED, "-f", "pgn"], 2, "--format 'pgn'"),
        (["read", "menagerie:zebra", *ASKED[:2], "-m", "zoo:vit"], 1, "does image-classification. A reading is"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(run, arguments, code, said):
    found = run(*arguments)
    assert found.code == code
    assert said in found.line
