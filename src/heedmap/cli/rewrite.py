"""`heedmap rewrite`: how little of a picture has to change for a model to say something else."""

from __future__ import annotations

import json as jsons
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heedmap.cli import options
from heedmap.cli.files import Folder, beside, slug
from heedmap.cli.listing import table
from heedmap.cli.models import loaded
from heedmap.cli.numbers import numbers
from heedmap.cli.talk import FAILED, UsageError, busy, dump, one_of, say, show, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heedmap.experiments.rewrite import Rewriting
    from heedmap.experiments.surviving import Trial

NORMS = ("inf", "2")
ENDINGS = ("png", "sheet.png", "html", "json")
HOW = "How"  # panel of the help


def rewrite(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture.", show_default=False)],
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="LABEL", help="What the model is to say.", rich_help_panel=options.ASKED, show_default=False
        ),
    ],
    model: options.Source,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="LABEL",
            help="The answer that is left.",
            show_default="the prediction",
            rich_help_panel=options.ASKED,
        ),
    ] = None,
    step: Annotated[
        float,
        typer.Option(metavar="LEVELS", help="The largest change of a pixel in one step, of 255.", rich_help_panel=HOW),
    ] = 2.0,
    steps: Annotated[int, typer.Option(metavar="N", help="How many steps at most.", rich_help_panel=HOW)] = 200,
    bound: Annotated[
        float | None,
        typer.Option(
            metavar="LEVELS", help="How large the change may become.", show_default="no bound", rich_help_panel=HOW
        ),
    ] = None,
    norm: Annotated[
        str,
        typer.Option(
            metavar="inf|2",
            help="What is bounded: the change of each value, or the root of all their squares summed.",
            rich_help_panel=HOW,
        ),
    ] = "inf",
    confidence: Annotated[
        float, typer.Option(metavar="P", help="How probable the new answer is to become.", rich_help_panel=HOW)
    ] = 0.5,
    survival: Annotated[
        bool,
        typer.Option("--survival", help="Try whether it outlives JPEG and resizing.", rich_help_panel=options.WRITTEN),
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another model to show it to, such as zoo:vit-deep; again for more.",
            show_default=False,
            rich_help_panel=options.WRITTEN,
        ),
    ] = None,
    out: options.Out = None,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Rewrite what a picture is to a model: its pixels follow their gradient until the model says something else.

    This is for studying a weakness of a model: how little its answer may hang on what a person sees. It is not for
    passing off altered pictures. Written are the picture as PNG (without loss, and read again it is what was said), a
    sheet with the change made visible and explanations of before and after, the same as a page, and all numbers.

    Examples:
      heedmap rewrite savanna.png --from zebra --to elephant --model zoo:vit
      heedmap rewrite tusker.jpg --to "bull mastiff" --model google/vit-base-patch16-224 --bound 4
      heedmap rewrite savanna.png --to elephant --model zoo:vit --survival --also zoo:vit-deep
    """
    one_of("--norm", norm, NORMS)
    _check(source, to, step, steps, bound, confidence)
    folder = Folder(out or Path("out"), [picture]) if not json or out is not None else None
    chosen = loaded(model, device=device)
    others = [loaded(name, device=device) for name in also or []]
    from heedmap.errors import LabelError
    from heedmap.experiments.rewrite import rewrite as rewritten

    for other in others:
        _check_knows(other, to)
    try:
        with busy("rewriting"):
            found = rewritten(
                chosen,
                picture,
                _answer(to, chosen.labels),
                None if source is None else _answer(source, chosen.labels),
                step=step,
                steps=steps,
                bound=bound,
                norm=norm,
                confidence=confidence,
            )
    except LabelError as error:
        raise UsageError(str(error)) from error
    said = found.before.answers[0]
    if said.label != found.source:
        warn(f"{picture}: the model says {said.label} ({said.value:.1%}) of it, not {found.source}.")
    trials = _trials(found, chosen, others) if found.reached and (survival or others) else ()
    record = _record(picture, model, found, trials)
    files = _written(folder, picture, found, record, model) if folder is not None and found.reached else []
    if json:
        dump({**record, "files": files})
    if not found.reached:
        warn(f"{picture}: {found.message}{'' if folder is None else ' Nothing was written.'}")
        return FAILED
    if not json:
        _told(picture, found, trials, files)
    return 0


def _answer(text: str, labels: tuple[str, ...]) -> str | int:
    """A number is an index where it is no label."""
    return int(text) if text.isdecimal() and text not in labels else text


def _check(source: str | None, to: str, step: float, steps: int, bound: float | None, confidence: float) -> None:
    """What can be told without a model."""
    for option, text in (("--from", source), ("--to", to)):
        if text is not None and not text.strip():
            raise UsageError(f"{option} wants a label or an index. What was given is empty.")
    if source is not None and source.strip().casefold() == to.strip().casefold():
        raise UsageError(f"--from and --to are both {to!r}. Name two different answers.")
    if not 0 < step <= 255:
        raise UsageError(f"--step {step:g} is no number of levels. Give more than 0 and at most 255.")
    if steps < 1:
        raise UsageError(f"--steps {steps} changes nothing. Give at least 1.")
    if bound is not None and not bound >= 1:
        raise UsageError(f"--bound {bound:g} leaves nothing to change. Give at least 1 level of 255.")
    if not 0 <= confidence < 1:
        raise UsageError(f"--confidence {confidence:g} is no probability. Give one below 1, such as 0.95.")


def _check_knows(other: Any, to: str) -> None:
    """Another model is asked only about what it has a name for, and that is told before anything slow."""
    from heedmap.errors import LabelError
    from heedmap.experiments.rewrite import CLASSIFIES

    if other.task != CLASSIFIES:
        raise UsageError(f"--also {other.source} does {other.task}. Name a model that classifies pictures.")
    try:
        other.index(_answer(to, other.labels))
    except LabelError as error:
        raise UsageError(f"--also {other.source}: {error}") from error


def _trials(found: Rewriting, model: Any, others: Sequence[Any]) -> tuple[Trial, ...]:
    from heedmap.experiments.surviving import survival

    with busy("trying what it outlives"):
        return survival(found, model, others)


# ---- what is written


def _written(folder: Folder, picture: Path, found: Rewriting, record: dict[str, Any], model: str) -> list[str]:
    from heedmap.experiments.showing import page, sheet

    base = folder.name(f"{picture.stem[:100]}.{slug(found.source)}-to-{slug(found.to)}", ENDINGS)
    paths = {ending: base.with_name(f"{base.name}.{ending}") for ending in ENDINGS}
    with beside(paths["png"]) as path:
        found.image.save(path)
    with beside(paths["sheet.png"]) as path:
        sheet(found).save(path)
    with beside(paths["html"]) as path:
        path.write_text(page(found, model), encoding="utf-8")
    with beside(paths["json"]) as path:
        path.write_text(jsons.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [str(path) for path in paths.values()]


def _record(picture: Path, model: str, found: Rewriting, trials: Sequence[Trial]) -> dict[str, Any]:
    """Everything in numbers. A PSNR that is infinite is null."""
    finite = {name: value if math.isfinite(value) else None for name, value in found.numbers.items()}
    return {
        "picture": str(picture),
        "model": model,
        "from": found.source,
        "to": found.to,
        "reached": found.reached,
        "message": found.message,
        "steps": found.steps,
        "settings": asdict(found.settings),
        "change": finite,
        **{
            name: {
                "answers": [{"label": answer.label, "value": answer.value} for answer in reading.answers],
                "logits": {"from": reading.logits[0], "to": reading.logits[1]},
                "probabilities": {"from": reading.probabilities[0], "to": reading.probabilities[1]},
                "explanations": [numbers(explanation) for explanation in explained],
            }
            for name, reading, explained in (
                ("before", found.before, found.explained_before),
                ("after", found.after, found.explained_after),
            )
        },
        "survival": [asdict(trial) for trial in trials],
    }


# ---- what is said


def _told(picture: Path, found: Rewriting, trials: Sequence[Trial], files: Sequence[str]) -> None:
    from heedmap.experiments.showing import size

    say(f"{picture}: {found.message}")
    if found.steps:
        say(f"  {size(found)}")
        pairs = zip((found.source, found.to), found.before.logits, found.after.logits, strict=True)
        say(f"  logits: {', '.join(f'{name} {first:.2f} -> {last:.2f}' for name, first, last in pairs)}")
    if trials:
        show(table(("after", "the model says", f"{found.to}", "survived", "of the original it says"), [
            (trial.name, f"{trial.label} {trial.value:.1%}", f"{trial.probability:.1%}",
             "yes" if trial.survived else "no", trial.original)
            for trial in trials
        ]))  # fmt: skip
    for file in files:
        say(f"  written: {file}")
