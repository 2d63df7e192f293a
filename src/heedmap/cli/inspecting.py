"""`heedmap inspect`: does each region of a picture speak for the answer that it should?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heedmap.cli import options
from heedmap.cli.drawing import write
from heedmap.cli.files import Folder, called, formats, slug
from heedmap.cli.models import CORRECTIONS, known, loaded, reader
from heedmap.cli.numbers import numbers
from heedmap.cli.talk import UsageError, busy, dump, one_of, say
from heedmap.errors import HeedmapError, LabelError

if TYPE_CHECKING:
    from heedmap.experiments.inspection import Inspection, Voice

DRAWN = "menagerie:"
FORMATS = "png,html"
REGIONS, WORDS = 8, 3  # as many are told

Asked = Annotated[
    str,
    typer.Option(
        "--text",
        "-t",
        metavar="TEXT",
        help="The question.",
        show_default=False,
        rich_help_panel=options.ASKED,
    ),
]
Seen = Annotated[
    str,
    typer.Argument(
        metavar="PICTURE",
        help="A picture, or menagerie:zebra,elephant and the like for a drawn one.",
        show_default=False,
    ),
]
Formats = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="NAMES",
        help="png, svg, html, json, heed; several with commas.",
        show_default=FORMATS,
        rich_help_panel=options.WRITTEN,
    ),
]


def inspect(
    picture: Seen,
    *,
    text: Asked,
    model: options.Source,
    answers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Two answers that both fit the question: red speaks for the first, blue for the second.",
            show_default="the two likeliest",
            rich_help_panel=options.ASKED,
        ),
    ] = None,
    correction: options.Correction = None,
    regions: options.Regions = None,
    out: options.Out = None,
    format: Formats = None,
    special: options.Special = False,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Inspect a model's logic: what in the picture speaks for one answer, and what for the other.

    Side by side stand the logit of the first answer, and its difference to the second's. Alone, a logit can fall in
    favour of any answer; the difference says which regions and words decide between the two.

    Examples:
      heedmap inspect savanna.png --text "is there a zebra and a dog?" --answers yes,no --model zoo:lxmert
      heedmap inspect menagerie:zebra,elephant --text "is there a zebra?" --model zoo:lxmert
    """
    pair = split(answers)
    if correction is not None:
        one_of("--correction", correction, CORRECTIONS)
    stem, seen = looked_at(picture, text, model)
    endings = formats(format, FORMATS)
    folder = Folder(out or Path("out"), [Path(picture)]) if not json or out or format else None
    chosen = loaded(model, device=device)
    from heedmap.experiments.inspection import inspect as inspected

    thing = reader(chosen, regions)(seen) if isinstance(seen, Path) else seen
    named = pair and [index(each, chosen.labels) for each in pair]
    try:
        with busy("inspecting"):
            found = inspected(chosen, thing, text, named, correction=correction, regions=regions)
    except LabelError as error:
        raise UsageError(str(error)) from error
    both = [found.alone, found.difference]
    record = _record(picture, model, found, special)
    name = called(stem, [text, *found.answers], "inspected")
    files = [] if folder is None else write(folder, name, endings, {text: both}, special, record)
    if json:
        dump({**record, "files": files})
        return 0
    _told(picture, found)
    for file in files:
        say(f"  written: {file}")
    return 0


# ---- what is asked


def split(answers: str | None) -> list[str] | None:
    """The two answers that a list with a comma names."""
    if answers is None:
        return None
    pair = [each.strip() for each in answers.split(",")]
    if len(pair) != 2 or not all(pair) or pair[0].casefold() == pair[1].casefold():
        raise UsageError(f"--answers {answers!r} is not two answers that differ. Give two with a comma: yes,no.")
    return pair


def index(answer: str | None, labels: Sequence[str]) -> Any:
    """A number is an index where it is no label."""
    return int(answer) if answer is not None and answer.isdecimal() and answer not in labels else answer


def looked_at(picture: str, text: str, model: str) -> tuple[str, Any]:
    """What a file is called after, and the picture: a path, or a drawn one."""
    known(model)
    if not text.strip():
        raise UsageError("--text is empty. Write a question.")
    if not picture.startswith(DRAWN):
        return Path(picture).stem, Path(picture)
    from heedmap import menagerie
    from heedmap.guidance.guides import SEED

    kinds = [kind.strip() for kind in picture.removeprefix(DRAWN).split(",")]
    try:
        return slug("-".join(kinds)), menagerie.scene(kinds, SEED).image
    except (ValueError, HeedmapError) as error:
        raise UsageError(str(error)) from error


# ---- what is said


def _told(picture: str, found: Inspection) -> None:
    a, b = found.answers
    said = f"{found.given.label} ({found.given.value:.1%})"
    shares = ", ".join(f"{name} {share:.1%}" for name, share in zip((a, b), found.probabilities, strict=True))
    say(f"{picture}: {found.text}")
    say(
        f"  the model says {said}" + (f"; of the two: {shares}" if found.given.label in (a, b) else f", not {a} or {b}")
    )
    say(f"  {a} rather than {b}, {float(found.difference.value):+.2f}:")
    for voice in found.regions[:REGIONS]:
        say(f"    {_voice(voice)}")
    if len(found.regions) > REGIONS:
        say(f"    and {len(found.regions) - REGIONS} quieter ones")
    words = found.words
    more = f", and {len(words) - WORDS} quieter ones" if len(words) > WORDS else ""
    say(f"  of the words: {', '.join(map(_voice, words[:WORDS]))}{more}")


def _voice(voice: Voice) -> str:
    return f"{voice.name} speaks for {voice.answer} ({voice.share:.0%})"


def _record(picture: str, model: str, found: Inspection, special: bool) -> dict[str, Any]:
    return {
        "picture": picture,
        "model": model,
        "text": found.text,
        "says": {"label": found.given.label, "probability": found.given.value},
        "answers": [
            {"label": name, "probability": share}
            for name, share in zip(found.answers, found.probabilities, strict=True)
        ],
        "regions": _voices(found.regions),
        "words": _voices(found.words),
        "explanations": [numbers(each, special) for each in (found.alone, found.difference)],
    }


def _voices(voices: Sequence[Voice]) -> list[dict[str, Any]]:
    return [{"name": v.name, "speaks for": v.answer, "share": v.share, "value": v.value} for v in voices]
