"""Pictures of every kind that people have: read as they look, or refused in one line."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from heedmap.errors import InputError
from heedmap.families.pictures import LIMIT, SHOWN, read, shown

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters():
    """Red and green above, blue and white below: 8 x 6."""
    picture = Image.new("RGB", (8, 6), RED)
    picture.paste(GREEN, (4, 0, 8, 3))
    picture.paste(BLUE, (0, 3, 4, 6))
    picture.paste(WHITE, (4, 3, 8, 6))
    return picture


def corners(picture):
    assert picture.mode == "RGB"
    width, height = picture.size
    return [picture.getpixel(at) for at in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1))]


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tif", "webp"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    quarters().save(path, lossless=True)
    assert corners(read(path)) == [RED, GREEN, BLUE, WHITE]
    assert corners(read(str(path))) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation(tmp_path, turn):
    """Stored turned as a camera stores it, with the note how to turn it back."""
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each
    picture = quarters() if turn == 1 else quarters().transpose(Image.Transpose(stored[turn]))
    exif = Image.Exif()
    exif[0x0112] = turn
    picture.save(tmp_path / "x.png", exif=exif)
    seen = read(tmp_path / "x.png")
    assert seen.size == (8, 6)
    assert corners(seen) == [RED, GREEN, BLUE, WHITE]


def test_palette_with_a_transparent_colour_is_on_white(tmp_path):
    picture = quarters().quantize(4)
    picture.save(tmp_path / "x.png", transparency=picture.getpixel((0, 0)))
    with Image.open(tmp_path / "x.png") as stored:
        assert stored.mode == "P"
    assert corners(read(tmp_path / "x.png")) == [WHITE, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_on_white(tmp_path, mode):
    black = Image.new(mode, (4, 4), (0,) * (len(mode) - 1) + (0,))
    black.paste((0,) * (len(mode) - 1) + (128,), (2, 0, 4, 4))
    black.save(tmp_path / "x.png")
    clear, _, half, _ = (read(tmp_path / "x.png").getpixel((x, 0)) for x in range(4))
    assert clear == WHITE
    assert half == (127, 127, 127)


def test_sixteen_bits_keep_their_shades(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as stored:
        assert stored.mode.startswith("I")
    assert np.abs(np.array(read(tmp_path / "x.png"))[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    Image.fromarray(ramp // 4).save(tmp_path / "dark.png")  # darkness is not stretched to full light
    assert np.array(read(tmp_path / "dark.png")).max() in (63, 64)


def test_fractions(tmp_path):
    Image.fromarray(np.linspace(0, 1, 5, dtype=np.float32)[None]).save(tmp_path / "x.tif")
    assert np.array(read(tmp_path / "x.tif"))[0, :, 0].tolist() == [0, 64, 128, 191, 255]


def test_cmyk(tmp_path):
    quarters().convert("CMYK").save(tmp_path / "x.tif")
    assert corners(read(tmp_path / "x.tif")) == [RED, GREEN, BLUE, WHITE]
    quarters().resize((80, 60), 0).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    np.testing.assert_allclose(corners(read(tmp_path / "x.jpg")), [RED, GREEN, BLUE, WHITE], atol=12)


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "HSV", "LAB"])
def test_other_modes(mode):
    white = Image.new(
        mode, (5, 5), {"YCbCr": (255, 128, 128), "HSV": (0, 0, 255), "LAB": (255, 128, 128)}.get(mode, 255)
    )
    assert min(read(white).getpixel((2, 2))) >= 253


def test_of_an_animation_the_first_picture(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (GREEN, RED, BLUE)]
    for suffix in ("gif", "webp"):
        frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
        assert corners(read(tmp_path / f"x.{suffix}")) == [GREEN] * 4


def test_one_pixel_and_a_wrong_ending(tmp_path):
    Image.new("RGB", (1, 1), BLUE).save(tmp_path / "x.png")
    assert read(tmp_path / "x.png").size == (1, 1)
    quarters().save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "x.jpg")
    assert corners(read(tmp_path / "x.jpg")) == [RED, GREEN, BLUE, WHITE]


def test_arrays_and_pictures():
    assert corners(read(np.array(quarters()))) == [RED, GREEN, BLUE, WHITE]
    assert corners(read(quarters())) == [RED, GREEN, BLUE, WHITE]
    assert read(np.zeros((4, 6), np.uint8)).size == (6, 4)
    assert read(np.zeros((4, 6, 4), np.uint8)).getpixel((0, 0)) == WHITE  # clear


def bytes_of(width, height):
    """A PNG whose head says it is as large, with no more than a head."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    body = struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


BAD = {
    "missing.png": (None, r"There is no picture '.*missing\.png'\. Check the path\."),
    "empty.png": (b"", r"'.*empty\.png' is empty \(0 bytes\)"),
    "zebra.heed": (b"explained", r"'.*zebra\.heed' is an explanation that was saved: heedmap\.open reads it"),
    "text.png": (b"this is a text\n" * 20, r"'.*text\.png' is not a picture that can be read"),
    "large.png": (bytes_of(11000, 11000), rf"11000 x 11000 pixels.*up to {LIMIT // 10**6} million pixels: make it"),
    "gigapixel.png": (bytes_of(40000, 40000), rf"up to {LIMIT // 10**6} million pixels: make it smaller"),
    "headonly.png": (bytes_of(8, 8), r"'.*headonly\.png' is damaged or cut short"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line(tmp_path, name):
    content, said = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp"])
def test_truncated_files(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"is damaged or cut short|is not a picture"):
        read(path)


def test_other_things_are_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"array \(3, 4, 4\) of float64.*multiply numbers from 0 to 1 by 255"):
        read(np.zeros((3, 4, 4)))
    with pytest.raises(InputError, match="has no pixels"):
        read(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(InputError, match="The picture is a int"):
        read(7)


def test_what_is_shown_of_a_large_picture_is_smaller():
    large = Image.new("RGB", (3200, 800))
    assert shown(large).shape == (SHOWN // 4, SHOWN, 3)
    assert large.size == (3200, 800)
    assert shown(quarters()).shape == (6, 8, 3)
