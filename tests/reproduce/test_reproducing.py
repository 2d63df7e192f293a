"""The command around the figures: slips, what cannot be made, Ctrl-C, and what the report says beside the numbers."""

from pathlib import Path

import heedmap.reproduce as reproducing
from heedmap import menagerie
from heedmap.cli import main
from heedmap.errors import InputError
from heedmap.reproduce import Setting, report
from heedmap.reproduce.papers import PAPERS
from heedmap.reproduce.running import titled

PAPER = "attention-and-gradient"


def test_what_would_spoil_every_figure_is_told_before_the_first(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.png").write_bytes(b"no picture")
    for given, code, said in (
        (["--guide", "menagerie:zebar"], 2, "--guide: 'zebar'"),
        (["--model", "zoo:detr"], 2, "zoo:detr does object-detection. The figures are of models that classify"),
        (["--model", "zoo:vti"], 2, "Did you mean zoo:vit?"),
        (["--images", "bad.png"], 1, "'bad.png' is not a picture that can be read"),
    ):
        assert main(["reproduce", "attention-and-gradient", *given]) == code
        assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.png"]


def test_a_figure_that_cannot_be_made_does_not_lose_the_others(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        reproducing, "figures", lambda name: {f"{PAPER}/{one}": one for one in ("figure-1", "figure-2")}
    )

    def make(name, figure, out, setting):
        if figure == "figure-1":
            raise InputError("There is nothing to measure.")
        return {"figure": name, "claim": "It is so.", "holds": None, "parts": [], "note": "", "files": [],
                "setting": setting.record(), "seconds": 2.0}  # fmt: skip

    monkeypatch.setattr(reproducing, "make", make)
    assert main(["reproduce", PAPER]) == 1
    assert f"{PAPER}/figure-1: There is nothing to measure." in capsys.readouterr().err
    assert "id=figure-2" in Path(f"out/reproduce/{PAPER}/index.html").read_text()


def test_of_many_pictures_it_is_told_how_many_are_shown(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(9):
        menagerie.scene("zebra", number).image.save(f"photos/{number}.png")
    assert main(["reproduce", "attention-and-gradient/figure-7", "--images", "photos"]) == 0
    assert capsys.readouterr().err == "Of 9 pictures the first 8 are shown.\n"
    page = Path("out/reproduce/attention-and-gradient/index.html").read_text()
    assert "models of the zoo · 8 pictures" in page


def test_ctrl_c_is_answered(capsys, tmp_path, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproducing, "make", interrupted)
    assert main(["reproduce", "attention-and-gradient/figure-7"]) == 130
    assert capsys.readouterr().err == "Interrupted. What was written stays.\n"


def test_the_report_says_on_what_it_was_measured_and_what_gae_is(tmp_path):
    share = {"mean": 0.8, "low": 0.7, "high": 0.9, "scenes": 1234}
    part = {"says": "It is so.", "rule": "above one half", "holds": True, "measured": {"share": share, "kind": "owl"}}
    record = {"figure": "paper/figure-5", "claim": "It is so.", "holds": True, "parts": [part], "note": "", "files": [],
              "setting": Setting().record(), "seconds": 2.0}  # fmt: skip
    page = report([record], tmp_path, "One", PAPERS["attention-and-gradient"].note)
    assert "models of the zoo · 1,234 scenes · 2 s" in page
    assert "GAE is heed:positive.</p>" in page
    shown = {**record, "parts": [], "setting": Setting(model="zoo:vit", images=(Path("a.png"),)).record()}
    assert "zoo:vit · 1 picture ·" in report([shown], tmp_path, "One")


def test_a_page_is_called_as_a_person_would():
    assert titled("attention-and-gradient/figure-5") == "Figure 5"
