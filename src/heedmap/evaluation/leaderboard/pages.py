"""The board as one page whose tables can be sorted: it needs no other file, and fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import Any

from heedmap.evaluation.leaderboard.board import COLUMNS, best, entered, models, scenes, stays
from heedmap.evaluation.leaderboard.tables import ARROWS, between, reasons, told
from heedmap.methods import METHODS
from heedmap.render.pages import FORBID

HOW = (
    "A click on a title sorts. A mean over scenes stands above its 95 % interval (bootstrap). Green: the best of a "
    "column, and all whose interval reaches it. Slanted: anchors, which read no attention. Red: a rank "
    "correlation that does not fall."
)


def page(made: Mapping[str, Any], title: str) -> str:
    links = "".join(f"<a href=#{_anchor(model)}>{escape(model)}</a>" for model in models(made))
    tables = "\n".join(_model(made, model) for model in models(made))
    means = "".join(f"<dt>{escape(one.title)} {ARROWS[one.better]}<dd>{escape(one.says)}" for one in COLUMNS.values())
    quick = "<strong>A quick run: few scenes, wide intervals.</strong> " if made["quick"] else ""
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{FORBID}">\n'
        f"<title>{escape(title)}</title><style>{_text('board.css')}</style>\n<h1>{escape(title)}</h1>\n"
        f"<p>{quick}{HOW}</p>\n<nav>{links}</nav>\n<dl>{means}</dl>\n{tables}\n"
        f"<h2>How it was made</h2><pre>{escape(chr(10).join(made['commands']))}</pre>"
        f"<p class=faint>heedmap {escape(made['version'])}. Scenes: {escape(scenes(made))}.</p>\n"
        f"<script>{_text('board.js')}</script>\n</html>\n"
    )


def _model(made: Mapping[str, Any], model: str) -> str:
    rows = entered(made, model)
    marked = best(rows)
    titles = "".join(
        f'<th data-better="{one.better}" title="{escape(one.says)}"'
        f"{' aria-sort=descending' if name == 'on target' else ''}>"
        f"<button>{escape(one.title)}&nbsp;{ARROWS[one.better]}</button>"
        for name, one in COLUMNS.items()
    )
    body = "\n".join(
        f"<tr>{_name(row)}{''.join(_cell(row, name, row['method'] in marked.get(name, ())) for name in COLUMNS)}"
        for row in rows
    )
    table = (
        f'<div class=wide><table><thead><tr><th data-better="-1"><button>method</button>{titles}'
        f"<tbody>\n{body}\n</table></div>"
    )
    why = "".join(f"<dt>{escape(name)}<dd>{escape(text)}" for name, text in reasons(made, model).items())
    less = f"<details><summary>Left out</summary><dl>{why}</dl></details>" if why else ""
    return f"<h2 id={_anchor(model)}>{escape(model)}</h2>\n{table if rows else ''}\n{less}"


def _name(row: Mapping[str, Any]) -> str:
    name = row["method"].partition(":")[0]
    kind = "anchor" if row["anchor"] else "ours" if name == "heed" else ""
    return (
        f'<td class="{kind}" data-value="{escape(row["method"])}" title="{escape(METHODS[name].says)}">'
        f"{escape(row['method'])}"
    )


def _cell(row: Mapping[str, Any], name: str, top: bool) -> str:
    one = row["found"].get(name)
    if one is None:
        return '<td data-value="">'
    kind = "bad" if name == "sanity" and stays(one) else "best" if top else ""
    interval = between(one, name).strip()
    small = f"<small>{interval}</small>" if interval else ""
    return (
        f'<td data-value="{one["mean"]}" title="{one["scenes"]} scenes"><span class="{kind}">'
        f"{told(one['mean'], name)}</span>{small}"
    )


def _anchor(model: str) -> str:
    return model.replace(":", "-").replace("/", "-")


def _text(name: str) -> str:
    return (resources.files("heedmap.evaluation.leaderboard") / "assets" / name).read_text(encoding="utf-8")
