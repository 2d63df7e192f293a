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
VERDICTS = {True: "holds", False: "does not hold", None: "not measured: pictures without ground truth"}


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="attention-and-gradient or heterogenous-attention, or a figure or table of it.",
            show_default=False,
        ),
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
    coco: Annotated[
        Path | None, typer.Option(metavar="DIR", help="COCO's pictures, for the tables.", show_default=False)
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Questions as VQA v2 has them, about --images.", show_default=False),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="COCO's instances, or the answers of --questions.", show_default=False),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Regions of the pictures, for a model that reads them.", show_default=False),
    ] = None,
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
      heedmap reproduce heterogenous-attention/table-1
    """
    from heedmap.reproduce import Setting, figures, make, report
    from heedmap.reproduce.papers import PAPERS
    from heedmap.reproduce.reports import findings

    try:
        wanted = figures(name)
    except InputError as error:
        raise UsageError(str(error)) from error
    photographs = pictures(images or [])
    _check_data({"coco": coco, "annotations": annotations, "questions": questions, "regions": regions})
    if model and not (photographs or coco or questions) and not model.startswith("zoo:"):
        raise UsageError(f"{model} does not know the drawn animals. Give --images to show it on.")
    if len(photographs) > PHOTOGRAPHS:
        warn(f"Of {len(photographs)} pictures the first {PHOTOGRAPHS} are shown.")
        photographs = photographs[:PHOTOGRAPHS]
    _check(photographs, guide)
    wanted = _fitting(wanted, model, device)
    paper = name.partition("/")[0]
    folder = Folder(out / paper)
    many, few = QUICK if quick else (SCENES, FEW)
    setting = Setting(
        scenes=scenes or many,
        few=max(2, scenes // 5) if scenes else few,
        model=model,
        images=tuple(photographs),
        guide=guide,
        device=device,
        coco=coco,
        annotations=annotations,
        questions=questions,
        regions=regions,
    )
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
        title = f"{PAPERS[paper].title}: the figures made anew"
        file.write_text(report(whole, folder.path, title, PAPERS[paper].note), encoding="utf-8")
    with beside(folder.path / "findings.md") as file:
        file.write_text(findings(whole), encoding="utf-8")
    if json:
        dump(records)
    else:
        say(f"Open {folder.path / 'index.html'} in a browser.")
    return 0 if len(records) == len(wanted) else FAILED


def _check(photographs: list[Path], guide: str) -> None:
    """What would spoil every figure is told before the first."""
    from heedmap.families.pictures import read
    from heedmap.guidance import guide as guiding

    try:
        guiding(guide)
    except InputError as error:
        raise UsageError(f"--guide: {error}") from error
    for path in photographs:
        read(path)


def _check_data(data: dict[str, Path | None]) -> None:
    for name, path in data.items():
        if path is not None and not path.exists():
            raise UsageError(f"There is no {str(path)!r}. --{name} expects it.")
    if (data["coco"] is None and data["questions"] is None) and data["annotations"] is not None:
        raise UsageError("--annotations belongs to --coco or to --questions. Give one of them too.")
    if data["coco"] is not None and data["annotations"] is None:
        raise UsageError("--coco is a folder of pictures. Give --annotations, the file that says what is in them, too.")


def _fitting(wanted: dict[str, Any], model: str | None, device: str | None) -> dict[str, Any]:
    """The figures that are of models like the one named."""
    from heedmap.reproduce.papers import DOES, tasks

    if model is None:
        return wanted
    known(model)
    task, needed = loaded(model, None, device).task, tasks(wanted)
    fitting = {name: figure for name, figure in wanted.items() if needed[name] == task}
    kinds = [DOES[other] for other in dict.fromkeys(needed.values()) if other != task]
    if not fitting:
        figures = "The figures are" if len(wanted) > 1 else "The figure is"
        raise UsageError(f"{model} does {task}. {figures} of models that {' or '.join(kinds)}.")
    if len(fitting) < len(wanted):
        warn(f"{model} does {task}. Figures of models that {' or '.join(kinds)} are left out.")
    return fitting


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
