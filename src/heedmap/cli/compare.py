"""`heedmap compare`: several methods on one picture, one row each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heedmap.cli import options
from heedmap.cli.drawing import write
from heedmap.cli.files import Folder, called, formats, slug
from heedmap.cli.listing import table
from heedmap.cli.many import cases, check_texts
from heedmap.cli.models import Wish, doubt, explained, given, known, loaded, reader, targets
from heedmap.cli.numbers import at, numbers
from heedmap.cli.talk import FAILED, UsageError, busy, dump, one_line, say, show, warn
from heedmap.errors import HeedmapError, LabelError

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation

ALL = "all"
OURS = "heed"  # in all of its forms where all methods are asked for; another's are asked for by name


def compare(
    picture: Annotated[
        Path | None,
        typer.Argument(metavar="PICTURE", help="The picture, for models that take one.", show_default=False),
    ] = None,
    *,
    model: options.Source,
    text: options.Text = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-T", help="The answer to explain; again for more columns.", show_default="prediction"
        ),
    ] = None,
    against: options.Against = None,
    loss: options.Loss = None,
    guide: options.Guide = None,
    side: options.Side = None,
    threshold: options.Threshold = 0.5,
    methods: Annotated[
        str,
        typer.Option(
            help="Names with commas, such as heed,heed:positive; all is every method, and every form of heed."
        ),
    ] = ALL,
    regions: options.Regions = None,
    out: options.Out = None,
    format: options.Formats = None,
    special: options.Special = False,
    task: options.Task = None,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Compare methods on one picture: a row for each method, a column for each answer.

    Without --target the prediction is explained; of a detector, every object it is sure of.

    Examples:
      heedmap compare savanna.png --model zoo:vit --target zebra
      heedmap compare savanna.png --model zoo:vit --target zebra --target elephant --methods heed,heed:positive
    """
    wish = Wish(targets(target), against, loss, guide=guide, side=side)
    known(model)
    paths = [picture] if picture else []
    check_texts(paths, text)
    endings = formats(format)
    folder = Folder(out or Path("out"), paths) if not json or out or format else None
    names = named(methods)
    wish = wish.read()
    chosen = loaded(model, task, device)
    case, *more = cases(paths, text, chosen)
    if more:
        raise UsageError(f"{len(more) + 1} texts were given. compare looks at one: give --text once.")
    thing = case.picture and reader(chosen, regions)(case.picture)
    shown = given(chosen, [thing], case.text, regions)
    wish = wish.among(chosen.labels)
    rows, refused = _rows(chosen, shown, wish, threshold, names)
    if not rows:
        for name, line in refused.items():
            warn(f"{name}: {line}")
        return FAILED
    if doubtful := doubt(next(iter(rows.values())), wish, threshold):
        warn(f"{case.name}: {doubtful}")
    results = {name: [numbers(each, special) for each in row] for name, row in rows.items()}
    agreement = _agreement(results)
    record = {
        "model": model,
        "picture": picture and str(picture),
        "results": results,
        "agreement": agreement,
        "failed": refused,
    }
    stem = picture.stem if picture else slug(case.name)
    first = next(iter(results.values()))
    answers = ["detections"] if wish.open and len(first) > 1 else [each["answer"] for each in first]
    name = called(stem, answers, "compared")
    written = [] if folder is None else write(folder, name, endings, rows, special, record)
    if json:
        dump({**record, "files": written})
    else:
        _introduced(case.name, first, wish)
        _told(results, agreement)
        for file in written:
            say(f"  written: {file}")
    # With "all", a method that this model does not admit is left out; one asked for by name has failed.
    if methods.strip() != ALL or not json:
        for line, unfit in by_reason(refused).items():
            warn(f"Left out: {', '.join(unfit)}. {line}")
    return FAILED if refused and methods.strip() != ALL else 0


def named(text: str) -> list[str]:
    """The methods that a list with commas names, each with its variant."""
    from heedmap.methods import METHODS, method

    if text.strip() == ALL:
        return [
            f"{name}:{variant}"
            for name, each in METHODS.items()
            for variant in (each.variants if name == OURS else list(each.variants)[:1])
        ]
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError("--methods is empty. Name some with commas, or all.")
    for name in names:
        try:
            method(name)
        except HeedmapError as error:
            raise UsageError(str(error)) from error
    return names


def _rows(
    model: Model, shown: Mapping[str, Any], wish: Wish, threshold: float, names: Sequence[str]
) -> tuple[dict[str, list[Explanation]], dict[str, str]]:
    """For each method its explanations, one per answer; and why a method has none."""
    rows, refused = {}, {}
    for name in names:
        with busy(name) as told:
            try:
                rows[name] = explained(model, shown, replace(wish, method=name), threshold, told)
            except LabelError as error:
                raise UsageError(str(error)) from error
            except HeedmapError as error:
                refused[name] = one_line(error)
    return rows, refused


def by_reason(refused: Mapping[str, str]) -> dict[str, list[str]]:
    """The methods of which the same is to be said."""
    told: dict[str, list[str]] = {}
    for name, line in refused.items():
        told.setdefault(_unnamed(line, name), []).append(name)
    return {line if len(names) > 1 else refused[names[0]]: names for line, names in told.items()}


def _unnamed(line: str, name: str) -> str:
    """What a method says of itself, so that others may say the same."""
    itself = rf"(^|\. )'?{re.escape(name.partition(':')[0])}(:[\w+-]+)?'?"
    line = re.sub(rf"{itself} takes", r"\1Each takes", line)
    return re.sub(rf"{itself} does not follow", r"\1None of these follows", line)


def _agreement(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[float | None]]:
    """The cosine between what each method and the first show of an answer; None where they speak of nothing alike."""
    first = [_shown(each) for each in next(iter(results.values()))]
    return {
        name: [_cosine(a, _shown(each)) for a, each in zip(first, row, strict=True)] for name, row in results.items()
    }


def _shown(found: Mapping[str, Any]) -> dict[tuple[str, str, int], float]:
    return {
        (stream["stream"], stream.get("part", ""), i): unit["value"]
        for stream in found["streams"] for i, unit in enumerate(stream["units"]) if unit["value"] is not None
    }  # fmt: skip


def _cosine(a: Mapping[Any, float], b: Mapping[Any, float]) -> float | None:
    """Over what both say something of: some methods know one stream only, or pixels."""
    both = [(a[unit], b[unit]) for unit in a if unit in b]
    if not both:
        return None
    lengths = math.hypot(*(x for x, _ in both)) * math.hypot(*(y for _, y in both))
    return sum(x * y for x, y in both) / lengths if lengths else 0.0


def _introduced(name: str, found: Sequence[Mapping[str, Any]], wish: Wish) -> None:
    """What is explained where nobody named it, and of a detector where it is."""
    boxed = [each for each in found if each["box"] is not None]
    what = f"{found[0]['answer']}, the prediction"
    if boxed:
        what = f"the {len(boxed)} objects it sees" if len(boxed) > 1 else "the object it is surest of"
    if wish.targets == (None,):
        say(f"{name}: {what} (no --target was given)")
    for each in boxed:
        say(f"  {each['answer']}{at(each['box'])}")


def _told(results: Mapping[str, Sequence[Mapping[str, Any]]], agreement: Mapping[str, Sequence[float | None]]) -> None:
    first = next(iter(results))
    show(table(("method", "answer", "value", "most for", "most against", "cosine"), [
        (name, each["answer"], f"{each['value']:.4g}", *_loudest(each), "-" if cosine is None else f"{cosine:.2f}")
        for name, row in results.items()
        for each, cosine in zip(row, agreement[name], strict=True)
    ]))  # fmt: skip
    if len(results) > 1:
        say(f"  cosine: how alike to {first}")


def _loudest(found: Mapping[str, Any]) -> tuple[str, str]:
    """The strongest unit for and the strongest against, of all streams."""
    units = [
        (unit["value"] / stream["peak"], unit["name"])
        for stream in found["streams"] if stream["peak"]
        for unit in stream["units"] if unit["value"] is not None
    ]  # fmt: skip
    best, worst = max(units, default=(0, "")), min(units, default=(0, ""))
    return best[1] if best[0] > 0 else "-", worst[1] if worst[0] < 0 else "-"
