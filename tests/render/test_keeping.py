"""The suffix decides what is written; a `.heed` file keeps what the tokens are; a file is whole or not there."""

import dataclasses
import io
import json
import struct
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from samples import BOTH, PICTURE, bare, detection, joined, patches, question, sentence, sound

import heedmap
from heedmap import errors, render
from heedmap.layouts import Plain, Shown


def same(one: Shown, other: Shown) -> bool:
    if one.picture is None or other.picture is None:
        alike = one.picture is other.picture
    else:
        alike = np.array_equal(one.picture, other.picture)
    return alike and all(getattr(one, name) == getattr(other, name) for name in ("layouts", "text", "box", "answer"))


def text_of(path) -> dict:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"]


@pytest.mark.parametrize(
    "make", [patches, sentence, question, joined, detection, sound, bare], ids=lambda make: make.__name__
)
def test_what_the_tokens_are_is_kept(make, tmp_path):
    e = make()
    e.save(tmp_path / "x.heed")
    opened = heedmap.open(tmp_path / "x.heed")
    assert len(opened.shown) == len(e.shown)
    assert all(map(same, opened.shown, e.shown))
    assert all(type(a) is type(b) for a, b in zip(opened.shown, e.shown, strict=True))
    first, again = (np.asarray(render.picture(one)) for one in (e, opened))
    assert np.array_equal(first, again)


def test_a_box_an_answer_and_a_window_are_kept(tmp_path):
    e = patches(box=(0.1, 0.2, 0.3, 0.4), answer="斑马", sure=0.25, window=(-0.1, 0.0, 1.1, 1.0))
    e.save(tmp_path / "x.heed")
    opened = heedmap.open(tmp_path / "x.heed").shown[0]
    assert same(opened, e.shown[0])
    assert opened.box == (0.1, 0.2, 0.3, 0.4)
    assert opened.sure == 0.25
    assert opened.layouts["pixel_values"].special == {0: "[CLS]"}


def test_a_picture_that_examples_share_is_stored_once(tmp_path):
    shown = tuple(Shown({"hidden": Plain()}, picture=picture) for picture in (PICTURE, PICTURE.copy(), 255 - PICTURE))
    dataclasses.replace(bare(3), shown=shown).save(tmp_path / "x.heed")
    assert sum(name.startswith("picture.") for name in load_file(tmp_path / "x.heed")) == 2
    assert all(map(same, heedmap.open(tmp_path / "x.heed").shown, shown))


def test_the_picture_inside_is_a_png(tmp_path):
    patches().save(tmp_path / "x.heed")
    data = load_file(tmp_path / "x.heed")["picture.0"].numpy().tobytes()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), PICTURE)


def test_a_file_of_version_1_opens(tmp_path):
    path = tmp_path / "x.heed"
    bare().save(path)
    metadata = text_of(path) | {"version": "1"}
    assert "shown" not in json.loads(metadata["explanation"])
    save_file(load_file(path), path, metadata=metadata)
    assert heedmap.open(path).shown == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda joined: joined.update(parts=3),
        lambda joined: joined["parts"][0].pop(),
        lambda joined: joined["parts"][0][2].update(kind="Joined", parts=[]),
    ],
)
def test_damaged_parts_are_refused(change, tmp_path):
    path = tmp_path / "x.heed"
    joined().save(path)
    metadata = text_of(path)
    header = json.loads(metadata["explanation"])
    change(header["shown"][0]["layouts"][BOTH])
    save_file(load_file(path), path, metadata=metadata | {"explanation": json.dumps(header)})
    with pytest.raises(errors.FileFormatError, match=r"x\.heed"):
        heedmap.open(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda shown: shown["layouts"]["pixel_values"].update(kind="Spiral"),
        lambda shown: shown["layouts"]["pixel_values"].update(turns=3),
        lambda shown: shown.update(picture="picture.7"),
        lambda shown: shown.update(layouts=3),
        lambda shown: shown.pop("text"),
    ],
)
def test_a_damaged_layout_is_refused(change, tmp_path):
    path = tmp_path / "x.heed"
    patches().save(path)
    metadata = text_of(path)
    header = json.loads(metadata["explanation"])
    change(header["shown"][0])
    save_file(load_file(path), path, metadata=metadata | {"explanation": json.dumps(header)})
    with pytest.raises(errors.FileFormatError, match=r"x\.heed"):
        heedmap.open(path)


def test_a_damaged_picture_is_refused(tmp_path):
    path = tmp_path / "x.heed"
    patches().save(path)
    tensors = load_file(path)
    tensors["picture.0"] = tensors["picture.0"][:200].clone()
    save_file(tensors, path, metadata=text_of(path))
    with pytest.raises(errors.FileFormatError, match=r"x\.heed"):
        heedmap.open(path)


# ---- suffixes


def test_the_suffix_decides(tmp_path):
    e = patches()
    for suffix in (".png", ".svg", ".html", ".heed", ".PNG"):
        e.save(tmp_path / f"x{suffix}")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), np.asarray(render.picture(e)))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.PNG")), np.asarray(render.picture(e)))
    assert (tmp_path / "x.svg").read_text(encoding="utf-8") == render.svg(e)
    ET.parse(tmp_path / "x.svg")
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == render.page(e)
    assert heedmap.open(tmp_path / "x.heed").target == e.target


def test_options_go_to_the_drawing(tmp_path):
    patches().save(tmp_path / "x.png", special=True, side=200)
    expected = render.picture(patches(), special=True, side=200)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), np.asarray(expected))
    with pytest.raises(errors.InputError, match=r"A \.heed file takes no options; side was given"):
        patches().save(tmp_path / "x.heed", side=200)


@pytest.mark.parametrize("name", ["x", "x.jpeg", "x.png.old", ".png"])
def test_another_suffix_is_refused(name, tmp_path):
    with pytest.raises(errors.InputError, match=r"'\.heed', which opens again, or in '\.png', '\.svg', '\.html'"):
        patches().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(errors.InputError, match=r"There is no folder .*missing.* to write 'x\.heed' in"):
        patches().save(tmp_path / "missing" / "x.heed")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(errors.InputError, match="is a folder"):
        patches().save(tmp_path / "x.png")


def test_what_was_there_is_lost_only_to_what_is_whole(tmp_path, monkeypatch):
    from pathlib import Path

    path = tmp_path / "x.png"
    path.write_bytes(b"before")

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        patches().save(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_saved_twice_is_the_same_file(tmp_path):
    for suffix in render.SUFFIXES:
        question().save(tmp_path / f"a{suffix}")
        question().save(tmp_path / f"b{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
