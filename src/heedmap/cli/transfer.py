"""`heedmap transfer`: where attention goes when its weights descend an answer."""

from __future__ import annotations

import json as encoding
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heedmap.cli import options
from heedmap.cli.files import Folder, beside, slug
from heedmap.cli.models import loaded, reader
from heedmap.cli.talk import UsageError, busy, dump, say, warn
from heedmap.errors import LabelError

if TYPE_CHECKING:
    from heedmap.experiments.transfer import Transfer

DESCENT = "The descent"


def transfer(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture.", show_default=False)],
    *,
    model: options.Source,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="LABEL",
            help="The answer whose logit descends.",
            show_default="the prediction",
            rich_help_panel=options.ASKED,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="The answer that is watched beside it.",
            show_default="the next likeliest",
            rich_help_panel=options.ASKED,
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(metavar="X", help="How much of the gradient each step takes.", rich_help_panel=DESCENT)
    ] = 0.0004,
    steps: Annotated[int, typer.Option(metavar="N", min=0, help="How many steps.", rich_help_panel=DESCENT)] = 100,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Calls whose weights move, such as 0,1,2; `heedmap wiring` numbers them.",
            show_default="all",
            rich_help_panel=DESCENT,
        ),
    ] = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop once --to is likelier than --from.", rich_help_panel=DESCENT)
    ] = False,
    keep: Annotated[
        int, typer.Option(metavar="N", min=2, help="How many steps are drawn.", rich_help_panel=options.WRITTEN)
    ] = 8,
    out: options.Out = None,
    task: options.Task = None,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Let attention weights descend an answer's logit, and watch where attention goes.

    Only the attention weights of this one picture move; the model stays as it is. Comes out as a strip of pictures, an
    animation, a chart of both logits, a page, and the numbers.

    Examples:
      heedmap transfer savanna.png -m zoo:vit --from zebra --to elephant
      heedmap transfer savanna.png -m zoo:vit --from zebra --to elephant --layers 3,4,5 --steps 200
      heedmap transfer pets.jpg -m google/vit-base-patch16-224 --stop
    """
    free = _numbers(layers)
    _check(from_, to)
    if not rate > 0:
        raise UsageError(f"--rate {rate:g} descends nothing. Give a number above 0.")
    folder = Folder(out or Path("out"), [picture]) if not json or out else None
    chosen = loaded(model, task, device)
    image = reader(chosen)(picture)
    with busy(f"{steps} steps"):
        from heedmap.experiments.transfer import Step
        from heedmap.experiments.transfer import transfer as transferred

        def passed(step: Step) -> bool:
            return step.logits[1] > step.logits[0]

        try:
            done = transferred(
                chosen,
                image,
                _answer(from_, chosen.labels),
                _answer(to, chosen.labels),
                steps=steps,
                rate=rate,
                layers=free,
                until=passed if stop else None,
            )
        except LabelError as error:
            raise UsageError(str(error)) from error
    if stop and not passed(done.steps[-1]):
        warn(f"{done.other} did not pass {done.target} in {steps} steps. Give more --steps.")
    elif stop and steps and not done.steps[-1].number:
        warn(f"{done.other} is likelier than {done.target} from the first: nothing moved. Leave --stop out.")
    record = {"picture": str(picture), **done.numbers()}
    files = [] if folder is None else _write(folder, picture, done, keep, record)
    if json:
        dump({**record, "files": files})
        return 0
    _told(picture, done)
    for file in files:
        say(f"  written: {file}")
    return 0


def _check(target: str | None, other: str | None) -> None:
    """What can be told without a model."""
    for option, text in (("--from", target), ("--to", other)):
        if text is not None and not text.strip():
            raise UsageError(f"{option} wants a label or an index. What was given is empty.")
    if target is not None and other is not None and target.strip().casefold() == other.strip().casefold():
        raise UsageError(f"--from and --to are both {target!r}. Name two different answers.")


def _answer(text: str | None, labels: Sequence[str]) -> str | int | None:
    """A number is an index, unless it is a label."""
    return int(text) if text is not None and text.isdecimal() and text not in labels else text


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--layers {text!r} are not numbers of calls. Write them with commas, such as 0,1,2.")
    return [int(part) for part in parts]


def _write(folder: Folder, picture: Path, done: Transfer, keep: int, record: object) -> list[str]:
    from heedmap.experiments import filming

    writers: dict[str, Callable[[Path], object]] = {
        "png": lambda path: filming.strip(done, keep).save(path),
        "gif": lambda path: filming.animation(done, path),
        "chart.png": lambda path: filming.chart(done).save(path),
        "html": lambda path: path.write_text(filming.page(done, keep), encoding="utf-8"),
        "json": lambda path: path.write_text(
            encoding.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        ),
    }
    # A rewritten picture of the same two answers goes by their names alone.
    base = folder.name(f"{picture.stem[:100]}.{slug(done.target)}-to-{slug(done.other)}.transfer", writers)
    written = []
    with busy("drawing"):
        for ending, write in writers.items():
            path = base.with_name(f"{base.name}.{ending}")
            with beside(path) as new:
                write(new)
            written.append(str(path))
    return written


def _told(picture: Path, done: Transfer) -> None:
    first, last = done.steps[0], done.steps[-1]
    say(f"{picture}: from {done.target} to {done.other} in {last.number} steps of {done.rate:g}")
    for i, name in enumerate((done.target, done.other)):
        sure = f"{first.probability[i]:.1%} to {last.probability[i]:.1%}"
        say(f"  logit of {name}: {first.logits[i]:.2f} to {last.logits[i]:.2f} ({sure})")
    if first.centre and last.centre:
        begun, ended = (f"({x:.2f}, {y:.2f})" for x, y in (first.centre, last.centre))
        say(f"  centre of what speaks for {done.target}: {begun} to {ended}")
    say(f"  predicted: {first.predicted} at first, {last.predicted} at last")
