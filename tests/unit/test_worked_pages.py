"""The worked pages do as they say: their code and their commands run, on tiny models in place of those they name."""

import re
import shlex
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import heedmap
from heedmap import menagerie
from heedmap.cli import main

PAGES = sorted((Path(__file__).parents[2] / "docs" / "worked").glob("*.md"))
STAND_INS = {
    "Helsinki-NLP/opus-mt-en-de": "marian",
    "facebook/bart-large-cnn": "bart",
    "google-t5/t5-small": "t5",
    "openai/whisper-tiny": "whisper",
    "google/siglip-base-patch16-224": "siglip",
    "dandelin/vilt-b32-finetuned-vqa": "vilt",
    "uclanlp/visualbert-vqa": "visual-bert",
    "Salesforce/blip-vqa-base": "blip",
    "Qwen/Qwen2.5-0.5B-Instruct": "qwen2",
    "Qwen/Qwen2-VL-2B-Instruct": "qwen2-vl",
}
SHORT = 12_000  # numbers of sound: less than the second that the tiny model hears


def read(page):
    return page.read_text(encoding="utf-8")


def code_of(page):
    (code,) = re.findall(r"```python\n(.*?)```", read(page), re.DOTALL)
    return code


def commands(page):
    return [line for line in read(page).splitlines() if line.startswith("heedmap ")]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what the pages name."""
    monkeypatch.chdir(tmp_path)
    menagerie.scene(["zebra", "elephant"], seed=3, size=96).image.save("room.png")
    menagerie.scene(["cat", "dog"], seed=5, size=96).image.save("pet.png")
    draw = np.random.default_rng(2)
    with wave.open("speech.wav", "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((draw.normal(size=SHORT) * 3000).astype("<i2").tobytes())
    corner = draw.random((5, 2)) / 2
    boxes = np.concatenate([corner, corner + 0.4], 1).astype(np.float32)
    np.savez("regions.npz", boxes=boxes, features=draw.normal(size=(5, 12)).astype(np.float32))
    return tmp_path


@pytest.fixture
def loading(folder, monkeypatch):
    """`heedmap.load` gives a tiny model by the name that a page has."""
    real = heedmap.load
    monkeypatch.setattr(heedmap, "load", lambda name: real(stand_in(name, folder)))
    return real


def stand_in(name, folder):
    return folder(STAND_INS[name]) if name in STAND_INS else name


def test_there_is_a_page_for_each_kind():
    assert [page.stem for page in PAGES] == [
        "language-models",
        "pairs",
        "questions-in-one-stream",
        "speech",
        "summarisation",
        "translation",
        "vision-language-models",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_runs(page, place, loading, capsys):
    before = set(place.iterdir())
    code = code_of(page)
    exec(code, {})
    made = set(place.iterdir()) - before
    assert {path.name for path in made} == set(re.findall(r'save\("([^"]+)"\)', code))
    for path in made:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert min(image.size) > 100
        else:
            assert path.read_text(encoding="utf-8").count("<section>") >= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_run(page, place, folder, capsys):
    assert commands(page)
    for command in commands(page):
        arguments = [stand_in(argument, folder) for argument in shlex.split(command)[1:]]
        assert main(arguments) == 0, capsys.readouterr().err
        assert "written: out" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_streams_are_those_of_the_models(page, place, loading):
    """What reads what, in the tables and in the wiring."""
    told = set(re.findall(r"^\| `(\S.* <- .*?)` \|", read(page), re.MULTILINE))
    named = [name for name in (*STAND_INS, "zoo:clip") if name in read(page) and "siglip" not in name]
    met = set()
    for name in named:
        model = heedmap.load(name)
        given = {"sound": "speech.wav"} if "whisper" in name else {"text": "is there a zebra?"}
        if any(kind in name for kind in ("clip", "vilt", "blip", "visualbert", "VL")):
            given["image"] = "pet.png"
        if "visualbert" in name:
            given["regions"] = "regions.npz"
        wiring = model.wiring(**given)
        met |= {f"{call.reading.stream} <- {call.read.stream}" for call in wiring.calls}
    assert told == met


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_are_there(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", read(page))
    assert f"{page.stem}.png" in links
    assert [link for link in links if not (page.parent / link).exists()] == []
