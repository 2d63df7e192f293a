"""`heedmap leaderboard` as a person uses it."""

import json

import pytest

from heedmap.cli import leaderboard
from heedmap.evaluation.leaderboard import running


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """In this process, and with the quick measures alone."""
    monkeypatch.setattr(leaderboard, "WORKERS", 1)
    monkeypatch.setattr(running, "QUICK", {"one": {"place": 2, "hide": 2, "cost": 1}})


def test_tables_are_written_and_what_was_measured_is_kept(run, tmp_path):
    asked = "leaderboard", "--model", "zoo:vit", "--methods", "heed,odam", "--quick"
    first = run(*asked)
    assert first.code == 0, first.err
    folder = tmp_path / "out" / "leaderboard"
    made = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    assert made["commands"] == ["heedmap leaderboard --model zoo:vit --methods heed,odam --quick"]
    assert made["quick"] is True
    heed, odam = made["rows"]
    assert {"pointing", "on target", "against others", "positive", "negative", "cost"} == set(heed["found"])
    assert heed["found"]["pointing"]["scenes"] == 2
    assert odam["left_out"].startswith("No stream reads the tokens of a picture")
    assert "quick run" in (folder / "leaderboard.html").read_text(encoding="utf-8")
    assert "| heed |" in (folder / "leaderboard.md").read_text(encoding="utf-8")
    assert "zoo:vit, left out: odam" in first.out
    records = {file: file.stat().st_mtime_ns for file in (folder / "records").iterdir()}
    again = run(*asked, "--json")
    assert again.json["rows"] == made["rows"]
    assert {file: file.stat().st_mtime_ns for file in (folder / "records").iterdir()} == records
    assert run(*asked, "--again", "--methods", "odam").code == 0
    assert {file for file, time in records.items() if file.stat().st_mtime_ns != time} == {
        file for file in records if ".odam." in file.name
    }


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--methods", "hede"], "No method is called 'hede'.* Did you mean 'heed'?"),
        (["--methods", ","], "--methods is empty"),
        (["--model", "zoo:vitt"], "No model of the zoo is called 'vitt'"),
        (["--model", "google/vit-base-patch16-224"], "does not know the drawn animals"),
        (["--scenes", "1"], "--scenes"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_made(run, tmp_path, options, line):
    failed = run("leaderboard", *options)
    assert failed.code == 2
    assert line.split(".*")[0] in failed.line
    assert line.split(".*")[-1] in failed.line
    assert not (tmp_path / "out").exists()
