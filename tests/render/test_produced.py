"""What a model wrote, drawn: each word's row, each read word's column, and a page on which to choose."""

import base64
import io
import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from samples import GREY, STREAM, explanation
from writings import WHOLE, made

from heedmap.errors import InputError
from heedmap.families import words
from heedmap.families.producing import Produced
from heedmap.layouts import Frames, Grid, Shown, Words
from heedmap.render import conversations, matrices, produced, views
from heedmap.render.colours import AGAINST, FOR, UNSEEN, colour
from heedmap.render.units import Unit


def blocks_of(found, special=False):
    """The tiles of each row by their colour: what a person sees."""
    sheet = produced.matrix(found, special).sheet
    tiles = [mark for mark in sheet.marks if isinstance(mark, matrices.Tile) and mark.fill and mark.height > 14]
    rows = {}
    for tile in tiles:
        rows.setdefault(tile.y, []).append((tile.x, tile.fill))
    return [[fill for _, fill in sorted(row)] for _, row in sorted(rows.items())]


def test_words_are_rows_and_what_they_read_are_columns():
    rows = blocks_of(made())
    assert len(rows) == 3  # le, zèbre, dort: the end mark is left out
    white = colour(0)
    assert rows[0] == [FOR, white, white, UNSEEN, UNSEEN]
    # zè and bre added up: 0.4 + 0.6 of zebra against -0.5; before: 0.2 + 0.1 of "le", 0.4 of its own first piece
    assert rows[1] == [white, FOR, colour(-0.5), colour(0.3 / 0.4), FOR]
    assert rows[2] == [white, white, AGAINST, AGAINST, colour(0.5)]


def test_special_tokens_are_shown_when_asked_for():
    assert len(blocks_of(made(), special=True)) == 4
    assert len(blocks_of(made(), special=True)[0]) == 4 + 4


def test_labels_are_the_words_of_rows_and_columns_and_their_peaks():
    found = produced.matrix(made(against=("un", "che", "val", "rit", "."), overruled=(0,)))
    level = [mark.text for mark in found.sheet.marks if isinstance(mark, matrices.Text)]
    assert [mark.text for mark in found.turned] == ["the", "zebra", "sleeps", "le", "zèbre"]
    assert {"le* (un)", "zèbre (che val)", "dort (rit)", "input_ids: given", "decoder_input_ids: written before"} <= {
        *level
    }
    assert {"±0.5", "±1", "±2", "±0.4"} <= {*level}
    assert "its generation config forbade" in " ".join(level)
    assert "zèbre (che val): strongest zebra +1.00, zèbre +1.00, le +0.75." in found.sheet.says


def test_a_long_text_keeps_its_loudest_words_in_their_order():
    values = np.arange(100) % 50 + np.arange(100) / 1000
    units = [Unit(f"w{i}", v, v / values.max()) for i, v in enumerate(values)]
    one = matrices.block("x", [unit.name for unit in units], [units], timed=False)
    loudest = sorted(np.argsort(-values)[: matrices.MOST].tolist())
    assert [column.place for column in one.columns] == loudest
    assert one.all == 100
    gaps = np.diff(one.starts) - one.cell
    assert [bool(gap) for gap in gaps] == [b > a + 1 for a, b in itertools.pairwise(loudest)]


def test_stretches_of_sound_are_put_together_and_add_up():
    units = [Unit(f"{i}.00 to {i + 1}.00 s", float(i)) for i in range(400)]
    one = matrices.block("x", [unit.name for unit in units], [units], timed=True)
    assert len(one.columns) == 134  # of three each
    sums = np.add.reduceat(np.arange(400.0), np.arange(0, 400, 3))
    np.testing.assert_allclose(one.strengths[0], sums / sums.max())
    assert one.peaks == (sums.max(),)


def test_a_sound_s_axis_is_time():
    layout = Frames(0.25, {4: "[PAD]"})
    found = produced.matrix(made(source=layout, name="input_features"))
    level = [mark.text for mark in found.sheet.marks if isinstance(mark, matrices.Text)]
    assert {"0.00 s", "0.50 s"} <= {*level}
    assert "input_features</div>" in produced.page(made(source=layout, name="input_features"))
    assert [mark.text for mark in found.turned] == ["le", "zèbre"]


def test_the_painted_picture_has_upright_words_beside_and_turned_ones_above():
    image = produced.picture(made())
    pixels = np.asarray(image.convert("L"))
    found = produced.matrix(made())
    mark = found.turned[1]  # zebra
    x, y = round(mark.x), round(mark.y)
    box = pixels[y - 40 : y, x - 10 : x + 4]
    assert (box < 128).sum() > 30  # ink
    assert (box < 128).any(1).sum() > 1.5 * (box < 128).any(0).sum()  # taller than wide


def test_svg_keeps_its_words_as_text():
    told = produced.svg(made())
    texts = [element.text for element in ElementTree.fromstring(told).iter("{http://www.w3.org/2000/svg}text")]
    assert {"the", "zebra", "sleeps", "le", "zèbre", "dort"} <= {*texts}
    assert told.count("rotate(-90)") == 5


def rows_of(html):
    """What the page keeps of each word, read back."""
    told = json.loads(re.search(r'id="rows">(.*?)</script>', html, re.DOTALL)[1])
    data = np.frombuffer(base64.b64decode(told["strengths"]), np.int8).reshape(len(told["words"]), -1)
    ends = np.cumsum([view["count"] for view in told["views"]])[:-1]
    return told, np.split(data, ends, axis=1)


def test_a_page_has_a_byte_for_each_strength():
    html = produced.page(made())
    assert re.findall(r"<label><input[^>]*>([^<]+)</label>", html) == ["le", "zèbre", "dort"]
    told, (given, before) = rows_of(html)
    assert [word["peaks"] for word in told["words"]] == [[0.5, 0.0], [1.0, 0.4], [2.0, 1.0]]
    np.testing.assert_array_equal(given, [[127, 0, 0], [0, 127, -63], [0, 0, -127]])
    silent = conversations.SILENT
    np.testing.assert_array_equal(before, [[silent] * 3, [95, 127, silent], [-127, 64, silent]])
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")


def test_strengths_on_a_page_are_those_of_pictures():
    found = made(against=("un", "", "", "", ""))
    for special in (False, True):
        told, kept = rows_of(produced.page(found, special=special))
        for i, word in enumerate(produced.shown_words(found, special)):
            (panel,) = views.panels(word.explanation, special)
            for view, rows in zip(told["views"], kept, strict=True):
                exact = produced.view_of(panel, (view["stream"], view["part"]))
                mine = [byte / 127 for byte in rows[i].tolist() if byte != conversations.SILENT]
                assert mine == pytest.approx(
                    [unit.strength for unit in exact.units] if exact else [], abs=0.5 / 127 + 1e-9
                )


def test_two_hundred_words_of_a_picture_are_less_than_five_megabytes():
    """A picture of 24 x 24 patches and a question of 100 words, told as bytes: less than two."""
    count, patches, question = 200, 577, 100
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 256, (640, 960, 3), dtype=np.uint8)  # a picture that cannot be packed
    texts = tuple(f"word{i}" for i in range(question + count))
    singles = tuple((i,) for i in range(len(texts)))
    whole = Words(texts, singles, {}, (("given", question), ("written", count)))
    grid = Grid(24, 24, 1, special={0: "[CLS]"})
    parts = []
    for i in range(count):
        flows = {"pixel_values": patches, "input_ids": question + i}
        layouts = {"pixel_values": grid, "input_ids": words.begins(whole, question + i)}
        flowed = {name: torch.from_numpy(draw.normal(size=(1, n))).float() for name, n in flows.items()}
        parts.append(explanation(flowed, (Shown(layouts, text="?", picture=noise),)))
    found = Produced(
        " ".join(texts[question:]), "input_ids", question, tuple(range(count)), whole, tuple(parts), (), (), True
    )
    html = produced.page(found)
    assert len(html.encode()) < 2_000_000
    _, kept = rows_of(html)
    assert [rows.shape for rows in kept] == [(200, 576), (200, 100), (200, 200)]


def test_what_was_written_cannot_break_the_page():
    found = made()
    hostile = replace(WHOLE, texts=("<pad>", "</style><b>", "zè", "bre", "dort", "</s>"))
    html = produced.page(replace(found, text="</style><main><b>", layout=hostile))
    assert html.count("<main>") == html.count("</main>") == 1
    assert html.count("</style>") == 2
    assert "&lt;/style&gt;&lt;b&gt;" in html


def test_pictures_that_were_read_are_drawn_as_such():
    grid = Grid(2, 2, 1, special={0: "[CLS]"})
    found = made(source=grid, name=STREAM, picture=GREY)
    image = produced.picture(found)
    assert image.width > 3 * 320  # the picture, and a panel for each word
    hidden = ".slide, .tick { display: none; }"  # what a picture needs
    assert hidden not in produced.page(found)
    assert hidden in produced.page(made())


def test_a_terminal_tells_a_line_for_each_word():
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(produced.terminal(made()))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4
    assert "zebra +1.00, sleeps -0.50" in lines[2]
    assert "nothing" in lines[1]


def test_files_are_saved_by_their_suffix(tmp_path):
    for suffix in produced.SUFFIXES:
        made().save(tmp_path / f"x{suffix}")
    with Image.open(tmp_path / "x.png") as image:
        assert image.width > 300
    with pytest.raises(InputError, match=r"ends in .\.gif"):
        made().save(tmp_path / "x.gif")
