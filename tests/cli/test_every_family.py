"""The same few words for every kind of model: pictures, detections, questions, captions, texts, sounds."""

import shutil
import wave

import numpy as np
import pytest
import torch
import transformers
from PIL import Image


@pytest.fixture
def room(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "room.png")
    return "room.png"


@pytest.fixture
def sound(tmp_path):
    numbers = (np.random.default_rng(2).normal(size=16_000) * 3000).astype("<i2")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(numbers.tobytes())
    return "sound.wav"


@pytest.fixture
def regions(tmp_path):
    rng = np.random.default_rng(3)
    corners = np.sort(rng.random((5, 2, 2)), axis=1).reshape(5, 4).astype(np.float32)
    np.savez(tmp_path / "regions.npz", features=rng.normal(size=(5, 12)).astype(np.float32), boxes=corners)
    return "regions.npz"


def explained(run, *arguments):
    """What `explain --json` gives; every other way of asking works too."""
    found = run("explain", *arguments, "--json")
    assert (found.code, found.err) == (0, ""), found.err
    written = run("explain", *arguments, "--format", "png,html,json,heed", "--out", "made")
    assert (written.code, written.err) == (0, ""), written.err
    predicted = run("predict", *arguments, "--json")
    assert predicted.code == 0, predicted.err
    return found.json["results"][0], predicted.json["results"][0]["answers"]


@pytest.fixture
def eager(folder, tmp_path):
    """A detector that sees something in every query, and not the same."""
    model = transformers.DetrForObjectDetection.from_pretrained(folder("detr"))
    with torch.no_grad():
        model.model.query_position_embeddings.weight *= 20
        model.class_labels_classifier.weight *= 20
        model.bbox_predictor.layers[-1].weight *= 20
        model.class_labels_classifier.bias[-1] = -200
    shutil.copytree(folder("detr"), tmp_path / "eager")
    model.save_pretrained(tmp_path / "eager")
    return tmp_path / "eager"


def test_every_detection_is_explained_and_has_its_box(run, eager, room, tmp_path):
    threshold = ("--threshold", "0", "--correction", "positive")
    found = run("explain", room, "--model", eager, *threshold, "--json", "--out", "made")
    assert (found.code, found.err) == (0, "")
    (result,) = found.json["results"]
    assert len(result["explanations"]) > 1
    assert all(len(each["box"]) == 4 for each in result["explanations"])
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["room.detections.positive.png"]
    several = run("explain", room, "--model", eager, "--threshold", "0", "-f", "heed,html", "-q")
    assert several.code == 0, several.err
    kept = sorted(each.name for each in (tmp_path / "out").glob("*.heed"))
    assert kept == [f"room.detections-{i + 1}.heed" for i in range(len(result["explanations"]))]


def test_a_detector_that_is_sure_of_nothing_gives_its_surest_object(run, folder, room):
    found = run("explain", room, "--model", folder("detr"), "--threshold", "1", "--json")
    assert found.code == 0
    assert "no object is 100% sure" in found.err
    (explanation,) = found.json["results"][0]["explanations"]
    assert explanation["predicted"] is not None


@pytest.mark.parametrize("name", ["deformable-detr", "rt-detr"])
def test_of_every_detector_that_normalises_behind_the_sign_is_doubted(run, folder, room, name):
    found = run("explain", room, "--model", folder(name), "-T", "zebra", "--json")
    assert found.code == 0
    assert "the sign says little about an object" in found.err
    assert "the sign" not in run("explain", room, "--model", folder(name), "-T", "zebra", "--method", "gae", "-q").err
    nothing = run("explain", "nowhere.png", "--model", folder(name), "-T", "zebra")
    assert nothing.code == 1
    assert "nowhere.png" in nothing.err
    assert "the sign" not in nothing.err  # nothing was explained


def test_a_question_about_regions_from_a_file(run, folder, room, regions):
    asked = (room, "--model", folder("lxmert"), "--text", "is there a zebra?", "--regions", regions)
    found, answers = explained(run, *asked)
    kinds = {stream["kind"]: stream for stream in found["explanations"][0]["streams"]}
    assert {"regions", "words"} <= set(kinds)
    assert [unit["name"] for unit in kinds["words"]["units"]] == ["is", "there", "a", "zebra", "?"]
    assert found["explanations"][0]["predicted"] == answers[0]["label"]


@pytest.mark.parametrize(
    ("name", "second", "unit"),
    [("visual-bert", "visual_embeds", "region 1"), ("vilt", "pixel_values", "row 1, column 1")],
)
def test_the_parts_of_a_joined_stream_are_told_apart(run, folder, room, regions, name, second, unit):
    more = ("--regions", regions) if name == "visual-bert" else ()
    found = run("explain", room, "--model", folder(name), "--text", "is there a zebra?", *more, "--json")
    streams = found.json["results"][0]["explanations"][0]["streams"]
    assert len({each["stream"] for each in streams}) == 1
    units = {each["part"]: [unit["name"] for unit in each["units"]] for each in streams}
    assert set(units) == {"input_ids", second}
    assert unit in units[second]


def test_captions_to_choose_from(run, folder, room):
    captions = ("--text", "a zebra", "--text", "an elephant")
    found, answers = explained(run, room, "--model", folder("clip"), *captions)
    assert {each["label"] for each in answers} == {"a zebra", "an elephant"}
    assert found["explanations"][0]["answer"] == answers[0]["label"]
    wrong = run("explain", room, "--model", folder("clip"), *captions, "--target", "a zebr")
    assert wrong.code == 2
    assert "Did you mean 'a zebra'?" in wrong.line


def test_several_captions_stand_in_one_row(run, folder, room, tmp_path):
    captions = [part for text in ("a zebra", "an elephant", "a dog") for part in ("--text", text)]
    asked = ("-T", "a zebra", "-T", "an elephant", "--against", "a dog", "--format", "png,html,heed", "-q")
    found = run("explain", room, "--model", folder("clip"), *captions, *asked)
    assert (found.code, found.err) == (0, "")
    (sheet,) = (tmp_path / "out").glob("*.png")
    with Image.open(sheet) as made:
        assert made.width > 3 * 320
    (page,) = (tmp_path / "out").glob("*.html")
    assert page.read_text().count("<section>") == 1
    assert len(list((tmp_path / "out").glob("*.heed"))) == 2


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_texts_need_no_picture(run, folder, name):
    found, answers = explained(run, "--model", folder(name), "--text", "the film wasn't good")
    assert found["picture"] is None
    assert answers
    assert "good" in [unit["name"] for stream in found["explanations"][0]["streams"] for unit in stream["units"]]


def test_several_texts_are_several_results(run, folder, tmp_path):
    found = run("explain", "--model", folder("bert"), "-t", "the film wasn't good", "-t", "a zebra", "-q")
    assert (found.code, found.err) == (0, "")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_a_masked_word(run, folder):
    explained(run, "--model", folder("bert-masked"), "--text", "is there a [MASK] in the picture?")


def test_a_sound(run, folder, sound):
    found, _ = explained(run, sound, "--model", folder("ast"))
    assert found["picture"] == sound


@pytest.mark.parametrize("name", ["bert", "detr", "lxmert", "clip", "bert-masked", "t5", "ast", "gpt2"])
def test_doctor_and_wiring_need_nothing_but_the_model(run, folder, regions, name):
    more = ("--regions", regions) if name == "lxmert" else ()
    found = run("doctor", "--model", folder(name), *more, "--json")
    assert found.code == 0, found.json["problems"]
    assert "reading <- read" in run("wiring", "--model", folder(name), *more).out


# ---- asked wrongly


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("detr", ["room.png", "--text", "why?"], "takes a picture, no more"),
        ("clip", ["room.png"], "takes a picture and --text"),
        ("bert", ["room.png"], "takes --text"),
        ("bert", ["room.png", "--text", "why?"], "takes --text"),
        ("lxmert", ["--text", "why?"], "takes a picture and --text"),
        ("lxmert", ["room.png", "--text", "why?", "--text", "who?"], "Give --text once"),
    ],
)
def test_what_a_model_does_not_take_is_said_once(run, folder, room, name, arguments, said):
    found = run("explain", *arguments, "--model", folder(name))
    assert found.code == 2
    assert said in found.line


def test_a_question_longer_than_the_model_takes(run, folder, room, regions):
    found = run("explain", room, "--model", folder("lxmert"), "--regions", regions, "--text", "is there a zebra " * 200)
    assert found.code == 1
    assert "tokens; this model takes" in found.line
    assert "room.png" in found.line


def test_options_are_called_as_the_command_line_calls_them(run, folder):
    text = ("--text", "the film wasn't good", "--model", folder("bert"))
    predicted = run("predict", *text, "--json").json["results"][0]["answers"][0]["label"]
    found = run("explain", *text, "--against", predicted)
    assert found.code == 1
    assert f"--against {predicted!r} is what the model predicts" in found.line
