"""The board: a row for each method on each model, out of the records of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heedmap.evaluation.leaderboard.measures import FALLS, MEASURES
from heedmap.evaluation.leaderboard.running import Job
from heedmap.methods import METHODS


@dataclass(frozen=True)
class Column:
    """`better` is 1 where more is better, -1 where less is, 0 where neither is."""

    title: str
    better: int
    says: str
    digits: int = 2


COLUMNS: Mapping[str, Column] = {
    "pointing": Column("pointing", 1, "how often the strongest pixel lies on the target"),
    "on target": Column("for, on target", 1, "how much of what speaks for the answer lies on the target"),
    "against others": Column(
        "against, on others", 1, "how much of what speaks against it lies on the others; blank without sign"
    ),
    "detail": Column(
        "detail",
        1,
        "how often the part that tells two answers apart has the sign of what hiding it does, asked both ways round; "
        "0.5 is chance, and what a map without sign gets",
    ),
    "positive": Column(
        "AUC, most first",
        -1,
        "area under the accuracy while the most relevant is hidden first, 0 to 90 (regions: to 100)",
        1,
    ),
    "negative": Column("AUC, least first", 1, "the same while the least relevant is hidden first", 1),
    "sanity": Column(
        "random weights",
        -1,
        "rank correlation with the map of a model whose weights were all drawn anew, layer by layer from the top; "
        f"it must fall: * where its interval reaches {FALLS:g}",
    ),
    "stability": Column("under noise", 1, "cosine with the map of an input that was changed by next to nothing"),
    "cost": Column("cost", -1, "time over that of one forward and one backward pass, side by side", 1),
}


def board(jobs: Sequence[Job], commands: Sequence[str], quick: bool) -> dict[str, Any]:
    """All of it as plain numbers and words."""
    from heedmap import __version__

    return {
        "version": __version__,
        "quick": quick,
        "commands": list(commands),
        "columns": {
            name: {"title": one.title, "better": one.better, "says": one.says} for name, one in COLUMNS.items()
        },
        "rows": [_row(job) for job in jobs if job.records()],
    }


def _row(job: Job) -> dict[str, Any]:
    """One method on one model; `left_out` says why a method is not measured at all, `without` what is missing of it."""
    records = job.records()
    found: dict[str, Any] = {}
    for record in records:
        found |= record["found"]
    refused = {record["setting"]["measure"]: record["refused"] for record in records if record["refused"]}
    whole = len(refused) == len(records)
    return {
        "model": job.model,
        "method": job.method,
        "anchor": METHODS[job.method.partition(":")[0]].says.startswith("anchor"),
        "counts": dict(job.counts),
        "found": {name: found[name] for name in COLUMNS if name in found and found[name]["mean"] is not None},
        "cascade": {name: one for name, one in found.items() if name.startswith("cascade")},
        "left_out": next(iter(refused.values())) if whole else None,
        "without": {} if whole else refused,
        "seconds": round(sum(record["seconds"] for record in records), 1),
    }


def models(made: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in made["rows"]))


def entered(made: Mapping[str, Any], model: str) -> list[dict[str, Any]]:
    """The methods that were measured on a model, most of what speaks for it on the target first."""
    rows = [row for row in made["rows"] if row["model"] == model and row["left_out"] is None]
    return sorted(rows, key=lambda row: -row["found"].get("on target", {"mean": -1.0})["mean"])


def left_out(made: Mapping[str, Any], model: str) -> dict[str, str]:
    return {row["method"]: row["left_out"] for row in made["rows"] if row["model"] == model and row["left_out"]}


def best(rows: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Of each column the methods whose interval reaches the best mean; the columns that are no contest have none."""
    told: dict[str, set[str]] = {}
    for name, column in COLUMNS.items():
        there = {row["method"]: row["found"][name] for row in rows if name in row["found"]}
        if not there or name in ("sanity", "cost"):
            continue
        top = max(column.better * one["mean"] for one in there.values())
        told[name] = {method for method, one in there.items() if reaches(one, column.better, top)}
    return told


def reaches(one: Mapping[str, Any], better: int, top: float) -> bool:
    ends = [one[end] for end in ("mean", "low", "high") if one[end] is not None]
    return max(better * end for end in ends) >= top


def stays(one: Mapping[str, Any]) -> bool:
    """Whether a rank correlation has not fallen."""
    return (one["mean"] if one["high"] is None else one["high"]) >= FALLS


def scenes(made: Mapping[str, Any]) -> str:
    """On how many scenes what was measured, in words."""
    told: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for row in made["rows"]:
        key = tuple((name, row["counts"][name]) for name in MEASURES if name in row["counts"])
        names = told.setdefault(key, [])
        if row["method"] not in names:
            names.append(row["method"])
    return "; ".join(f"{_counted(counts)} ({', '.join(names)})" for counts, names in told.items())


def _counted(counts: Sequence[tuple[str, int]]) -> str:
    named = {
        "place": "localisation",
        "hide": "perturbation",
        "detail": "detail",
        "sanity": "random weights",
        "stable": "noise",
    }
    return ", ".join(f"{count} for {named[name]}" for name, count in counts if count and name in named)
