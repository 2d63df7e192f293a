"""The page of what a model wrote: what each word read is coloured while it is pointed at or chosen."""

import json

import numpy as np
import pytest
import torch
from PIL import ImageColor
from samples import GREY, explanation
from writings import made

from heedmap.families import words
from heedmap.families.producing import Produced
from heedmap.layouts import Grid, Shown, Words
from heedmap.render import produced
from heedmap.render.colours import AGAINST, FOR, colour

pytestmark = pytest.mark.browser

NOW = "[...document.querySelectorAll('.answer label')].findIndex((l) => l.classList.contains('now'))"
GIVEN = "[...document.querySelectorAll('main .words span')].map((s) => getComputedStyle(s).backgroundColor)"
WRITTEN = "[...document.querySelectorAll('.answer label')].map((l) => l.style.background)"
BUBBLE = "document.getElementById('bubble').textContent"


def shade(strength):
    """A colour as a browser tells it."""
    return f"rgb{tuple(colour(round(127 * strength) / 127))}"


def opened(browser, tmp_path, found, **how):
    path = tmp_path / "page.html"
    path.write_text(produced.page(found), encoding="utf-8")
    return browser.page(path, **how)


@pytest.fixture
def page(browser, tmp_path):
    page = opened(browser, tmp_path, made())
    yield page
    assert page.complaints == []
    assert page.requests == [(tmp_path / "page.html").as_uri()]
    page.close()


def label(number):
    return f".answer label:nth-child({number})"


def slid(page, word):
    page.run(f"(() => {{ const s = document.getElementById('word'); s.value = {word}; "
             "s.dispatchEvent(new Event('input')); })()")  # fmt: skip


def test_a_word_that_is_pointed_at_colours_what_it_read(page):
    assert page.run(NOW) == 0
    assert page.run(GIVEN) == [shade(1), shade(0), shade(0)]
    assert page.run(WRITTEN) == ["", "", ""]
    page.point(label(3))
    assert page.run(NOW) == 2
    assert page.run(GIVEN) == [shade(0), shade(0), shade(-1)]
    assert page.run(WRITTEN) == [shade(-1), shade(0.5), ""]
    assert "dort, loudest: sleeps −1.00, le −1.00, zèbre +0.50" in page.run("document.querySelector('.told').innerText")
    page.point("h1")
    assert page.run(NOW) == 0  # what was chosen stays
    page.click(label(2))
    page.point("h1")
    assert page.run(NOW) == 1
    assert page.run("document.querySelector('main figcaption b').innerText") == "zèbre"


def test_one_slider_goes_through_the_answer(page):
    assert page.run("document.getElementById('word').max") == "2"
    for word in (1, 2, 0):
        slid(page, word)
        assert page.run(NOW) == word
        assert page.run("document.getElementById('place').textContent") == f"{word + 1} of 3"
        assert page.run("document.querySelector('.answer input:checked').parentElement.classList.contains('now')")


def test_arrow_keys_choose_and_read(page):
    for _ in range(12):
        page.press("Tab")
        if page.run("document.activeElement.name") == "word":
            break
    page.press("ArrowRight")
    assert page.run(NOW) == 1
    assert page.run("getComputedStyle(document.querySelector('.answer label.now')).outlineStyle") == "solid"
    page.press("Tab")
    assert page.run(BUBBLE) == "zebra: +1.00 for (1)"
    page.press("ArrowRight")
    assert page.run(BUBBLE) == "sleeps: −0.50 against (−0.496)"  # in steps of 1/127


def test_numbers_have_every_word(page):
    slid(page, 2)
    told = json.loads(page.run("window.heedmap.files.json[1]()"))
    assert [panel["title"] for panel in told["panels"]] == ["le", "zèbre", "dort"]
    exact = {"the": 0.0, "zebra": 1.0, "sleeps": -0.5}
    (view, before) = told["panels"][1]["views"]
    assert {unit["name"]: unit["value"] for unit in view["units"]} == pytest.approx(exact, abs=1 / 254)
    assert [unit["name"] for unit in before["units"]] == ["le", "zèbre"]
    assert len(page.run("window.heedmap.files.csv[1]()").splitlines()) == 1 + 9 + 2 + 2
    assert page.run(GIVEN) == [shade(0), shade(0), shade(-1)]  # what is shown stays


def test_a_sign_can_be_seen_alone(page):
    slid(page, 1)
    page.click(".switch label:nth-child(2)")  # for
    assert page.run(GIVEN) == [shade(0), shade(1), shade(0)]
    page.click(".switch label:nth-child(3)")
    assert page.run(GIVEN) == [shade(0), shade(0), shade(-63 / 127)]


def pictured():
    """Two words of a picture of 2 x 2 patches and a text of one word; the second reads what the first does not."""
    whole = Words(("what", "a", "zebra"), ((0,), (1,), (2,)), {}, (("given", 1), ("written", 2)))
    grid = Grid(2, 2, 1, special={0: "[CLS]"})
    parts = []
    for i, patches in enumerate(([9, 4, 0, 0, -2], [9, 0, -1, 0.5, 0])):
        flows = {"pixel_values": torch.tensor([patches]).float(), "input_ids": torch.tensor([[1.0, -2.0][: i + 1]])}
        shown = Shown({"pixel_values": grid, "input_ids": words.begins(whole, i + 1)}, picture=GREY)
        parts.append(explanation(flows, (shown,)))
    return Produced("a zebra", "input_ids", 1, (1, 2), whole, tuple(parts), (), (), True)


def test_the_picture_is_hot_where_the_word_looked(browser, tmp_path):
    page = opened(browser, tmp_path, pictured())
    page.run("(() => { const o = document.getElementById('opacity'); o.value = 0; o.dispatchEvent(new Event('input')); "
             "document.getElementById('edges').click(); })()")  # fmt: skip
    for word, corners in ((0, (1, 0, 0, -0.5)), (1, (0, -1, 0.5, 0)), (0, (1, 0, 0, -0.5))):
        slid(page, word)
        page.run("new Promise((done) => setTimeout(done, 50))")  # a picture is decoded on its own time
        seen = page.seen(".stage").astype(int)
        high, wide = seen.shape[:2]
        places = [(y, x) for y in (high // 4, 3 * high // 4) for x in (wide // 4, 3 * wide // 4)]
        for (y, x), strength in zip(places, corners, strict=True):
            assert np.abs(seen[y, x] - colour(strength)).max() <= 3, (word, y, x)
    page.point(".stage", 0.25, 0.25)
    assert page.run(BUBBLE) == "row 1, column 1: +1.00 for (4)"
    assert page.complaints == []
    page.close()


def test_what_a_row_has_not_is_not_there(browser, tmp_path):
    """Words of another continuation are read by the whole alone."""
    found = made(against=("un", "", "", "", ""))
    layouts = {**found.explanations[-1].shown[0].layouts, "decoder_input_ids (against)": Words(("un",), ((0,),))}
    flows = dict(found.explanations[-1].relevance) | {"decoder_input_ids (against)": torch.tensor([[-1.0]])}
    whole = explanation(flows, (Shown(layouts, answer="le zèbre dort rather than un"),))
    page = opened(browser, tmp_path, Produced(**{**vars(found), "other": "un cheval", "contrast": whole}))
    strips = "[...document.querySelectorAll('main .words')].map((e) => e.offsetHeight > 0)"
    assert page.run(strips) == [True, False]
    slid(page, 3)
    assert page.run(strips) == [True, True]
    assert page.run("document.querySelector('.answer label.now').innerText") == "all of it (un cheval)"
    assert "the other's own words" in page.run("document.querySelector('main').innerText")
    assert page.complaints == []
    page.close()


def test_without_script_the_first_word_and_the_table_are_there(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(produced.page(made()).replace("<script>", "<script type=none>"), encoding="utf-8")
    page = browser.page(path)
    assert page.run(GIVEN) == [shade(1), shade(0), shade(0)]
    assert page.run("document.querySelector('.all img').naturalWidth") > 300
    assert page.run("document.getElementById('word').offsetWidth") == 0
    page.close()


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_the_word_stands_out(browser, tmp_path, dark):
    page = opened(browser, tmp_path, pictured(), width=360, height=700, phone=True, dark=dark)
    assert page.run("document.documentElement.scrollWidth") <= 360
    slid(page, 1)
    ground, ink = (
        ImageColor.getrgb(page.run(f"getComputedStyle(document.querySelector('.answer label.now')).{kind}"))
        for kind in ("backgroundColor", "color")
    )
    assert abs(sum(ink) - sum(ground)) > 500
    assert ground not in (FOR, AGAINST)
    page.close()
