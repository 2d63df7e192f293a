"""`heedmap read`: what a model takes in of the words and of the picture, before either has heard of the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heedmap.cli import options
from heedmap.cli.drawing import write
from heedmap.cli.files import Folder, called, formats
from heedmap.cli.inspecting import FORMATS, Asked, Formats, Seen, index, looked_at
from heedmap.cli.models import loaded, reader
from heedmap.cli.numbers import numbers
from heedmap.cli.talk import UsageError, busy, dump, say
from heedmap.errors import LabelError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOUD = 5  # words and regions that are told


def read(
    picture: Seen,
    *,
    text: Asked,
    model: options.Source,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-T",
            metavar="LABEL",
            help="The answer whose gradient is taken, or its index.",
            show_default="the prediction",
            rich_help_panel=options.ASKED,
        ),
    ] = None,
    regions: options.Regions = None,
    out: options.Out = None,
    format: Formats = None,
    special: options.Special = False,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Show how a model reads a question and a picture, each by itself: before the first cross-attention.

    Which words it takes the question by, and which regions it sees at all, whatever is asked. Beside it stands the
    whole explanation, after words and regions have met. Both under absolute correction: red is heeded, for or against.

    Examples:
      heedmap read savanna.png --text "what colour is the zebra?" --model zoo:lxmert
      heedmap read menagerie:zebra,elephant --text "is there a zebra?" --model zoo:lxmert --target no
    """
    stem, seen = looked_at(picture, text, model)
    endings = formats(format, FORMATS)
    folder = Folder(out or Path("out"), [Path(picture)]) if not json or out or format else None
    chosen = loaded(model, device=device)
    from heedmap.experiments.reading import CORRECTION, reading

    thing = reader(chosen, regions)(seen) if isinstance(seen, Path) else seen
    what: dict[str, Any] = {"target": index(target, chosen.labels), "regions": regions}
    try:
        with busy("reading"):
            both = [
                reading(chosen, thing, text, **what),
                chosen.explain(thing, text, **what, correction=CORRECTION),
            ]
    except LabelError as error:
        raise UsageError(str(error)) from error
    told, whole = (numbers(each, special) for each in both)
    record = {"picture": picture, "model": model, "text": text, "reading": told, "whole": whole}
    name = called(stem, [text, whole["answer"]], "read")
    files = [] if folder is None else write(folder, name, endings, {text: both}, special, record)
    if json:
        dump({**record, "files": files})
        return 0
    said = ", the prediction" if target is None else ""
    say(f"{picture}: {text} ({whole['answer']}{said})")
    for stream in told["streams"]:
        say(f"  {stream['kind']}: {_shares(stream)}")
    for file in files:
        say(f"  written: {file}")
    return 0


def _shares(stream: Mapping[str, Any]) -> str:
    """The loudest units and their shares of all that flowed from their stream."""
    units = sorted(stream["units"], key=lambda unit: -abs(unit["value"]))
    whole = sum(abs(unit["value"]) for unit in units)
    if not whole:
        return "nothing flowed"
    more = f", and {len(units) - LOUD} more" if len(units) > LOUD else ""
    return ", ".join(f"{unit['name']} {abs(unit['value']) / whole:.0%}" for unit in units[:LOUD]) + more
