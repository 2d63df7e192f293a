"""What a terminal shows: colours where it has them, letters and signs where it has none."""

import io

import pytest
from rich.console import Console
from samples import bare, patches, question, sentence, sound

from heedmap import render
from heedmap.render.colours import AGAINST, FOR


def printed(e, width=100, encoding="utf-8", colour=None, **options) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    console = Console(file=file, width=width, color_system=colour, force_terminal=colour is not None)
    console.print(render.terminal(e, **options))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def code(rgb, where) -> str:
    return f"{where};2;{rgb[0]};{rgb[1]};{rgb[2]}"


def test_without_colour_signs_and_tenths_tell():
    lines = printed(patches()).splitlines()
    assert lines[0] == "zebra  1.5  heed:complete"
    assert lines[1:3] == ["+9 ·-5", " ·+2 ·"]
    assert "for: row 1, column 1 +1.00, row 2, column 2 +0.25" in lines
    assert "against: row 1, column 3 -0.50" in lines
    assert (
        "+ for, - against  Method heed:complete. ±1 is the strongest that each panel shows. Left out: [CLS]." in lines
    )


def test_where_colour_is_not_wanted_signs_tell(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    lines = printed(patches(), colour="truecolor").splitlines()
    assert lines[1:3] == ["+9 ·-5", " ·+2 ·"]


def test_without_colour_words_carry_their_strength():
    assert "the(+0.10) acting(+0.50) is dreadful(-1.00)" in printed(sentence())
    assert "[CLS](+1.00) the acting(+0.10) is dreadful(-0.20) [SEP](+0.40)" in printed(sentence(), special=True)


def test_words_have_their_colour():
    shown = printed(sentence(), colour="truecolor")
    assert code(AGAINST, 48) + "m dreadful " in shown
    assert "(-1.00)" not in shown


def test_a_picture_is_half_blocks():
    shown = printed(patches(picture=None), colour="truecolor", width=30)
    assert code(FOR, 38) in shown
    rows = [line for line in shown.splitlines() if "▀" in line]
    assert [line.count("▀") for line in rows] == [30] * 10


def test_a_narrow_terminal_shows_the_strongest_of_each_cell():
    values = [[0.0] * 40 for _ in range(40)]
    values[7][31] = -1.0
    lines = printed(patches(values), width=30).splitlines()
    field = "\n".join(line for line in lines if set(line) <= set(" ·-9"))
    assert field.count("-9") == 1
    assert max(map(len, lines)) <= 30


def test_a_console_of_ascii_gets_ascii():
    for e in (patches(), sentence(), question(), sound(40), bare()):
        shown = printed(e, encoding="ascii", colour="standard")
        assert shown.isascii()
        assert "heed:complete" in shown
    assert "?? 1.5" in " ".join(printed(patches(answer="斑马"), encoding="ascii").split())


@pytest.mark.parametrize("colour", [None, "standard", "256", "truecolor"])
@pytest.mark.parametrize("make", [patches, sentence, question, sound, bare], ids=lambda make: make.__name__)
def test_every_kind_fits_every_terminal(make, colour):
    for width in (20, 80, 200):
        assert make().target.split("'")[1 if "'" in make().target else 0][:3] in printed(make(), width, colour=colour)


def test_a_label_is_no_markup():
    assert "[bold]zebra[/bold]" in printed(patches(answer="[bold]zebra[/bold]"))


def test_each_example_is_shown():
    assert printed(bare(3)).count("heed:complete") == 3 + 1
