"""The board as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heedmap.evaluation.leaderboard.board import COLUMNS, best, entered, left_out, models, scenes, stays

ARROWS = {1: "↑", -1: "↓", 0: ""}


def markdown(made: Mapping[str, Any], title: str) -> str:
    """A table for each model, what the columns are, and the commands that made it."""
    lines = [f"# {title}", "", note(made), ""]
    lines += [f"* **{one.title}** {ARROWS[one.better]}: {one.says}" for one in COLUMNS.values()]
    for model in models(made):
        rows = entered(made, model)
        marked = best(rows)
        lines += ["", f"## {model}", ""]
        if rows:
            titles = [f"{one.title} {ARROWS[one.better]}" for one in COLUMNS.values()]
            lines += [f"| method | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
        for row in rows:
            cells = [cell(row, name, row["method"] in marked.get(name, ())) for name in COLUMNS]
            name = f"*{row['method']}*" if row["anchor"] else row["method"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        if why := reasons(made, model):
            lines += ["", "Left out:", "", *(f"* {method}: {text}" for method, text in why.items())]
    lines += ["", "Made by", "", "```", *made["commands"], "```", ""]
    return "\n".join(lines)


def note(made: Mapping[str, Any]) -> str:
    kind = "A quick run: few scenes, wide intervals. " if made["quick"] else ""
    return (
        f"{kind}A mean over scenes is followed by its 95 % interval (bootstrap). Bold: the best of a column, and all "
        f"whose interval reaches it. Slanted: anchors, which read no attention. Scenes: {scenes(made)}."
    )


def reasons(made: Mapping[str, Any], model: str) -> dict[str, str]:
    """Why methods, or measures of them, are left out."""
    found = dict(left_out(made, model))
    for row in entered(made, model):
        found |= {f"{row['method']}, {measure}": text for measure, text in row["without"].items()}
    return found


def cell(row: Mapping[str, Any], name: str, bold: bool) -> str:
    one = row["found"].get(name)
    if one is None:
        return ""
    value = told(one["mean"], name)
    mark = "*" if name == "sanity" and stays(one) else ""
    return (f"**{value}**" if bold else f"{value}{mark}") + between(one, name)


def between(one: Mapping[str, Any], name: str) -> str:
    return "" if one["low"] is None else f" [{told(one['low'], name)}, {told(one['high'], name)}]"


def told(value: float, name: str) -> str:
    digits = COLUMNS[name].digits
    return f"{round(value, digits) + 0:.{digits}f}"  # no -0.00
