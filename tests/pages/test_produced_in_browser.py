"""The page of what a model wrote: words are chosen by mouse and keys, also where no script runs."""

import pytest
from writings import made

from heedmap.render import produced

pytestmark = pytest.mark.browser

SEEN = "[...document.querySelectorAll('main section')].findIndex((s) => getComputedStyle(s).display !== 'none')"
COUNT = "[...document.querySelectorAll('main section')].filter((s) => getComputedStyle(s).display !== 'none').length"


@pytest.fixture
def page(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(produced.page(made()), encoding="utf-8")
    opened = browser.page(path)
    yield opened
    assert opened.complaints == []
    assert opened.requests == [path.as_uri()]
    opened.close()


def test_one_word_is_open_and_another_is_chosen_by_mouse(page):
    assert (page.run(SEEN), page.run(COUNT)) == (0, 1)
    page.click("label[for=w2]")
    assert (page.run(SEEN), page.run(COUNT)) == (2, 1)
    assert "dort" in page.run("document.querySelectorAll('main section')[2].innerText")


def test_arrow_keys_choose_and_read(page):
    for _ in range(12):
        page.press("Tab")
        if page.run("document.activeElement.name") == "word":
            break
    page.press("ArrowRight")
    assert page.run(SEEN) == 1
    assert page.run("getComputedStyle(document.querySelector('label[for=w1]')).outlineStyle") == "solid"
    page.press("Tab")
    bubble = "document.getElementById('bubble').textContent"
    assert page.run(bubble) == "zebra: +1.00 for (1)"
    page.press("ArrowRight")
    assert page.run(bubble) == "sleeps: −0.50 against (−0.5)"


def test_without_script_words_are_chosen_as_well(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(produced.page(made()).replace("<script>", "<script type=none>"), encoding="utf-8")
    page = browser.page(path)
    page.click("label[for=w1]")
    assert (page.run(SEEN), page.run(COUNT)) == (1, 1)
    page.close()


def test_it_fits_a_phone(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(produced.page(made()), encoding="utf-8")
    page = browser.page(path, width=360, height=700, phone=True)
    assert page.run("document.documentElement.scrollWidth") <= 360
    page.close()
