"""Making figures into a folder: pictures, a page and the numbers of each; what is there already is not made again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heedmap.reproduce.findings import Finding, Setting, plain

SIDE = 220  # of a panel, in points


def make(name: str, figure: Callable[[Setting], Finding], out: Path, setting: Setting) -> dict[str, Any]:
    """Make one figure, or take it from the folder if it was made there with the same setting; its record."""
    stem = name.rpartition("/")[2]
    file = out / f"{stem}.json"
    record = _made(file, setting)
    if record is not None:
        return record
    began = time.perf_counter()
    finding = figure(setting)
    written = _drawn(finding, out, stem, name)
    record = {
        "figure": name,
        "says": (figure.__doc__ or "").strip(),
        "claim": finding.claim,
        "holds": finding.holds,
        "parts": [
            {
                "says": part.says,
                "rule": part.rule,
                "holds": part.holds,
                "measured": plain(part.measured),
            }
            for part in finding.parts
        ],
        "note": finding.note,
        "more": plain(finding.more),
        "files": written,
        "setting": setting.record(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    if not finding.rows:
        record["files"].append(_paged(record, out, stem))
    _write(file, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))
    return record


def titled(name: str) -> str:
    """A figure's name as a person writes it: `attention-and-gradient/figure-5` is Figure 5."""
    return name.rpartition("/")[2].replace("-", " ").capitalize()


def _made(file: Path, setting: Setting) -> dict[str, Any] | None:
    """What was made before, if it is whole and of this setting."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(record, dict) and record.get("setting") == setting.record()
    return record if same and all((file.parent / name).exists() for name in record["files"]) else None


def _drawn(finding: Finding, out: Path, stem: str, name: str) -> list[str]:
    """Write pictures and the page; their names."""
    from heedmap.render import page, picture

    written = []
    if finding.rows:
        rows = {key: list(row) for key, row in finding.rows.items()}
        picture(rows, columns=finding.columns, side=SIDE).save(out / f"{stem}.png")
        _write(out / f"{stem}.html", page(rows, title=titled(name), lead=finding.claim))
        written += [f"{stem}.png", f"{stem}.html"]
    for each, image in finding.drawings.items():
        file = f"{stem}-{each}.png"
        image.save(out / file)
        written.append(file)
    return written


def _paged(record: dict[str, Any], out: Path, stem: str) -> str:
    """A page of its own for what has no map to point at: claim, numbers and drawings; its name."""
    from heedmap.reproduce.reports import report

    _write(out / f"{stem}.html", report([record], out, titled(record["figure"])))
    return f"{stem}.html"


def _write(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
