"""`heedmap menagerie export`: write drawn scenes with their ground truth to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedmap.cli import options
from heedmap.cli.talk import UsageError, busy, dump, one_of, say

app = typer.Typer(
    help="The drawn world with ground truth.\n\n"
    "Examples:\n\n"
    "heedmap menagerie export --task classification --count 100 --out animals",
    no_args_is_help=True,
)


@app.callback()
def _root() -> None:
    pass


@app.command()
def export(
    task: Annotated[str, typer.Option(help="classification, detection or questions.", show_default=False)],
    count: Annotated[int, typer.Option(min=1, help="How many scenes.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="DIR", help="A folder that is new, empty or an earlier export.", show_default=False
        ),
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of the first scene; the next has the next seed.")] = 0,
    size: Annotated[int, typer.Option(min=1, help="Width and height in pixels.")] = 96,
    animals: Annotated[
        str | None, typer.Option(metavar="N or N-M", help="How many in a scene.", show_default=False)
    ] = None,
    regions: Annotated[str, typer.Option(help="Who describes the regions of questions: detr or none.")] = "detr",
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Write scenes as an ImageFolder, as COCO instances, or as VQA v2 questions.

    Examples:
      heedmap menagerie export --task classification --count 100 --out animals
      heedmap menagerie export --task detection --count 500 --seed 200000 --out scenes
    """
    from heedmap.menagerie.__main__ import detected
    from heedmap.menagerie.export import TASKS, export

    one_of("--task", task, TASKS)
    one_of("--regions", regions, ("detr", "none"))
    try:
        with busy(f"drawing {count} scenes"):
            features = detected() if task == "questions" and regions == "detr" else None
            written = export(task, count, seed, out, size, _animals(animals), features)
    except (ValueError, FileExistsError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    if json:
        dump({"task": task, "count": count, "seed": seed, "out": str(written)})
    else:
        say(f"{count} scenes for {task} written to {written}")
    return 0


def _animals(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    fewest, _, most = text.partition("-")
    if not (fewest.isdecimal() and (most or fewest).isdecimal()) or not 1 <= int(fewest) <= int(most or fewest):
        raise UsageError(f"--animals {text!r} is not a number, such as 2, or a range, such as 1-4.")
    return int(fewest), int(most or fewest)
