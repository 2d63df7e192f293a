"""The page of what a model wrote: all of it laid out once, coloured for the word that is pointed at or chosen.

What each word read is kept as a row of strengths, a byte each: 200 words and a picture are a few hundred kilobytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

from heedmap.render import pages
from heedmap.render.arranging import Row
from heedmap.render.colours import AGAINST, FOR, GREY
from heedmap.render.produced import (
    OWN,
    THEIRS,
    blocked,
    keys_of,
    names_of,
    picture,
    shown_words,
    spoken,
    title_of,
    view_of,
    written_key,
)
from heedmap.render.units import Panel, View
from heedmap.render.vectors import data_uri
from heedmap.render.views import panels

if TYPE_CHECKING:
    from heedmap.families.producing import Produced, Word

FULL = 127  # the byte of strength 1
SILENT = -128  # what was not there yet, or a method says nothing of
PANELS = 24  # pictures that are still put side by side below
LONG = 60  # letters of a heading
LEAD = (
    "Point at a word of the answer, or choose it with the slider or the arrow keys: what spoke for it and against it "
    "is coloured, in what the model was given and in what it had written before. Each text has colours of its own, "
    "±1 is the strongest in it."
)
STEPS = f"Strengths are kept in steps of 1/{FULL}; --format json has them in full."
NO_SCRIPT = (
    "<noscript><p>Words are chosen by script, which does not run here. Shown is the first word; the table below has "
    "every one.</p></noscript>"
)


def page(produced: Produced, *, title: str | None = None, special: bool = False) -> str:
    """One page that fetches nothing."""
    shown = shown_words(produced, special)
    found = [panels(word.explanation, special)[0] for word in shown]
    keys = keys_of(found)
    given = [key for key in keys if key != written_key(produced)]
    laid = _laid(found, given)
    text = title_of(produced)
    title = title or (text if len(text) <= LONG else f"{text[: LONG - 1].rstrip()}…")
    html = pages.written((Row("", (laid,)),), title, LEAD, given=False)
    style = pages.asset("conversation.css") + _without(laid)
    html = html.replace("</style>", f"{style}</style>", 1)
    html = html.replace('<label class="slide">', f'{_slider(len(shown))}<label class="slide">', 1)
    html = html.replace("<main>", f"{NO_SCRIPT}<div class=both>{_answer(produced, shown)}<main>", 1)
    html = html.replace("</main>", f"</main></div>{_every(produced, shown, laid, special)}", 1)
    html = html.replace("Point at a patch or a word to read it", f"{STEPS} Point at a patch or a word to read it", 1)
    rows = json.dumps(_rows(produced, found, keys, laid, special), ensure_ascii=False, separators=(",", ":"))
    rows = rows.replace("<", "\\u003c")  # no text in it can end the script that holds it
    script = f'<script type="application/json" id="rows">{rows}</script>\n'
    return html.replace("</body>", f"{script}<script>\n{pages.asset('conversation.js')}</script>\n</body>", 1)


# ---- what is laid out


def _laid(found: Sequence[Panel], keys: Sequence[tuple[str, str]]) -> Panel:
    """A panel with all that any word read, as it is for the first."""
    views = []
    for key in keys:
        longest = max((view for panel in found if (view := view_of(panel, key))), key=lambda view: len(view.units))
        first = view_of(found[0], key)
        view = first if first and len(first.units) == len(longest.units) else _blank(longest)
        views.append(replace(view, part=OWN) if view.stream.endswith(THEIRS) else view)
    return replace(found[0], views=tuple(views))


def _blank(view: View) -> View:
    return replace(view, units=tuple(replace(unit, value=0.0, strength=0.0) for unit in view.units), peak=0.0)


def _slider(words: int) -> str:
    return (
        '<label class="turning" hidden>word <input type="range" id="word" min="0" '
        f'max="{words - 1}" value="0"> <span id="place"></span></label>'
    )


def _answer(produced: Produced, shown: Sequence[Word]) -> str:
    words = []
    for i, word in enumerate(shown):
        kind = ' class="whole"' if not word.tokens else ""
        checked = " checked" if i == 0 else ""
        words.append(f"<label{kind}><input type=radio name=word{checked}>{escape(spoken(word, produced))}</label>")
    told = '<p class="told faint" id="told" hidden aria-live="polite"></p>'
    answer = f'<div class="answer" role="radiogroup" aria-label="What was written">{"".join(words)}</div>'
    return f"<div class=said>{answer}{told}</div>"


def _without(laid: Panel) -> str:
    """What only a picture needs."""
    return "" if any(view.placed for view in laid.views) else ".slide, .tick { display: none; }\n"


def _every(produced: Produced, shown: Sequence[Word], laid: Panel, special: bool) -> str:
    """The table of all words; of many pictures none."""
    if any(view.placed for view in laid.views) and len(shown) > PANELS:
        return ""
    image = picture(produced, scale=1.5, special=special)
    told = blocked(shown, special)
    opened = " open" if len(shown) <= PANELS else ""
    return (
        f'<details class="all"{opened}><summary>every word at once</summary><img alt="{escape(told)}" '
        f'width={image.width * 2 // 3} src="{data_uri(image)}"></details>'
    )


# ---- what each word read


def _rows(
    produced: Produced, found: Sequence[Panel], keys: Sequence[tuple[str, str]], laid: Panel, special: bool
) -> dict[str, Any]:
    """Each word's figures, and its strengths view by view."""
    written = names_of(produced, special)
    views, counts, place = [], [], 0
    for key in keys:
        stream, part = key
        if key == written_key(produced):
            told = {"kind": "words", "written": True, "units": [{"name": name} for name in written]}
            count = len(written)
        else:
            view = laid.views[place]
            told = {"kind": view.kind, "columns": view.columns, "panel": place}
            count, part, place = len(view.units), view.part, place + 1
        views.append({"stream": stream, "part": part, "count": count, **told})
        counts.append(count)
    data = b"".join(
        _bytes(view_of(panel, key), count, key == written_key(produced))
        for panel in found
        for key, count in zip(keys, counts, strict=True)
    )
    words = [
        {
            "title": panel.title,
            "target": panel.target,
            "value": float(f"{panel.value:.7g}"),
            "figure": panel.figure,
            "peaks": [float(f"{view.peak if (view := view_of(panel, key)) else 0:.7g}") for key in keys],
        }
        for panel in found
    ]
    return {
        "words": words,
        "views": views,
        "offset": len(written) - sum(bool(word.tokens) for word in shown_words(produced, special)),
        "colours": {"for": FOR, "against": AGAINST, "grey": GREY},
        "strengths": base64.b64encode(data).decode(),
    }


def _bytes(view: View | None, count: int, grows: bool) -> bytes:
    """A row of signed bytes; what is not yet there is silent."""
    import numpy as np

    row = np.full(count, SILENT, np.int8)
    if view is not None and (grows or len(view.units) == count):
        told = [SILENT if unit.silent else round(FULL * unit.strength) for unit in view.units]
        row[: len(told)] = told
    return row.tobytes()
