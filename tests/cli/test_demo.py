"""The demo: a page of seven sections, each measured, and what to try next."""

import pytest

from heedmap import demo
from heedmap.cli.demo import NEXT


def test_the_demo_is_a_page_with_seven_measured_sections(run, tmp_path):
    found = run("demo", "--out", "shown", "--json")
    assert (found.code, found.err) == (0, "")
    assert found.json["next"] == list(NEXT)
    sections = found.json["sections"]
    assert len(sections) == len(demo.SECTIONS) == 7
    page = (tmp_path / "shown" / "index.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 7
    for section in sections:
        assert "%" in section["says"]
        assert section["name"] in page
        assert (tmp_path / section["file"]).stat().st_size > 1000
    assert [len(section["explanations"]) for section in sections] == [3, 2, 2, 2, 4, 1, 2]
    right, wrong = (each["value"] for each in sections[3]["explanations"])
    assert right > 0 > wrong  # what the section says of the two models


def test_the_demo_says_where_the_page_is_and_what_to_try_next(run, monkeypatch):
    monkeypatch.setattr(demo, "SECTIONS", demo.SECTIONS[:1])
    found = run("demo")
    assert (found.code, found.err) == (0, "")
    told = found.out.splitlines()
    assert told[-5] == "Open out/demo/index.html in a browser. On a picture of your own:"
    assert [line.strip() for line in told[-3:]] == list(NEXT)


@pytest.mark.parametrize("line", NEXT)
def test_what_to_try_next_can_be_asked(run, savanna, monkeypatch, line):
    """As far as the model, which a machine without a network has not."""

    class Stopped(Exception):
        pass

    def stop(*_, **__):
        raise Stopped

    monkeypatch.setattr("heedmap.load", stop)
    found = run(*line.replace("YOUR.png", str(savanna)).split()[1:])
    assert "Stopped" in found.err
