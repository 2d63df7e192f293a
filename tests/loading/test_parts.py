"""Where processors put pictures, what tokens add to a text, and how sounds are read: one at a time."""

import wave

import numpy as np
import pytest
import transformers as hf
from folders import pictures

from heedmap.errors import InputError
from heedmap.families import sounds
from heedmap.families.placing import placed
from heedmap.families.words import words_of

WIDE = (200, 100)


def cropping(size, **more):
    kind = hf.CLIPImageProcessor if "height" not in size else hf.DeiTImageProcessor
    return kind(size=size or {"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, **more)


@pytest.mark.parametrize(
    ("processor", "size", "window"),
    [
        (pictures(), WIDE, (0, 0, 1, 1)),
        (pictures(), (7, 5), (0, 0, 1, 1)),
        (pictures(), (1, 1), (0, 0, 1, 1)),
        (pictures(), (1, 300), (0, 0, 1, 1)),
        (cropping({"shortest_edge": 32}), WIDE, (0.25, 0, 0.75, 1)),
        (cropping({"shortest_edge": 40}), (100, 100), (0.1, 0.1, 0.9, 0.9)),
        (cropping({"height": 40, "width": 40}), WIDE, (0.1, 0.1, 0.9, 0.9)),
        (cropping({}, do_resize=False), WIDE, (0.42, 0.34, 0.58, 0.66)),
        (cropping({}, do_resize=False), (16, 16), (-0.5, -0.5, 1.5, 1.5)),
    ],
)  # fmt: skip
def test_where_a_picture_comes_to_lie(processor, size, window):
    found = placed(processor, size).window(32, 32)
    assert found == pytest.approx(window, abs=0.01)


def test_a_processor_that_does_something_else_is_not_guessed():
    class Mirror:
        def __call__(self, images, return_tensors):
            return {"pixel_values": np.asarray(images)[None, :, ::-1].transpose(0, 3, 1, 2)}

    class Tiles:
        def __call__(self, images, return_tensors):
            return {"pixel_values": np.asarray(images)[None, None].transpose(0, 1, 4, 2, 3)}

    class Bent:
        def __call__(self, images, return_tensors):
            columns = (np.linspace(0, 1, images.width) ** 2 * (images.width - 1)).astype(int)
            return {"pixel_values": np.asarray(images)[None, :, columns].transpose(0, 3, 1, 2)}

    assert [placed(kind(), (50, 40)) for kind in (Mirror, Tiles, Bent)] == [None] * 3


def test_pieces_of_words():
    text = "It's a well-drawn zebra, isn't it?"
    spans = [
        None,
        (0, 2),
        (2, 4),
        (5, 6),
        (7, 11),
        (11, 17),
        (18, 20),
        (20, 23),
        (23, 24),
        (25, 30),
        (30, 33),
        (33, 34),
    ]
    texts, words = words_of(text, spans)
    assert texts == ("", "It", "'s", "a", "well", "-drawn", "ze", "bra", ",", "isn't", "it", "?")
    assert words == ((1, 2), (3,), (4, 5), (6, 7), (8,), (9,), (10,), (11,))


def test_tokens_of_one_letter_of_several_bytes_are_one_word():
    texts, words = words_of("a 🦓!", [(0, 1), (1, 3), (2, 3), (2, 3), (3, 4)])
    assert texts == ("a", "🦓", "", "", "!")
    assert words == ((0,), (1, 2, 3, 4)) or words == ((0,), (1, 2, 3), (4,))


def test_a_token_that_reaches_into_two_words_joins_them():
    assert words_of("a b c", [(0, 3), (4, 5)]) == (("a b", "c"), ((0,), (1,)))


def test_white_space_belongs_to_the_word_after_it():
    assert words_of("a  b ", [(0, 1), (1, 2), (2, 4), (4, 5)])[1] == ((0,), (1, 2, 3))
    assert words_of("", []) == ((), ())


class Extractor:
    sampling_rate = 8000


def written(path, numbers, rate=8000, channels=1, width=2):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(numbers.tobytes())
    return path


def test_wav_files(tmp_path):
    tone = np.array([0, 16384, -32768, 32767], np.int16)
    np.testing.assert_allclose(sounds.read(written(tmp_path / "a.wav", tone), Extractor), [0, 0.5, -1, 1], atol=1e-4)
    stereo = np.array([[0, 16384], [16384, -16384]], np.int16)
    np.testing.assert_allclose(sounds.read(written(tmp_path / "b.wav", stereo, channels=2), Extractor), [0.25, 0])
    small = np.array([128, 255, 0], np.uint8)
    np.testing.assert_allclose(sounds.read(written(tmp_path / "c.wav", small, width=1), Extractor), [0, 127 / 128, -1])
    assert sounds.read([0.0, 0.5], Extractor).dtype == np.float32


def test_sounds_that_are_refused(tmp_path):
    refused = {
        tmp_path / "none.wav": "There is no sound",
        written(
            tmp_path / "fast.wav", np.zeros(4, np.int16), rate=44100
        ): "has 44100 numbers in a second, the model expects",
        written(tmp_path / "odd.wav", np.zeros(6, np.uint8), width=3): "24-bit",
        written(tmp_path / "empty.wav", np.zeros(0, np.int16)): "or none",
    }
    (tmp_path / "text.wav").write_text("a text, not a sound")
    refused[tmp_path / "text.wav"] = "is not a WAV file of plain numbers"
    for path, match in refused.items():
        with pytest.raises(InputError, match=match):
            sounds.read(path, Extractor)
    with pytest.raises(InputError, match=r"shape \(2, 3\)"):
        sounds.read(np.zeros((2, 3)), Extractor)
