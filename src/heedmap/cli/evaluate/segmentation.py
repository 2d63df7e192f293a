"""`heedmap evaluate segmentation`: measure methods by how well they cut out what a detector finds."""

from __future__ import annotations

import json as encoding
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heedmap.cli import options
from heedmap.cli.files import Folder, beside, slug
from heedmap.cli.many import progress
from heedmap.cli.models import known, loaded
from heedmap.cli.talk import FAILED, UsageError, busy, dump, one_line, one_of, say, several, show, warn
from heedmap.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from heedmap.evaluation.coco import Collection
    from heedmap.evaluation.segmentation import Segmentation
    from heedmap.evaluation.statistics import Mean

ZOO = "zoo:"
SCENES = 500  # where nothing is said
SEED = 660_000  # of the first scene; no model of the zoo learned from it
BATCH = 16  # of drawn scenes, which are small
LOOKED_AT, CUT = "What is looked at", "How it is cut out"  # panels of the help
THRESHOLDS = ("otsu",)


def segmentation(
    *,
    model: options.Source,
    coco: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder of pictures whose objects are outlined: COCO's, or of `heedmap menagerie export`.",
            show_default=False,
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="COCO's instances of them.",
            show_default="annotations/instances*.json, if there",
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="The first so many of them.", show_default="all", rich_help_panel=LOOKED_AT
        ),
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Instead: so many drawn scenes, for models of the zoo.",
            show_default=str(SCENES),
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    methods: Annotated[
        str, typer.Option(metavar="NAMES", help="Names with commas.", rich_help_panel=options.ASKED)
    ] = "gae,odam,heed:absolute,heed:positive,heed:positive+noise,heed",
    sure: Annotated[
        float,
        typer.Option(
            metavar="P",
            min=0.0,
            max=1.0,
            help="How probable a query's class must be, and more.",
            rich_help_panel=options.ASKED,
        ),
    ] = 0.5,
    threshold: Annotated[
        str, typer.Option(metavar="NAME", help="What parts a map in two: otsu.", rich_help_panel=CUT)
    ] = "otsu",
    threshold_scale: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS", help="How much of that threshold is taken; several with commas.", rich_help_panel=CUT
        ),
    ] = "1.0",
    official: Annotated[
        bool,
        typer.Option(
            "--official", help="As the published code does it, masks half a cell too large.", rich_help_panel=CUT
        ),
    ] = False,
    out: options.Out = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default=f"{BATCH}; with --coco 1",
            help="How many pictures of one size go through the model at once.",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """How well what a method says of a detection cuts its object out, as COCO scores masks.

    Every query that is sure is explained, the map parted in two by Otsu's threshold, and the mask scored at overlaps
    from 0.2 on. Where an object has a neighbour of its own kind: how much of the relevance lies on which.

    Examples:
      heedmap evaluate segmentation --model zoo:detr --threshold-scale 1.0,0.3
      heedmap evaluate segmentation -m facebook/detr-resnet-50 --coco val2017/ --annotations instances_val2017.json
    """
    names, scales = _checked(methods, threshold, threshold_scale, sure)
    known(model)
    _check_looked_at(model, coco, annotations, limit, scenes)
    folder = Folder(out or Path("out")) if not json or out is not None else None
    chosen = loaded(model, None, device)
    from heedmap.evaluation import segmentation as measuring

    measuring.check_detector(chosen)
    collection = _collection(coco, annotations, limit, scenes)
    with progress(len(collection.pictures)) as step:
        result = measuring.segmentation(
            chosen,
            collection,
            names,
            scales,
            official=official,
            sure=sure,
            batch=batch or (BATCH if coco is None else 1),
            progress=step,
        )
    for name, why in result.skipped.items():
        warn(why if name in why else f"{name}: {why}")
    written = _written(folder, result) if folder else []
    if json:
        dump({**result.record(), "files": written})
    else:
        _told(result)
        for file in written:
            say(f"  written: {file}")
    return FAILED if result.skipped else 0


# ---- what was asked


def _checked(methods: str, threshold: str, scale: str, sure: float) -> tuple[list[str], list[float]]:
    """The methods and scales; whatever is wrong without a model is told before one is loaded."""
    from heedmap.evaluation.segmentation import check

    one_of("--threshold", threshold, THRESHOLDS)
    names = several("--methods", methods)
    scales = [_share(text) for text in several("--threshold-scale", scale)]
    if sure >= 1:
        raise UsageError(f"--sure {sure:g} leaves no query. Give a probability under 1, such as 0.5.")
    try:
        check(names, list(dict.fromkeys(scales)), sure)
    except InputError as error:
        raise UsageError(one_line(error)) from error
    return names, list(dict.fromkeys(scales))


def _share(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 256:
        raise UsageError(f"--threshold-scale {text!r} is no number over 0. Give a share of the threshold, such as 0.3.")
    return found


def _check_looked_at(
    model: str, coco: Path | None, annotations: Path | None, limit: int | None, scenes: int | None
) -> None:
    if coco is None and not model.startswith(ZOO) and scenes is None:
        raise UsageError("There is nothing to look at. Name a folder of pictures with their annotations: --coco.")
    if coco is not None and scenes is not None:
        raise UsageError("--coco and --scenes are both given. Name one of them.")
    if coco is not None and not coco.is_dir():
        raise UsageError(f"There is no folder {str(coco)!r}. --coco expects one with pictures.")
    for option, value in (("--annotations", annotations), ("--limit", limit)):
        if coco is None and value is not None:
            raise UsageError(f"{option} belongs to --coco; how many drawn scenes there are is told by --scenes.")
    if annotations is not None and not annotations.is_file():
        raise UsageError(f"There is no file {str(annotations)!r}. --annotations expects COCO's instances.")


def _collection(coco: Path | None, annotations: Path | None, limit: int | None, scenes: int | None) -> Collection:
    from heedmap.evaluation.coco import company, drawn, read

    if coco is None:
        return drawn(company(scenes or SCENES, SEED))
    with busy("reading the annotations"):
        return read(coco, annotations, limit)


# ---- what came of it


def _written(folder: Folder, result: Segmentation) -> list[str]:
    """A few finds as a picture, and all numbers."""
    from heedmap.evaluation.specimens import sheet

    endings = ("png", "json") if result.specimens else ("json",)
    base = folder.name(f"segmentation.{slug(result.model)}{'.official' if result.official else ''}", endings)
    paths = {ending: base.with_name(f"{base.name}.{ending}") for ending in endings}
    if result.specimens:
        with beside(paths["png"]) as new:
            sheet(result.specimens).save(new, "PNG")
    with beside(paths["json"]) as new:
        new.write_text(encoding.dumps(result.record(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [str(path) for path in paths.values()]


def _told(result: Segmentation) -> None:
    from heedmap.evaluation.coco_scores import NUMBERS

    say(_headline(result))
    for scale, found in result.scored.items():
        table = _table("method", *NUMBERS, "size", "AP, 95 %")
        for name, each in found.items():
            told = (_percent(each.values[number]) for number in NUMBERS)
            table.add_row(name, *told, _number(result.sizes[scale][name].value), _interval(each.number("AP")))
            if paper := result.paper(name, scale):
                table.add_row("  in the paper", *(f"{number:.1f}" for number in paper), style="dim")
        say(f"\n{_scaled(scale)}")
        show(table)
    _told_neighbours(result)
    say("\nIn percent, overlaps from 0.2 to 0.95. size: how large a mask is beside its object, which is 1.")
    counted = "as COCO has them" if result.coco else "of 2.8 to 25 cells of the model's grid, and of more"
    say(f"_m and _l are objects of medium and of large size, {counted}.")
    if any(name in ("heed", "heed:complete") for name in result.neighbours):
        say("Of a signed map (heed) the positive part is cut out.")


def _told_neighbours(result: Segmentation) -> None:
    from heedmap.evaluation.detections import PLACES

    if not result.companions:
        return
    gaps = any(result.gaps(name) for name in result.neighbours)
    table = _table("method", "itself", "same kind", "95 %", *(["less heed's"] if gaps else []), *PLACES[2:])
    for name, each in result.neighbours.items():
        kind, gap = each.share("same kind"), result.gaps(name).get("same kind")
        less = [f"{100 * gap.value:+.1f} ({_interval(gap, '+.1f')})" if gap else ""] if gaps else []
        rest = (_percent(each.share(place).value) for place in PLACES[2:])
        table.add_row(name, _percent(each.share("itself").value), _percent(kind.value), _interval(kind), *less, *rest)
    say(f"\nWhere what speaks for a find lies, of {_counted(result.companions, 'find')} with a neighbour of its kind")
    show(table)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    left = ("method", "95 %", "AP, 95 %", "less heed's")
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    return table


def _headline(result: Segmentation) -> str:
    told = (
        f"{result.model}: {_counted(result.pictures, 'picture')}, {_counted(result.objects, 'object')}, "
        f"{_counted(result.finds, 'find')} over {result.sure:.0%}"
    )
    left = f"; {len(result.skipped)} could not be read" if result.skipped else ""
    return f"{told}{left}. {'As the published code does it' if result.official else 'The clean protocol'}."


def _scaled(scale: float) -> str:
    return "Masks over Otsu's threshold" if scale == 1 else f"Masks over {scale:g} times Otsu's threshold"


def _percent(share: float) -> str:
    return _number(100 * share, ".1f")


def _number(value: float, form: str = ".2f") -> str:
    return "-" if isnan(value) else f"{value:{form}}"


def _interval(found: Mean, form: str = ".1f") -> str:
    return "-" if isnan(found.low) else f"{100 * found.low:{form}} to {100 * found.high:{form}}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
