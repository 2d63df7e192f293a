"""`heedmap explain --generate`: what a model writes, each word explained."""

import json
import wave

import numpy as np
import pytest
from PIL import Image

import heedmap
from heedmap.cli.talk import USAGE

TEXT = "is there a zebra in the picture?"


def test_every_word_is_told_and_written(run, folder, tmp_path):
    found = run("explain", "-m", folder("bart"), "-t", TEXT, "--generate", 5, "-f", "png,svg,html,json,heed")
    assert (found.code, found.err) == (0, "")
    model = heedmap.load(folder("bart"))
    produced = model.explain_produced(text=TEXT, tokens=5)
    assert found.out.startswith(f"{TEXT}: {produced.text}")
    assert "The model had not ended after 5 tokens." in found.out
    endings = sorted(path.name.split(".")[-1] for path in (tmp_path / "out").iterdir())
    assert endings == sorted(["png", "svg", "html", "json", *["heed"] * len(produced.words)])
    record = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert record["written"] == produced.text
    assert [word["word"] for word in record["words"]] == [word.text for word in produced.words]
    for told, word in zip(record["words"], produced.words, strict=True):
        assert told["value"] == pytest.approx(word.explanation.value.item(), rel=1e-4)
        read = next(stream for stream in told["streams"] if stream["stream"] == "input_ids")
        assert [unit["name"] for unit in read["units"]] == ["is", "there", "a", "zebra", "in", "the", "picture", "?"]
        assert [unit["name"] for unit in read["left_out"]] == ["<s>", "</s>"]  # no number is left out
        flowed = word.explanation["input_ids"][0, 1:-1].sum().item()  # without the two marks at its ends
        assert sum(unit["value"] for unit in read["units"]) == pytest.approx(flowed, abs=1e-4)
    assert heedmap.open(next((tmp_path / "out").glob("*-1.heed"))).shown[0].answer == produced.words[0].text


def test_json_prints_one_document(run, folder, tmp_path):
    asked = ("--generate", 3, "--against", "next best", "--correction", "absolute", "--json")
    found = run("explain", "-m", folder("t5"), "-t", TEXT, "-t", "the film", *asked)
    assert (found.code, found.err) == (0, "")
    assert [result["text"] for result in found.json["results"]] == [TEXT, "the film"]
    words = found.json["results"][0]["words"]
    assert all(word["correction"] == "absolute" and word["against"] for word in words)
    assert not (tmp_path / "out").exists()


def test_a_sound_and_a_question_to_a_picture(run, folder, tmp_path):
    numbers = (np.random.default_rng(2).normal(size=12_000) * 3000).astype("<i2")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(numbers.tobytes())
    heard = run("explain", "sound.wav", "-m", folder("whisper"), "--generate", 3, "--json", "-o", "heard")
    assert (heard.code, heard.err) == (0, "")
    kinds = [stream["kind"] for stream in heard.json["results"][0]["words"][0]["streams"]]
    assert "frames" in kinds
    Image.new("RGB", (60, 40), "white").save(tmp_path / "room.png")
    seen = run("explain", "room.png", "-m", folder("blip"), "-t", TEXT, "--generate", 3, "-q")
    assert (seen.code, seen.err) == (0, "")
    assert len(list((tmp_path / "out").glob("room.*.png"))) == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--generate", 3, "--target", "zebra"), "Leave --target out"),
        (("--generate", 3, "--guide", "menagerie:zebra"), "Leave --guide out"),
        (("--system", "be brief"), "Give --chat too"),
        (("--word", "zebra"), "Give --generate too"),
        (("--generate", 3, "--chat"), "has no chat template: it was not made for conversations"),
        (("--generate", 0), "greater than or equal to 1"),
        (("--generat", 3), "Did you mean --generate?"),
    ],
)
def test_what_does_not_go_together_is_refused(run, folder, asked, said):
    found = run("explain", "-m", folder("t5"), "-t", TEXT, *asked)
    assert found.code == USAGE
    assert said in found.line


def test_a_model_that_chooses_writes_nothing(run, savanna):
    found = run("explain", savanna, "-m", "zoo:vit", "--generate", 3)
    assert (found.code, found.line) == (
        USAGE,
        "zoo:vit does image-classification: it writes nothing. Leave --generate out.",
    )


def test_next_best_is_for_what_is_written(run, savanna):
    found = run("explain", savanna, "-m", "zoo:vit", "--against", "next best")
    assert found.code == USAGE
    assert "'next best' is not one of this model's" in found.line


def test_next_best_is_of_every_word(run, folder):
    found = run("explain", "-m", folder("t5"), "-t", TEXT, "--against", "next best")
    assert found.code == USAGE
    assert found.line == "--against 'next best' is of each word that the model writes. Give --generate too."


def test_what_no_font_has_is_marked(run, folder, monkeypatch):
    from heedmap.families import words

    written = words.written
    monkeypatch.setattr(words, "written", lambda *given: ("\x1b[31mred", written(*given)[1]))
    found = run("explain", "-m", folder("t5"), "-t", TEXT, "--generate", 2, "-q")
    assert (found.code, found.err) == (0, "")
    assert "\x1b" not in found.out
    assert found.out.startswith(f"{TEXT}: \N{REPLACEMENT CHARACTER}[31mred")


def test_another_continuation_is_told_word_by_word_and_whole(run, folder, tmp_path):
    asked = ("-t", "is it?", "--chat", "--system", "the film", "--generate", 3, "--against", "a zebra")
    found = run("explain", "-m", folder("qwen2"), *asked, "-f", "json,heed,html")
    assert (found.code, found.err) == (0, "")
    record = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert record["against"] == record["words"][-1]["against"] == "a zebra"
    whole = heedmap.open(sorted((tmp_path / "out").glob("*.heed"))[-1])
    assert record["words"][-1]["value"] == pytest.approx(whole.value.item(), rel=1e-5)
    streams = [(stream["stream"], stream.get("part")) for stream in record["words"][-1]["streams"]]
    assert streams == [
        ("input_ids", "system"), ("input_ids", "user"), ("input_ids", "written"), ("input_ids (against)", None)
    ]  # fmt: skip
    said = [{"role": "system", "content": "the film"}, {"role": "user", "content": "is it?"}]
    model = heedmap.load(folder("qwen2"))
    assert whole.value.item() == model.explain_produced(text=said, tokens=3, against="a zebra").contrast.value.item()


def test_a_word_is_seen_by_itself(run, folder, tmp_path):
    Image.new("RGB", (60, 40), "white").save(tmp_path / "room.png")
    asked = ("explain", "room.png", "-m", folder("blip"), "-t", TEXT, "--generate", 3, "--quiet")
    model = heedmap.load(folder("blip"))
    word = model.explain_produced(image=tmp_path / "room.png", text=TEXT, tokens=3).words[0]
    for name in (word.text, "1"):
        found = run(*asked, "--word", name)
        assert (found.code, found.err) == (0, "")
        assert f"{word.text}  " in found.out
        assert "row " in found.out  # its small picture's loudest patches
    found = run(*asked, "--word", "snail")
    assert found.code == 1
    assert f"'snail' is not in the answer. heedmap expected one of {word.text}" in found.line
    assert "written: out" in found.out  # what was written is told all the same
