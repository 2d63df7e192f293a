"""An explanation in a notebook: a picture that needs no script, so that it is seen wherever a notebook is read."""

from __future__ import annotations

from html import escape

from heedmap.records import Explanation
from heedmap.render.painting import painted
from heedmap.render.panelling import Style
from heedmap.render.sheets import sheet
from heedmap.render.vectors import data_uri

MOST = 8  # examples that are shown by themselves
FINE = 2.0  # pixels per point: sharp on a fine screen


def notebook(explanation: Explanation) -> str:
    """HTML of an explanation, by itself: an image and its words."""
    examples = explanation.value.numel()
    shown = explanation if examples <= MOST else _first(explanation, MOST)
    made = sheet(shown, Style(side=280, scale=FINE))
    image = (
        f'<img src="{data_uri(painted(made, FINE))}" alt="{escape(made.says)}" width="{round(made.width)}" '
        'style="max-width: 100%; height: auto; background: white">'
    )
    more = f"<p>The first {MOST} of {examples} examples.</p>" if examples > MOST else ""
    return f"<div>{image}{more}</div>"


def _first(explanation: Explanation, count: int) -> Explanation:
    from dataclasses import replace

    return replace(
        explanation,
        value=explanation.value.flatten()[:count],
        relevance={stream: flowed[:count] for stream, flowed in explanation.relevance.items()},
        starts={stream: start[:count] for stream, start in explanation.starts.items()},
        shown=explanation.shown[:count],
        pixels=None if explanation.pixels is None else explanation.pixels[:count],
    )
