"""One page of many figures: what was claimed, what was measured, and whether it holds."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from heedmap.reproduce.running import titled

VERDICTS = {True: "holds", False: "does not hold", None: "not measured"}
CLASSES = {True: "yes", False: "no", None: "open"}

STYLE = "report.css"
HOW = (
    "The rule by which a part is decided stands below it; a claim holds if all of its parts do. A mean of scenes is "
    "followed by its 95 % interval (bootstrap over scenes)."
)


def report(records: Sequence[Mapping[str, Any]], folder: Path, title: str, note: str = "") -> str:
    """The page, with the pictures of `folder` in it: it needs no other file, and fetches nothing."""
    held = sum(record["holds"] is True for record in records)
    measured = sum(record["holds"] is not None for record in records)
    parts = [part["holds"] for record in records for part in record["parts"]]
    lead = f"{held} of {measured} claims hold whole, and {sum(parts)} of their {len(parts)} parts." if measured else ""
    body = "\n".join(_figure(record, folder) for record in records)
    style = (resources.files("heedmap.reproduce") / "assets" / STYLE).read_text(encoding="utf-8")
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{style}</style>\n<h1>{escape(title)}</h1>\n"
        f"<p>{lead} {HOW} {escape(note)}</p>\n"
        f"{_contents(records)}\n{body}\n</html>\n"
    )


def findings(records: Sequence[Mapping[str, Any]]) -> str:
    """The same as a table in Markdown: one line for each part of each claim."""
    lines = ["| figure | what is claimed | measured | holds |", "|---|---|---|---|"]
    for record in records:
        figure = record["figure"].rpartition("/")[2].replace("-", " ")
        for part in record["parts"]:
            numbers = "; ".join(f"{key} {number(value)}" for key, value in part["measured"].items())
            lines.append(f"| {figure} | {part['says']} | {numbers} | {'yes' if part['holds'] else '**no**'} |")
    return "\n".join(lines) + "\n"


def number(value: Any) -> str:
    """A measured number as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        if value["mean"] is None:
            return "-"
        low, high = value["low"], value["high"]
        return _short(value["mean"]) + ("" if low is None or high is None else f" [{_short(low)}, {_short(high)}]")
    return _short(value) if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _contents(records: Iterable[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><a href=#{_anchor(record)}>{escape(_name(record))}</a><td>{escape(record['claim'])}"
        f"<td>{_verdict(record['holds'])}{_how_much(record['parts'])}"
        for record in records
    )
    return f"<table class=contents>{rows}</table>"


def _figure(record: Mapping[str, Any], folder: Path) -> str:
    pictures = [name for name in record["files"] if name.endswith((".png", ".gif"))]
    mapped = f"{_anchor(record)}.png" in record["files"]  # else its page has no more than stands here
    page = next((name for name in record["files"] if name.endswith(".html")), None) if mapped else None
    link = f' · <a href="{escape(page)}">values under the pointer</a>' if page else ""
    images = "".join(_image(folder / name, record["claim"]) for name in pictures)
    note = f"<p class=faint>{escape(record['note'])}</p>" if record["note"] else ""
    return (
        f"<h2 id={_anchor(record)}>{escape(_name(record))} · {_verdict(record['holds'])}</h2>"
        f"<p>{escape(record['claim'])}</p>{_parts(record['parts'])}{note}{images}"
        f"<p class=faint>{escape(_on(record))} · {record['seconds']:.0f} s · "
        f'<a href="{_anchor(record)}.json">all numbers</a>{link}</p>'
    )


def _parts(parts: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for part in parts:
        rows.append(
            f"<tr class=part><td>{escape(part['says'])}<br><span class=faint>{escape(part['rule'])}</span>"
            f"<td>{_verdict(part['holds'])}"
        )
        rows += [
            f"<tr class=number><td>{escape(key)}<td>{escape(number(value))}" for key, value in part["measured"].items()
        ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _image(path: Path, says: str) -> str:
    kind = path.suffix.removeprefix(".")
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(says)}" src="data:image/{kind};base64,{data}">'


def _verdict(holds: bool | None) -> str:
    return f'<span class="verdict {CLASSES[holds]}">{VERDICTS[holds]}</span>'


def _how_much(parts: Sequence[Mapping[str, Any]]) -> str:
    """How many parts hold, where some do and some do not."""
    held = sum(part["holds"] for part in parts)
    return f"<br><span class=faint>{held} of {len(parts)} parts do</span>" if 0 < held < len(parts) else ""


def _on(record: Mapping[str, Any]) -> str:
    """What it was made with."""
    model, images = record["setting"]["model"], len(record["setting"]["images"])
    counts = [value["scenes"] for part in record["parts"] for value in part["measured"].values() if _averaged(value)]
    seen = _counted(images, "picture") if images else _counted(max(counts, default=0), "scene")
    return f"{model or 'models of the zoo'} · {seen}"


def _averaged(value: Any) -> bool:
    return isinstance(value, Mapping) and "scenes" in value


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _name(record: Mapping[str, Any]) -> str:
    return titled(record["figure"])


def _anchor(record: Mapping[str, Any]) -> str:
    return record["figure"].rpartition("/")[2]
