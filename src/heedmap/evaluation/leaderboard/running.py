"""Making the records of a board: one for each model, method and measure; what is there already is not made again."""

from __future__ import annotations

import json
import multiprocessing
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from heedmap.errors import HeedmapError
from heedmap.evaluation.leaderboard.kinds import trial
from heedmap.evaluation.leaderboard.measures import MEASURES, Found
from heedmap.evaluation.leaderboard.trials import Trial
from heedmap.evaluation.statistics import Mean, mean
from heedmap.methods import METHODS

MODELS = ("zoo:vit", "zoo:vit-deep", "zoo:detr", "zoo:lxmert", "zoo:clip")
ALSO = ("heed:positive", "heed:absolute", "heed:positive+noise", "bi:token-wise")  # beside every method's first variant
SEVERAL = ("bi", "dix", "ig", "lrp", "t-attr", "tam", "vit-cx")  # as long as tens of passes for one map
THOUSAND = ("flow", "tis")  # about a thousand
# On how many scenes each is measured (of cost: how often), by how many passes a method takes.
COUNTS: Mapping[str, Mapping[str, int]] = {
    "one": {"place": 500, "detail": 50, "hide": 100, "sanity": 10, "stable": 20, "cost": 5},
    "several": {"place": 100, "detail": 10, "hide": 30, "sanity": 4, "stable": 5, "cost": 2},
    "thousand": {"place": 30, "detail": 6, "hide": 30, "sanity": 2, "stable": 3, "cost": 1},
}
QUICK: Mapping[str, Mapping[str, int]] = {
    "one": {"place": 16, "detail": 6, "hide": 6, "sanity": 2, "stable": 2, "cost": 3},
    "several": {"place": 4, "detail": 0, "hide": 3, "sanity": 0, "stable": 2, "cost": 1},
    "thousand": {"place": 2, "detail": 0, "hide": 2, "sanity": 0, "stable": 0, "cost": 0},
}
LEAST = 2  # one scene has no interval

Tell = Callable[[str, str], None]


def contestants(named: Sequence[str] = ()) -> list[str]:
    """The methods that are compared: those named, or all."""
    if named:
        return list(named)
    every = []
    for name in METHODS:
        every += [name, *(each for each in ALSO if each.partition(":")[0] == name)]
    return every


def passes(method: str) -> str:
    name = method.partition(":")[0]
    return "thousand" if name in THOUSAND else "several" if name in SEVERAL else "one"


def counts(method: str, quick: bool = False, scenes: int | None = None) -> dict[str, int]:
    """On how many scenes each measure is taken of a method; `scenes` for localisation, and others in proportion."""
    table = QUICK if quick else COUNTS
    many = table[passes(method)]
    if scenes is None:
        return dict(many)
    more = scenes / table["one"]["place"]
    scaled = {name: most and max(LEAST, round(most * more)) for name, most in many.items()}
    return {**scaled, "cost": many["cost"]}


@dataclass(frozen=True)
class Job:
    """A method on a model: what of it is not in the folder yet is measured."""

    model: str
    method: str
    counts: Mapping[str, int]
    folder: Path

    def file(self, measure: str) -> Path:
        return self.folder / f"{_slug(self.model)}.{_slug(self.method)}.{measure}.json"

    def setting(self, measure: str) -> dict[str, Any]:
        """What the numbers depend on."""
        from heedmap import __version__

        named = {"model": self.model, "method": self.method, "measure": measure}
        return {**named, "version": __version__, "count": self.counts[measure]}

    def made(self, measure: str) -> dict[str, Any] | None:
        """The record of a measure, if it is there, whole and of this setting."""
        try:
            record = json.loads(self.file(measure).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("setting") == self.setting(measure) else None

    @property
    def wanted(self) -> list[str]:
        return [measure for measure, count in self.counts.items() if count]

    @property
    def missing(self) -> list[str]:
        return [measure for measure in self.wanted if self.made(measure) is None]

    def records(self) -> list[dict[str, Any]]:
        return [record for measure in self.wanted if (record := self.made(measure)) is not None]


def run(jobs: Sequence[Job], workers: int, tell: Tell = lambda job, failed: None) -> None:
    """Make what is missing, `workers` methods at a time; `tell` hears of each that is done, and what failed in it."""
    open_ = [job for job in jobs if job.missing]
    for job in jobs:
        if job not in open_:
            tell(f"{job.model} {job.method}", "")
    for job, failed in _done(sorted(open_, key=lambda job: passes(job.method) != "thousand"), workers):
        tell(f"{job.model} {job.method}", failed)


def _done(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, str]]:
    if workers < 2 or len(jobs) < 2:
        for job in jobs:
            yield job, measured(job)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_alone)
    try:
        waiting = {pool.submit(measured, job): job for job in jobs}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _alone() -> None:
    """One thread for each process, and silence: what a library warns of is not what was asked."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def measured(job: Job) -> str:
    """Write what is missing; what a method refuses is a record too. What failed otherwise is told, and not kept."""
    for measure in job.missing:
        began = time.perf_counter()
        record: dict[str, Any] = {"setting": job.setting(measure), "refused": None, "values": {}, "found": {}}
        try:
            values = MEASURES[measure].run(_trial(job.model), job.method, job.counts[measure])
        except HeedmapError as error:
            record["refused"] = " ".join(str(error).split())
        except Exception as error:  # a method of somebody's own: its failure is no reason to lose the others
            return f"{measure}: {type(error).__name__}: {' '.join(str(error).split())}"
        else:
            record["values"] = {name: [_number(each) for each in some] for name, some in values.items()}
            record["found"] = summed(values)
        record["seconds"] = round(time.perf_counter() - began, 2)
        _write(job.file(measure), json.dumps(record, ensure_ascii=False, allow_nan=False))
    return ""


def summed(values: Found) -> dict[str, dict[str, Any]]:
    """The mean of each column over scenes, with its interval."""
    return {name: plain(mean(some)) for name, some in values.items()}


def plain(one: Mean) -> dict[str, Any]:
    """As JSON has it: what is no number is null."""
    fields = {"mean": one.value, "low": one.low, "high": one.high}
    return {**{name: _number(value) for name, value in fields.items()}, "scenes": one.count}


@cache
def _trial(model: str) -> Trial:
    from heedmap.families import load

    return trial(load(model, device="cpu"))


def _number(value: float) -> float | None:
    return round(float(value), 6) if isfinite(value) else None


def _slug(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text).strip("-")


def _write(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
