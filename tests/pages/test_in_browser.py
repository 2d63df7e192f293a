"""Pages as a person meets them: what is drawn, what mouse and keys read, and that nothing leaves the machine."""

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
import pytest
from samples import PICTURE, bare, patches, question, sentence, sound

from heedmap import render
from heedmap.render.colours import AGAINST, FOR

pytestmark = pytest.mark.browser

GRID = [[1.0, 0.0, -0.5], [0.0, 0.25, 0.0]]


@pytest.fixture
def opened(browser, tmp_path) -> Iterator:
    """Open explanations as a page; afterwards the page must have kept quiet and asked for nothing."""
    pages = []

    def open_(explanations, look=None, **options):
        path = tmp_path / f"page-{len(pages)}.html"
        path.write_text(render.page(explanations, **options), encoding="utf-8")
        pages.append((browser.page(path, **(look or {})), path))
        return pages[-1][0]

    yield open_
    for page, path in pages:
        assert page.complaints == []
        assert page.requests == [path.as_uri()]
        page.close()


def bubble(page) -> str | None:
    return page.run("document.getElementById('bubble').hidden ? null : document.getElementById('bubble').textContent")


def slide(page, share: int) -> None:
    page.run(
        f"(() => {{ const s = document.getElementById('opacity'); s.value = {share}; "
        "s.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def middle(pixels: np.ndarray, row: int, column: int) -> list[int]:
    """The colour in the middle of a patch of GRID."""
    high, wide = pixels.shape[:2]
    return pixels[int((row + 0.5) / 2 * high), int((column + 0.5) / 3 * wide)].tolist()


def test_a_complaint_and_a_request_would_be_noticed(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<img src='https://example.org/x.png'><script>console.log('a'); missing()</script>")
    page = browser.page(path)
    page.wait("document.readyState === 'complete'")
    assert len(page.complaints) >= 2
    assert "https://example.org/x.png" in page.requests
    page.close()


def test_patches_have_the_colours_of_their_strength(opened):
    page = opened(patches(GRID), smooth=False)
    slide(page, 0)
    pixels = page.seen(".stage.view")
    assert np.allclose(middle(pixels, 0, 0), FOR, atol=2)
    assert np.allclose(middle(pixels, 0, 1), 255, atol=1)
    assert np.allclose(middle(pixels, 0, 2), (255 + np.array(AGAINST)) / 2, atol=2)
    assert np.allclose(middle(pixels, 1, 1), 255 + (np.array(FOR) - 255) / 4, atol=2)


def test_the_switch_leaves_one_sign(opened):
    page = opened([patches(GRID), sentence()], smooth=False)
    slide(page, 0)
    page.click("input[value=for] + span")
    pixels = page.seen(".stage.view")
    assert np.allclose(middle(pixels, 0, 0), FOR, atol=2)
    assert np.allclose(middle(pixels, 0, 2), 255, atol=1)
    assert (
        page.run("getComputedStyle(document.querySelector('.words .against')).backgroundColor") == "rgb(255, 255, 255)"
    )
    page.click("input[value=against] + span")
    pixels = page.seen(".stage.view")
    assert np.allclose(middle(pixels, 0, 0), 255, atol=1)
    assert middle(pixels, 0, 2)[2] > middle(pixels, 0, 2)[0] + 50
    page.click("input[value=both] + span")
    assert np.allclose(middle(page.seen(".stage.view"), 0, 0), FOR, atol=2)


def test_the_slider_goes_from_colours_to_the_picture_in_grey(opened):
    page = opened(patches(GRID))
    slide(page, 100)
    inner = page.seen(".stage.view").astype(int)[8:-8, 8:-8]  # its corners are round
    assert np.ptp(inner, axis=2).max() <= 1
    assert inner.std() > 10  # the picture is there
    slide(page, 0)
    inner = page.seen(".stage.view").astype(int)[8:-8, 8:-8]
    assert np.ptp(inner, axis=2).max() > 150
    assert np.ptp(inner, axis=2).min() == 0


def test_the_page_looks_as_the_painted_picture(opened):
    page = opened(patches(GRID, np.full((200, 300, 3), 128, np.uint8)), smooth=False)
    seen = page.seen(".stage.view").astype(int)
    sheet = render.picture(patches(GRID, np.full((200, 300, 3), 128, np.uint8)), given=False, smooth=False)
    painted = np.asarray(sheet).astype(int)
    high, wide = seen.shape[:2]
    for row in range(2):
        for column in range(3):
            at = 44 + int((row + 0.5) / 2 * 213), 20 + int((column + 0.5) / 3 * 320)
            assert np.allclose(middle(seen, row, column), painted[at], atol=3), (row, column, high, wide)


def test_the_given_picture_stands_first_and_unchanged(opened):
    page = opened(patches(GRID))
    pixels = page.seen(".given").astype(int)
    high, wide = pixels.shape[:2]
    ys, xs = (np.arange(3, 93, 10) + 0.5) / 96, (np.arange(3, 93, 10) + 0.5) / 96
    there = pixels[(ys * high).astype(int)][:, (xs * wide).astype(int)]
    true = PICTURE[3:93:10, 3:93:10].astype(int)
    assert np.median(np.abs(there - true)) <= 4


def test_the_mouse_reads_a_patch(opened):
    page = opened(patches(GRID))
    assert bubble(page) is None
    page.point(".stage.view", 1 / 6, 1 / 4)
    assert bubble(page) == "row 1, column 1: +1.00 for (1)"
    page.point(".stage.view", 5 / 6, 1 / 4)
    assert bubble(page) == "row 1, column 3: −0.50 against (−0.5)"
    page.point(".stage.view", 1 / 6, 3 / 4)
    assert bubble(page) == "row 2, column 1: +0.00 nothing (0)"
    page.point("h1")
    assert bubble(page) is None


def test_the_patch_under_the_mouse_is_marked_in_every_panel_of_the_row(opened):
    other = patches([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]], target="logit('cat')")
    page = opened([patches(GRID), other])
    page.point(".stage.view", 5 / 6, 1 / 4)
    assert page.run("[...document.querySelectorAll('.cursor')].map((c) => !c.hidden && parseInt(c.style.left))") == [
        66,
        66,
    ]


def test_the_mouse_reads_a_word_and_the_strongest_region(opened):
    page = opened(question())
    page.point(".words span:nth-child(2)")
    assert bubble(page) == "one: −1.00 against (−1)"
    page.point(".stage.view", 0.45, 0.45)  # three regions lie here
    assert bubble(page) == "zebra: +1.00 for (2)"
    page.point(".stage.view", 0.7, 0.7)
    assert bubble(page) == "cat: −0.50 against (−1)"
    page.point(".stage.view", 0.9, 0.1)  # no region
    assert bubble(page) is None


def test_regions_are_painted_with_the_strongest_that_covers(opened):
    page = opened(question())
    slide(page, 0)
    pixels = page.seen(".stage.view")
    high, wide = pixels.shape[:2]

    def at(x, y):
        return pixels[int(y * high), int(x * wide)]

    assert np.allclose(at(0.45, 0.45), FOR, atol=2)
    assert np.allclose(at(0.55, 0.55), (255 + np.array(AGAINST)) / 2, atol=2)
    assert np.ptp(at(0.9, 0.1).astype(int)) < 6  # nothing is known there: grey
    assert at(0.9, 0.1)[0] < 230


def test_the_keys_read_everything(opened):
    page = opened([patches(GRID), sentence()])
    order = []
    for _ in range(9):
        page.press("Tab")
        order.append(
            page.run(
                "document.activeElement.id || document.activeElement.className || "
                "document.activeElement.value || document.activeElement.textContent"
            )
        )
    assert order[:5] == ["both", "opacity", "edges", "JSON", "CSV"]
    assert order[5].startswith("stage view")
    assert order[6] == "view words"


def test_arrows_move_over_patches(opened):
    page = opened(patches(GRID))
    for _ in range(6):
        page.press("Tab")
    assert bubble(page).startswith("row 1, column 1: +1.00")  # the strongest first
    page.press("ArrowRight")
    page.press("ArrowDown")
    assert bubble(page).startswith("row 2, column 2: +0.25")
    assert page.run("document.getElementById('said').textContent") == bubble(page)
    page.press("End")
    assert bubble(page).startswith("row 2, column 3")
    page.press("ArrowRight")
    assert bubble(page).startswith("row 2, column 3")
    page.press("Escape")
    assert bubble(page) is None


def test_the_keys_move_the_switch_and_the_slider(opened):
    page = opened(patches(GRID))
    page.press("Tab")
    page.press("ArrowRight")
    assert page.run("document.documentElement.className") == "only-for"
    page.press("Tab")
    before = page.run("getComputedStyle(document.querySelector('.veil')).opacity")
    page.press("End")
    assert page.run("getComputedStyle(document.querySelector('.veil')).opacity") == "1"
    assert before == "0.45"


def test_the_numbers_can_be_taken_along(opened):
    page = opened([patches(GRID, target="logit('zebra, striped')"), sentence()])
    # What a click would write: the blob is kept instead of being downloaded.
    page.run(
        "URL.createObjectURL = (blob) => { window.kept = blob; return 'data:,'; }; "
        "HTMLAnchorElement.prototype.click = function () { window.named = this.download; }; 0"
    )
    page.click("[data-download=json]")
    told = json.loads(page.run("kept.text()"))
    assert page.run("named") == "heedmap.json"
    assert [unit["value"] for unit in told["panels"][0]["views"][0]["units"]] == [1, 0, -0.5, 0, 0.25, 0]
    assert [unit["name"] for unit in told["panels"][1]["views"][0]["left_out"]] == ["[CLS]", "[SEP]"]
    page.click("[data-download=csv]")
    lines = page.run("kept.text()").split("\r\n")
    assert lines[0] == "panel,target,method,stream,unit,value,strength,left,top,right,bottom"
    assert lines[1].startswith('1,"zebra, striped",heed:complete,pixel_values,"row 1, column 1",1,1,0,0,')
    assert len(lines) == 1 + 6 + 4 + 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read_on_its_ground(opened, dark):
    page = opened([question(), bare()], look={"dark": dark})
    script = """
      [...document.querySelectorAll("h1, p, .faint, b, .red, .blue, .words span, button, label")].map((e) => {
        let ground = e;
        while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)" && ground.parentElement) {
          ground = ground.parentElement;
        }
        return [e.className + e.tagName, getComputedStyle(e).color, getComputedStyle(ground).backgroundColor];
      })"""
    found = page.run(script)
    assert len(found) > 15
    for name, ink, ground in found:
        assert contrast(ink, ground) >= 4.5, (name, ink, ground)
    luminance = brightness(page.run("getComputedStyle(document.body).backgroundColor"))
    assert luminance < 0.1 if dark else luminance > 0.9


def brightness(colour: str) -> float:
    levels = [int(x) / 255 for x in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_phone_needs_no_sideways_scrolling(opened):
    long = patches(GRID, answer="a_label_of_many_letters_without_any_space_in_between_at_all")
    page = opened([long, sentence(), sound(), bare(2, 400)], look={"width": 360, "height": 740, "phone": True})
    assert page.run("document.documentElement.scrollWidth") == 360
    wide = "[...document.querySelectorAll('.stage, .words, .cells')].map((e) => e.getBoundingClientRect().right)"
    assert max(page.run(wide)) <= 360
    assert min(page.run("[...document.querySelectorAll('.stage')].map((e) => e.clientWidth)")) > 280


def test_pictures_of_a_row_are_level_and_as_large(opened):
    page = opened([patches(GRID), patches(GRID, answer="zebra rather than elephant, horse, slug, snail and conch")])
    script = "(e) => { const r = e.getBoundingClientRect(); return [r.top, r.width, r.height]; }"
    places = page.run(f"[...document.querySelectorAll('.stage')].map({script})")
    assert len(places) == 3
    assert np.ptp(places, axis=0).max() < 0.5


def test_a_tall_picture_is_seen_whole(opened):
    tall = np.full((700, 200, 3), 200, np.uint8)
    e = patches(GRID)
    e = dataclasses.replace(e, shown=(dataclasses.replace(e.shown[0], picture=tall),))
    for wide, high in opened([e]).run(
        "[...document.querySelectorAll('.stage')].map((e) => [e.clientWidth, e.clientHeight])"
    ):
        assert 300 < high < 900  # of the window
        assert wide / high == pytest.approx(200 / 700, abs=0.01)


@pytest.mark.parametrize(
    ("panels", "width", "lines"),
    [(3, 1200, [4]), (3, 800, [2, 2]), (3, 400, [1] * 4), (4, 1200, [3, 2]), (6, 1200, [4, 3]), (2, 800, [2, 1])],
)
def test_lines_of_a_row_are_balanced(opened, panels, width, lines):
    """The picture stands in the row too."""
    made = [patches(GRID, answer=f"answer {i}") for i in range(panels)]
    page = opened(made, look={"width": width})
    tops = page.run("[...document.querySelectorAll('.stage')].map((e) => Math.round(e.getBoundingClientRect().top))")
    assert [tops.count(top) for top in sorted(set(tops))] == lines
    page.ask("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
    page.wait("innerWidth === 1200")
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    again = page.run("[...document.querySelectorAll('.stage')].map((e) => Math.round(e.getBoundingClientRect().top))")
    assert again.count(min(again)) == {2: 3, 3: 4, 4: 3, 6: 4}[panels]


@pytest.mark.parametrize("width", [1200, 800, 400])
def test_the_legend_is_seen_above_the_panels_however_far_one_scrolls(opened, width):
    page = opened([patches(GRID, answer=f"answer {i}") for i in range(9)], look={"width": width})
    where = (
        "(() => { const r = document.querySelector('.legend').getBoundingClientRect(); return [r.top, r.bottom]; })()"
    )
    assert page.run("document.querySelectorAll('.legend').length") == 1
    assert page.run(where)[1] < page.run("document.querySelector('.stage').getBoundingClientRect().top")
    page.run("scrollTo({top: 1e6, behavior: 'instant'})")
    assert page.run("scrollY") > 100
    assert 0 <= page.run(where)[0] < page.run(where)[1] < 60


def test_regions_are_named_as_on_the_painted_picture(opened):
    page = opened(question())
    names = "[...document.querySelectorAll('.named')].filter((e) => getComputedStyle(e).visibility !== 'hidden')"
    assert page.run(f"{names}.map((e) => e.textContent)") == ["cat −0.50", "zebra +1.00"]
    painted = render.svg(question())
    assert all(name in painted for name in ("cat −0.50", "zebra +1.00"))
    stage = page.place(".stage.view")
    left, top, width, height = page.place(".named.against")
    shares = ((left - stage[0]) / stage[2], (top - page.place(".stage.view")[1]) / stage[3])
    assert np.allclose(shares, (0.25, 0.25), atol=0.01)
    assert np.allclose((width / stage[2], height / stage[3]), (0.5, 0.5), atol=0.01)
    inside = (
        "((e) => { const r = e.getBoundingClientRect(), s = e.closest('.stage').getBoundingClientRect(); "
        "return r.left >= s.left - 1 && r.right <= s.right + 1; })"
    )
    assert page.run(f"[...document.querySelectorAll('.named span')].every({inside})")
    page.click("input[value=for] + span")
    assert page.run(f"{names}.map((e) => e.textContent)") == ["zebra +1.00"]


def test_a_touch_reads_a_patch(opened):
    page = opened(patches(GRID), look={"width": 360, "height": 740, "phone": True})
    page.ask("Emulation.setTouchEmulationEnabled", enabled=True)
    left, top, width, height = page.place(".stage.view")
    at = {"x": left + width / 6, "y": top + height / 4}
    page.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[at])
    page.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert bubble(page) == "row 1, column 1: +1.00 for (1)"


def test_a_label_cannot_write_into_the_page(opened):
    bad = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>\"'{{script}}"
    page = opened({bad: [patches(GRID, answer=bad, picture=None), sentence()]}, title=bad, lead=bad, captions=[bad])
    assert page.run("window.hurt") is None
    assert page.run("document.querySelector('h1').textContent") == bad
    assert page.run("document.querySelector('figcaption b').textContent") == bad
    assert json.loads(page.run("document.getElementById('numbers').textContent"))["panels"][0]["title"] == bad


def test_special_tokens_are_shown_when_asked_for(opened):
    page = opened(patches(GRID), special=True)
    assert page.run("document.querySelector('.words').textContent") == "[CLS]"
    page.point(".words span")
    assert bubble(page) == "[CLS]: +1.00 for (9)"
    page.point(".stage.view", 1 / 6, 1 / 4)
    assert bubble(page) == "row 1, column 1: +0.11 for (1)"


def test_cells_of_what_nothing_is_known_of_are_read(opened):
    page = opened(bare(1, 70))
    page.point(".cells span:nth-child(70)")
    assert bubble(page) == "token 69: +1.00 for (2)"
