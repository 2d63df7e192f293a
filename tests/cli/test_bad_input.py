"""Whatever is wrong with what is given: the right result, or one clear line and an exit code that says so."""

import errno
import json
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from heedmap import menagerie

VIT = ("--model", "zoo:vit", "--target", "zebra", "--quiet")


def value(run, path, *more) -> float:
    found = run("explain", path, *VIT, "--json", *more)
    assert found.code == 0, found.err
    return found.json["results"][0]["explanations"][0]["value"]


# ---- pictures that are read right


def as_16_bit(image, path):
    """Grey of two bytes."""
    grey = image.convert("L").convert("I").point(lambda byte: byte * 257)
    grey.convert("I;16").save(path)


def animated(image, path):
    image.save(path, save_all=True, append_images=[Image.new("RGB", image.size, "red")])


def with_alpha(image, path):
    image.convert("RGBA").save(path)


def turned(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter to the right
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


SEEN = {
    "animated.gif": animated,
    "palette.png": lambda image, path: image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(path),
    "cmyk.tif": lambda image, path: image.convert("CMYK").save(path),
    "alpha.png": with_alpha,
    "turned.png": turned,
    "png-in-truth.jpg": lambda image, path: image.save(path, format="png"),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_picture_is_seen_as_a_person_sees_it(run, scene, savanna, tmp_path, name):
    path = tmp_path / name
    SEEN[name](scene.image, path)
    assert value(run, path) == pytest.approx(value(run, savanna), rel=0.05)


def test_a_16_bit_picture_is_seen_as_its_8_bits(run, scene, tmp_path):
    as_16_bit(scene.image, tmp_path / "deep.png")
    scene.image.convert("L").save(tmp_path / "grey.png")
    assert value(run, tmp_path / "deep.png") == pytest.approx(value(run, tmp_path / "grey.png"), rel=0.05)


def test_what_is_transparent_is_white(run, scene, tmp_path):
    clear = scene.image.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    Image.new("RGB", clear.size, "white").save(tmp_path / "white.png")
    assert value(run, tmp_path / "clear.png") == pytest.approx(value(run, tmp_path / "white.png"), abs=1e-5)


def test_one_pixel_is_a_picture(run, tmp_path):
    Image.new("RGB", (1, 1), "green").save(tmp_path / "pixel.png")
    found = run("explain", "pixel.png", *VIT, "--out", "made")
    assert found.code == 0, found.err
    with Image.open(tmp_path / "made" / "pixel.zebra.png") as made:
        assert made.width > 100


# ---- pictures that cannot be read


def cut_short(path):
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:900])


def gigapixel(path):
    """The head of a PNG that promises 40000 x 40000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


UNREADABLE = {
    "missing.png": (lambda path: None, "no"),
    "empty.png": (lambda path: path.write_bytes(b""), "empty"),
    "cut.png": (cut_short, "damaged or cut short"),
    "letter.png": (lambda path: path.write_text("Dear picture, you are a text.\n"), "not a picture"),
    "giga.png": (gigapixel, "has 1,600 million pixels. heedmap reads pictures of up to 80 million"),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("command", ["explain", "predict"])
def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_done(run, savanna, tmp_path, name, command):
    spoil, said = UNREADABLE[name]
    spoil(tmp_path / name)
    found = run(command, name, savanna, "--model", "zoo:vit", "--json")
    assert found.code == 1
    assert [name] == list(found.json["failed"])
    assert [str(savanna)] == [each["picture"] for each in found.json["results"]]
    first = found.err.splitlines()[0]
    assert name in first
    assert said in first
    assert "Traceback" not in found.err


@pytest.mark.parametrize("command", ["compare", "wiring", "doctor"])
def test_a_command_about_one_picture_says_once_that_it_cannot_be_read(run, tmp_path, command):
    (tmp_path / "empty.png").write_bytes(b"")
    found = run(command, "empty.png", "--model", "zoo:vit")
    assert found.code == 1
    assert "'empty.png' is empty" in found.line


def test_several_bad_pictures_are_told_apart(run, savanna, tmp_path):
    for name, (spoil, _) in UNREADABLE.items():
        spoil(tmp_path / name)
    found = run("explain", *UNREADABLE, savanna, *VIT, "--out", "made")
    assert found.code == 1
    assert len(found.err.splitlines()) == len(UNREADABLE) + 1
    assert found.err.splitlines()[-1].startswith(f"1 of {len(UNREADABLE) + 1} done")
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["savanna.zebra.png"]


# ---- words


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--text", " "], "--text is empty"),
        (["--against", "zebra"], "--target and --against are both 'zebra'"),
        (["--against", "ZEBRA"], "both"),
        (["--loss", "ratio"], "Give --against too"),
        (["--loss", "quotient", "--against", "cat"], "--loss 'quotient' is not one of difference, ratio, relative"),
        (["--correction", "negative"], "--correction 'negative' is not one of"),
        (["--method", "heeed"], "No method is called 'heeed'"),
        (["--method", "heed:positive", "--correction", "absolute"], "Give one"),
        (["--format", "png,bmp"], "--format 'bmp' is not one of png"),
        (["--target", ""], "What was given is empty"),
        (["--against", "zebre"], "Did you mean 'zebra'"),
        (["--target", "99"], "out of range"),
        (["--target", "-1"], "Index -1 is out of range"),
        (["--target", "quux"], "'slug' and 8 more. Give one, or an index."),
        (["--target", "cat", "--target", "zebra", "--against", "Zebra"], "--target and --against are both 'Zebra'"),
        (["--device", "tpu9"], "tpu9"),
        (["--task", "guess"], "'guess'"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_answered_in_a_line(run, savanna, tmp_path, arguments, said):
    found = run("explain", savanna, *(VIT[:2] if "--target" in arguments else VIT), *arguments)
    assert said in found.line
    assert found.code == 2
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("command", ["explain", "predict", "compare", "wiring", "doctor"])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("folder", "without config.json"),
        ("letter.txt", "is a file"),
        ("zoo:vitt", "Did you mean zoo:vit"),
        ("vit", "There is no folder 'vit'. Did you mean zoo:vit?"),
        ("./nowhere", "There is no folder"),
    ],
)
def test_what_is_no_model_is_said_in_a_line(run, savanna, tmp_path, command, source, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "letter.txt").write_text("Dear model")
    found = run(command, savanna, "--model", source)
    assert found.code == 2
    assert said in found.line


def test_an_option_nobody_knows_is_answered_with_the_one_that_was_meant(run):
    found = run("explain", "x.png", "--modle", "zoo:vit")
    assert found.code == 2
    assert "--model" in found.line
    assert "heedmap explain --help" in found.line


def test_nothing_to_look_at(run):
    found = run("explain", "--model", "zoo:vit")
    assert found.code == 2
    assert "Name a picture" in found.line


def test_a_folder_without_pictures(run, tmp_path):
    (tmp_path / "photos").mkdir()
    found = run("explain", "photos", *VIT)
    assert found.code == 2
    assert "holds no picture" in found.line
    assert "searched" not in found.line


def test_a_folder_of_folders_names_them(run, savanna, tmp_path):
    for name in ("a", "b", "c", "d.png"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    (tmp_path / "photos" / "a" / "savanna.png").write_bytes(savanna.read_bytes())
    found = run("explain", "photos", *VIT)
    assert found.code == 2
    assert "Folders in it are not searched: name them, photos/a, photos/b, photos/c and 1 more." in found.line
    assert run("explain", "photos/a", *VIT).code == 0


# ---- where things are written


def test_out_that_is_a_file(run, savanna, tmp_path):
    (tmp_path / "taken").write_text("mine")
    found = run("explain", savanna, *VIT, "--out", "taken")
    assert found.code == 1
    assert "'taken'" in found.line
    assert "nothing can be written there" in found.line
    assert (tmp_path / "taken").read_text() == "mine"


def test_out_that_is_read_only(run, savanna, tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.geteuid() == 0:  # whom modes do not stop
        monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only")))
    found = run("explain", savanna, *VIT, "--out", "locked")
    assert found.code == 1
    assert "'locked': nothing can be written there" in found.line


def test_a_disk_that_fills_up_leaves_what_was_there_whole(run, savanna, tmp_path, monkeypatch):
    before = run("explain", savanna, *VIT, "--out", "made", "--format", "html,json")
    assert before.code == 0, before.err
    old = {path: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    write = Path.write_bytes

    def full(self, data):
        write(self, data[:100])
        if len(data) < 100:  # there is room for a little
            return
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    found = run("explain", savanna, *VIT, "--out", "made", "--format", "html,json")
    assert found.code == 1
    assert "'made/savanna.zebra.html': it cannot be written: No space left on device." in found.line
    assert {path: path.read_bytes() for path in (tmp_path / "made").iterdir()} == old


def test_results_never_take_the_place_of_an_input_or_of_one_another(run, scene, savanna, tmp_path):
    other = menagerie.scene(["cat"], seed=3).image
    (tmp_path / "more").mkdir()
    other.save(tmp_path / "more" / "savanna.png")
    other.save(tmp_path / "savanna.zebra.png")
    kept = (tmp_path / "savanna.zebra.png").read_bytes()
    found = run("explain", savanna, "more/savanna.png", "savanna.zebra.png", *VIT, "--out", ".")
    assert found.code == 0, found.err
    assert (tmp_path / "savanna.zebra.png").read_bytes() == kept
    written = {line.split()[-1] for line in found.out.splitlines() if "written:" in line}
    assert written == {"savanna.zebra-2.png", "savanna.zebra-3.png", "savanna.zebra.zebra.png"}


def test_debug_shows_where_it_happened(run, savanna, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    found = run("explain", "empty.png", savanna, *VIT, "--debug")
    assert found.code == 1
    assert "Traceback" in found.err


def test_what_nobody_expected_is_a_line_too(run, savanna, monkeypatch):
    monkeypatch.setattr("heedmap.families.Model.explain_each", lambda *_, **__: 1 / 0)
    found = run("explain", savanna, *VIT, "--json")
    assert found.code == 1
    assert "ZeroDivisionError" in found.json["failed"][str(savanna)]
    assert "--debug" in found.err
    assert json.loads(found.out)["results"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("demo", "--outt", "x"), "No such option: --outt. Did you mean --out?"),
        (("menagerie", "export", "--task", "detecton", "--count", "3", "--out", "x"), "Did you mean detection?"),
        (("doctor", "--model", "ZOO:VTI"), "Did you mean zoo:vit?"),
    ],
)
def test_a_slip_of_the_finger_is_answered_with_what_was_meant(run, arguments, said):
    found = run(*arguments)
    assert found.code != 0
    assert said in found.line
