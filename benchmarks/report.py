"""Figures into records, and records into a terminal table, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from .contestants import DETECTIONS, LIMIT, ONE

LEFT = ("case", "dtype", "contestant", "goal")
HEADINGS = (*LEFT[:3], "seconds", "time / limit", "range", "peak MB", "memory / limit", LEFT[3])
NOTHING = "-"

# What heedmap wants to reach, as ratios to the limit: (case, contestant) -> (time, memory).
GOALS = {
    ("vit-b-197", "heedmap complete"): (1.0, None),
    ("vit-b-197", "heedmap positive"): (1.0, None),
    ("vit-b-197", "heedmap absolute"): (1.0, None),
    ("vit-2305", "heedmap complete"): (1.2, None),
    ("vit-2305", "heedmap positive"): (1.4, None),
    ("vit-2305", "heedmap absolute"): (1.4, None),
    ("vit-4097", "heedmap complete"): (None, 1.15),
    ("vit-4097", "heedmap positive"): (None, 1.30),
    ("vit-4097", "heedmap absolute"): (None, 1.30),
    **{
        (case, f"heedmap {correction}"): (None, 1.30)
        for case in ("vit-9217", "lm-16384")
        for correction in ("complete", "positive", "absolute")
    },
}

# Beside another contestant: (case, contestant) -> (the other, time / its time).
GOALS_BESIDE = {(case, DETECTIONS): (ONE, 3.0) for case in ("detr-r50-800", "zoo-detr")}


@dataclass(frozen=True)
class Figure:
    """One contestant on one case. None: not measured, or it does not fit."""

    case: str
    dtype: str
    contestant: str
    fits: bool
    seconds: float | None  # median of the rounds
    time_ratio: float | None  # of the medians
    time_range: tuple[float, float] | None  # smallest and largest ratio within one round
    peak_mb: float | None  # median of the processes; 1 MB = 10^6 bytes
    memory_ratio: float | None
    beside: float | None  # time / that of the contestant that a goal names
    all_seconds: tuple[float, ...]
    all_peak_mb: tuple[float, ...]


def figures(
    case: str,
    dtype: str,
    seconds: Mapping[str, Sequence[float] | None],
    peaks: Mapping[str, Sequence[int] | None],
) -> list[Figure]:
    """Raw measurements of one case to figures; a missing name was not measured, None does not fit."""
    return [_figure(case, dtype, name, seconds, peaks) for name in dict.fromkeys([*seconds, *peaks])]


def _figure(case, dtype, name, seconds, peaks) -> Figure:
    times, limits = seconds.get(name) or [], seconds.get(LIMIT) or []
    megabytes = [count / 1e6 for count in peaks.get(name) or []]
    limit_megabytes = [count / 1e6 for count in peaks.get(LIMIT) or []]
    other = seconds.get(GOALS_BESIDE.get((case, name), ("", 0))[0]) or []
    by_round = [ours / limit for ours, limit in zip(times, limits, strict=False)]
    return Figure(
        case=case,
        dtype=dtype,
        contestant=name,
        fits=seconds.get(name, ()) is not None and peaks.get(name, ()) is not None,
        seconds=median(times) if times else None,
        time_ratio=median(times) / median(limits) if times and limits else None,
        time_range=(min(by_round), max(by_round)) if by_round else None,
        peak_mb=median(megabytes) if megabytes else None,
        memory_ratio=median(megabytes) / median(limit_megabytes) if megabytes and limit_megabytes else None,
        beside=median(times) / median(other) if times and other else None,
        all_seconds=tuple(times),
        all_peak_mb=tuple(megabytes),
    )


def cells(figure: Figure) -> list[str]:
    """A figure as a row under HEADINGS."""
    low, high = figure.time_range or (None, None)
    shown = (
        [_text(figure.seconds, 3), _text(figure.time_ratio), f"{_text(low)} to {_text(high)}"]
        if figure.seconds is not None
        else [NOTHING] * 3
    )
    shown += [_text(figure.peak_mb, 0), _text(figure.memory_ratio)]
    if not figure.fits:
        shown = ["does not fit", *[NOTHING] * 4]
    return [figure.case, figure.dtype, figure.contestant, *shown, _goal(figure)]


def _goal(figure: Figure) -> str:
    goals = GOALS.get((figure.case, figure.contestant), (None, None))
    other, at_most = GOALS_BESIDE.get((figure.case, figure.contestant), (None, None))
    told = ("time", "memory", f"{figure.beside or 0:.2f} x {other}, at most")
    reached = zip(told, (*goals, at_most), (figure.time_ratio, figure.memory_ratio, figure.beside), strict=True)
    return ", ".join(
        f"{what} {goal:.2f}: {'reached' if ratio <= goal else 'missed'}"
        for what, goal, ratio in reached
        if goal is not None and ratio is not None
    )


def _text(number: float | None, digits: int = 2) -> str:
    return NOTHING if number is None else f"{number:.{digits}f}"


def show(rows: Iterable[Figure]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in LEFT else "right")
    last = None
    for figure in rows:
        if last not in (None, (figure.case, figure.dtype)):
            table.add_section()
        last = (figure.case, figure.dtype)
        table.add_row(*cells(figure))
    console = Console()
    console = console if console.is_terminal else Console(width=140)
    console.print(table)


def write(folder: Path, name: str, rows: Sequence[Figure], run: Mapping, machine: Mapping) -> Path:
    """Write `name`.md and `name`.json into `folder`; the Markdown's path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"run": dict(run), "machine": dict(machine), "figures": [asdict(figure) for figure in rows]}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    path = folder / f"{name}.md"
    path.write_text(markdown(name, rows, run, machine))
    return path


def markdown(name: str, rows: Iterable[Figure], run: Mapping, machine: Mapping) -> str:
    """A page for a reader; how the figures come about is told in benchmarks/README.md."""
    facts = [f"* {key.replace('_', ' ')}: {value}" for key, value in {**machine, **run}.items()]
    lines = ["| " + " | ".join(row) + " |" for row in (HEADINGS, ["---"] * len(HEADINGS), *map(cells, rows))]
    about = "What the limit is and how this was measured: `benchmarks/README.md`."
    return "\n".join([f"# Benchmark {name}", "", about, "", *facts, "", *lines, ""])
