"""`heedmap leaderboard`: every method on drawn scenes whose truth is known."""

from __future__ import annotations

import json as encoder
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from heedmap.cli import options
from heedmap.cli.files import Folder, beside
from heedmap.cli.models import known
from heedmap.cli.talk import FAILED, UsageError, console, dump, say, several, show, warn
from heedmap.errors import InputError

TITLE = "Leaderboard"
RECORDS = "records"
WORKERS = 2


def leaderboard(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="A model of the zoo; again for more.",
            show_default="vit, vit-deep, detr, lxmert, clip",
        ),
    ] = None,
    methods: Annotated[
        str, typer.Option(metavar="NAMES", help="Names with commas, such as heed,heed:positive,gae.")
    ] = "all",
    quick: Annotated[bool, typer.Option("--quick", help="On few scenes: minutes, and wide intervals.")] = False,
    scenes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=2, help="How many for localisation; the others follow in proportion.", show_default="500"
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where files go.")] = Path("out/leaderboard"),
    again: Annotated[bool, typer.Option("--again", help="Also measure what was measured before.")] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Measure every method on drawn scenes whose truth is known: where it points, what it keeps, what it costs.

    Writes leaderboard.md, leaderboard.json and leaderboard.html, a page whose tables can be sorted. What was measured
    before with the same options is kept: an interrupted run goes on where it stopped.

    Examples:
      heedmap leaderboard --quick
      heedmap leaderboard --model zoo:vit --methods heed,gae,rollout
    """
    sources = _models(model)
    names = _methods(methods)
    folder = Folder(out)
    from heedmap.evaluation.leaderboard import Job, board, contestants, counts, markdown, page, run

    held = Folder(folder.path / RECORDS).path
    jobs = [Job(one, name, counts(name, quick, scenes), held) for one in sources for name in contestants(names)]
    if again:
        for job in jobs:
            for measure in job.wanted:
                job.file(measure).unlink(missing_ok=True)
    began, failed = time.perf_counter(), {}
    with _progress(len(jobs), silent=json) as tell:

        def told(job: str, why: str) -> None:
            if why:
                failed[job] = why
            tell(job)

        run(jobs, min(WORKERS, os.cpu_count() or 1), told)
    for job, why in failed.items():
        warn(f"{job}: {why}")
    made = board(jobs, [_command(model, methods, quick, scenes)], quick)
    title = f"{TITLE}, quick run" if quick else TITLE
    files = {"md": markdown(made, title), "html": page(made, title), "json": encoder.dumps(made, indent=1) + "\n"}
    written = [str(folder.path / f"leaderboard.{ending}") for ending in files]
    for path, text in zip(written, files.values(), strict=True):
        with beside(Path(path)) as new:
            new.write_text(text, encoding="utf-8")
    if json:
        dump({**made, "files": written})
    else:
        _told(made)
        say(f"{len(jobs)} methods on models, {time.perf_counter() - began:.0f} s. {written[1]} is for a browser.")
        for path in written:
            say(f"  written: {path}")
    return FAILED if failed else 0


def _models(given: Sequence[str] | None) -> list[str]:
    from heedmap.evaluation.leaderboard.running import MODELS

    for one in given or ():
        if not one.startswith("zoo:"):
            raise UsageError(f"{one} does not know the drawn animals. --model expects some of {', '.join(MODELS)}.")
        known(one)
    return list(dict.fromkeys(given or MODELS))


def _methods(text: str) -> list[str]:
    """The methods that are named; none stands for all."""
    from heedmap.methods import method

    if text == "all":
        return []
    names = several("--methods", text)
    try:
        for name in names:
            method(name)
    except InputError as error:
        raise UsageError(str(error)) from error
    return names


def _command(model: Sequence[str] | None, methods: str, quick: bool, scenes: int | None) -> str:
    """What to type to have it again."""
    parts = ["heedmap", "leaderboard", *(part for one in model or () for part in ("--model", one))]
    parts += ["--methods", methods] if methods != "all" else []
    parts += ["--quick"] if quick else []
    parts += ["--scenes", str(scenes)] if scenes else []
    return shlex.join(parts)


def _told(made: dict[str, Any]) -> None:
    """The tables without their intervals, which the files have."""
    from rich.table import Table

    from heedmap.evaluation.leaderboard.board import COLUMNS, entered, left_out, models
    from heedmap.evaluation.leaderboard.tables import ARROWS, told

    for model in models(made):
        rows = entered(made, model)
        table = Table(box=None, pad_edge=False, header_style="bold", title=model, title_justify="left")
        table.add_column("method", no_wrap=True)
        for one in COLUMNS.values():
            table.add_column(f"{one.title} {ARROWS[one.better]}", justify="right")
        for row in rows:
            cells = [told(row["found"][name]["mean"], name) if name in row["found"] else "" for name in COLUMNS]
            table.add_row(row["method"], *cells)
        if rows:
            show(table)
        if less := left_out(made, model):
            say(f"{model}, left out: {', '.join(less)} (why: see the files).")
        say()


@contextmanager
def _progress(total: int, silent: bool) -> Iterator[Callable[[str], None]]:
    """A bar on standard error: how many methods on models are done."""
    if silent or not sys.stderr.isatty():
        yield lambda job: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console(err=True), redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total)
        yield lambda job: bar.update(task, description=job, advance=1)
