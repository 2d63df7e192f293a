"""`heedmap reproduce`: a paper's figures, made anew and measured."""

from __future__ import annotations

import json as encoder
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from heedmap.cli import options
from heedmap.cli.files import Folder, beside, pictures
from heedmap.cli.models import known, loaded
from heedmap.cli.talk import FAILED, UsageError, console, dump, one_line, say, warn
from heedmap.errors import HeedmapError, InputError

SCENES, FEW, QUICK = 500, 100, (60, 12)
PHOTOGRAPHS = 8  # as many are shown
CLASSIFIES = "image-classification"
VERDICTS = {True: "holds", False: "does not hold", None: "not measured: pictures without ground truth"}


def reproduce(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="attention-and-gradient, or a figure of it.", show_default=False)
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where files go.")] = Path("out/reproduce"),
    quick: Annotated[bool, typer.Option("--quick", help="On fewer scenes: minutes, and wider intervals.")] = False,
    scenes: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="On how many scenes.", show_default=str(SCENES))
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Another model.", show_default="the zoo's")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(metavar="PICTURE", help="Your pictures, or a folder of them; again for more.", show_default=False),
    ] = None,
    guide: Annotated[
        str, typer.Option(metavar="PICTURE", help="What guides attention, where a figure needs it.")
    ] = "menagerie:zebra",
    again: Annotated[bool, typer.Option("--again", help="Also make what was made before.")] = False,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Make a paper's figures anew, and measure what they claim on drawn scenes whose truth is known.

    Each figure is a picture, a page and a JSON file with the claim, the numbers and whether it holds; all of them make
    a report. What was made before with the same options is kept: an interrupted run goes on where it stopped.

    A figure that cannot be made of your pictures is named on standard error and left out.

    Examples:
      heedmap reproduce attention-and-gradient --quick
      heedmap reproduce attention-and-gradient/figure-8
      heedmap reproduce attention-and-gradient/figure-5 --model google/vit-base-patch16-224 --images photos/
    """
    from heedmap.reproduce import Setting, figures, make, report
    from heedmap.reproduce.reports import findings

    try:
        wanted = figures(name)
    except InputError as error:
        raise UsageError(str(error)) from error
    photographs = pictures(images or [])
    if model and not photographs and not model.startswith("zoo:"):
        raise UsageError(f"{model} does not know the drawn animals. Give --images to show it on.")
    if len(photographs) > PHOTOGRAPHS:
        warn(f"Of {len(photographs)} pictures the first {PHOTOGRAPHS} are shown.")
        photographs = photographs[:PHOTOGRAPHS]
    _check(model, photographs, guide, device)
    paper, title = name.partition("/")[0], "Attention and gradient: the figures made anew"
    folder = Folder(out / paper)
    many, few = QUICK if quick else (SCENES, FEW)
    setting = Setting(scenes or many, max(2, scenes // 5) if scenes else few, model, tuple(photographs), guide, device)
    if again:
        for each in wanted:
            (folder.path / f"{each.rpartition('/')[2]}.json").unlink(missing_ok=True)
    records: list[dict[str, Any]] = []
    with _progress(len(wanted), silent=json) as tell:
        for each, figure in wanted.items():
            tell(each, 0.0)
            try:
                record = make(each, figure, folder.path, replace(setting, step=lambda share, e=each: tell(e, share)))
            except HeedmapError as error:  # one figure that cannot be made is no reason to lose the others
                warn(f"{each}: {one_line(error)}")
                continue
            records.append(record)
            if not json:
                say(f"{each}: {VERDICTS[record['holds']]} ({record['seconds']:.0f} s)")
    if not records:
        return FAILED
    whole = _whole(paper, folder.path, records)
    with beside(folder.path / "index.html") as file:
        file.write_text(report(whole, folder.path, title), encoding="utf-8")
    with beside(folder.path / "findings.md") as file:
        file.write_text(findings(whole), encoding="utf-8")
    if json:
        dump(records)
    else:
        say(f"Open {folder.path / 'index.html'} in a browser.")
    return 0 if len(records) == len(wanted) else FAILED


def _check(model: str | None, photographs: list[Path], guide: str, device: str | None) -> None:
    """What would spoil every figure is told before the first."""
    from heedmap.families.pictures import read
    from heedmap.guidance import guide as guiding

    try:
        guiding(guide)
    except InputError as error:
        raise UsageError(f"--guide: {error}") from error
    for path in photographs:
        read(path)
    if model is None:
        return
    known(model)
    task = loaded(model, None, device).task
    if task != CLASSIFIES:
        raise UsageError(f"{model} does {task}. The figures are of models that classify pictures.")


def _whole(paper: str, folder: Path, made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was made now, and what the folder has of the paper's other figures, in the paper's order."""
    from heedmap.reproduce import figures

    new = {record["figure"]: record for record in made}
    found = []
    for name in figures(paper):
        file = folder / f"{name.rpartition('/')[2]}.json"
        if name in new:
            found.append(new[name])
        elif file.exists():
            try:
                found.append(encoder.loads(file.read_text(encoding="utf-8")))
            except ValueError:
                warn(f"{file} is no record of a figure and was left out.")
    return found


@contextmanager
def _progress(total: int, silent: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error: told a figure and how far it has come, it shows how far all have."""
    if silent or not sys.stderr.isatty():
        yield lambda name, share: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    begun: list[str] = []
    with Progress(*columns, console=console(err=True), redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total)

        def tell(name: str, share: float) -> None:
            if name not in begun:
                begun.append(name)
            bar.update(task, description=name.rpartition("/")[2], completed=len(begun) - 1 + share)

        yield tell
