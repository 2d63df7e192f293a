"""`heedmap evaluate perturbation`: measure methods on labelled pictures."""

from __future__ import annotations

import json as encoding
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heedmap.cli import options
from heedmap.cli.files import Folder, beside, slug
from heedmap.cli.many import progress
from heedmap.cli.models import known, loaded
from heedmap.cli.talk import FAILED, UsageError, console, dump, one_of, say, several, show, warn
from heedmap.errors import InputError

if TYPE_CHECKING:
    from heedmap.evaluation.folders import Labelled
    from heedmap.evaluation.perturbation import Perturbation
    from heedmap.evaluation.statistics import Mean
    from heedmap.families import Model

ZOO = "zoo:"
SCENES = 100  # where nothing is said
ROOMY = 76  # columns of a terminal that has room for accuracies beside the areas
SEED = 650_000  # of the first scene; no model of the zoo learned from it
LOOKED_AT, HIDDEN = "What is looked at", "What is hidden"  # panels of the help


def perturbation(
    *,
    model: options.Source,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder per class, or one folder and a list of what is what (ImageNet's validation set).",
            show_default=False,
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Instead: so many drawn scenes of one animal, for models of the zoo.",
            show_default=str(SCENES),
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="So many of the pictures, evenly over the classes.",
            show_default="all",
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    label_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What the classes' folders or numbers stand for: JSON, or two columns.",
            show_default=False,
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The list of what is what in one folder: picture and class, or a class a line.",
            show_default="LOC_val_solution.csv and the like, if there",
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(
            metavar="PICTURE",
            help="What stands beside every picture; menagerie:zebra is a drawn one. Its own class is left out.",
            show_default=False,
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    guide_label: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="The guide's class.",
            show_default="what the model sees in it",
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    side: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Where the guide stands: right, left, above, below.",
            show_default="right",
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Names with commas, such as heed,heed:positive,gae; random is a ranking by chance.",
            rich_help_panel=options.ASKED,
        ),
    ] = "heed,gae",
    predicted: Annotated[
        bool,
        typer.Option("--predicted", help="Explain the prediction instead of the label.", rich_help_panel=options.ASKED),
    ] = False,
    order: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="positive hides the most relevant first, negative the least.",
            rich_help_panel=HIDDEN,
        ),
    ] = "positive,negative",
    unit: Annotated[
        str, typer.Option(help="What is ranked and hidden: token or pixel.", rich_help_panel=HIDDEN)
    ] = "token",
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="mean (the processor's mean colour), zero (black), or drop (no token at all).",
            show_default="mean; of pixels zero",
            rich_help_panel=HIDDEN,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of what falls by chance: ties, random, --limit.", rich_help_panel=HIDDEN)
    ] = 0,
    out: options.Out = None,
    batch: options.Batch = 16,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """How fast a model forgets a picture's label while what a method ranks highest, or lowest, is hidden.

    The model is asked again at each tenth that is hidden; the area under its accuracy tells methods apart.

    Examples:
      heedmap evaluate perturbation --model zoo:vit --guide menagerie:zebra
      heedmap evaluate perturbation -m google/vit-base-patch16-224 --images val/ --limit 5000 --guide zebra.png
    """
    names, orders = _checked(methods, order, unit, mask)
    _check_side(side, guide)
    known(model)
    _check_looked_at(model, images, scenes, limit, label_map, truth, guide, guide_label)
    if guide is not None:
        _check_guide(guide)
    folder = Folder(out or Path("out")) if not json or out is not None else None
    chosen = loaded(model, None, device)
    from heedmap.evaluation import perturbation as measuring

    measuring.check_model(chosen)
    pictures = _pictures(chosen, images, scenes, limit, label_map, truth, seed)
    with progress(len(pictures)) as step:
        result = measuring.perturbation(
            chosen,
            pictures,
            names,
            orders,
            guide=guide,
            guide_label=guide_label,
            side=side or "right",
            mask=mask,
            unit=unit,
            batch=batch,
            seed=seed,
            target="predicted" if predicted else "label",
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


def _checked(methods: str, order: str, unit: str, mask: str | None) -> tuple[list[str], list[str]]:
    """The methods and orders that are named; whatever is wrong without a model is told before one is loaded."""
    from heedmap.evaluation.masking import MASKS, ORDERS
    from heedmap.evaluation.perturbation import UNITS, check_methods

    one_of("--unit", unit, tuple(UNITS))
    if mask is not None:
        one_of("--mask", mask, tuple(MASKS))
    if (unit, mask) == ("pixel", "drop"):
        raise UsageError(
            "--mask drop leaves tokens out, and a pixel is none. Take --mask zero or mean, or --unit token."
        )
    names, orders = several("--methods", methods), several("--order", order)
    for one in orders:
        one_of("--order", one, tuple(ORDERS))
    try:
        check_methods(names)
    except InputError as error:
        raise UsageError(f"{error} Beside them there is random.") from error
    return names, orders


def _check_side(side: str | None, guide: str | None) -> None:
    from heedmap.guidance import SIDES

    if side is None:
        return
    one_of("--side", side, tuple(SIDES))
    if guide is None:
        raise UsageError("--side says where a guide stands. Give --guide too.")


def _check_looked_at(
    model: str,
    images: Path | None,
    scenes: int | None,
    limit: int | None,
    label_map: Path | None,
    truth: Path | None,
    guide: str | None,
    guide_label: str | None,
) -> None:
    if images is None and not model.startswith(ZOO) and scenes is None:
        raise UsageError("There is nothing to look at. Name a folder of labelled pictures: --images.")
    if images is not None and scenes is not None:
        raise UsageError("--images and --scenes are both given. Name one of them.")
    if images is not None and not images.is_dir():
        raise UsageError(f"There is no folder {str(images)!r}. --images expects one with labelled pictures.")
    for option, value in (("--limit", limit), ("--label-map", label_map), ("--truth", truth)):
        if images is None and value is not None:
            raise UsageError(f"{option} belongs to --images; how many drawn scenes there are is told by --scenes.")
    for option, path in (("--label-map", label_map), ("--truth", truth)):
        if path is not None and not path.is_file():
            raise UsageError(f"There is no file {str(path)!r}. {option} expects one.")
    if guide is None and guide_label is not None:
        raise UsageError("--guide-label names the class of a guide. Give --guide too.")


def _check_guide(name: str) -> None:
    from heedmap.guidance import guide

    try:
        guide(name)
    except InputError as error:
        raise UsageError(f"--guide: {error}") from error


def _pictures(
    model: Model,
    images: Path | None,
    scenes: int | None,
    limit: int | None,
    label_map: Path | None,
    truth: Path | None,
    seed: int,
) -> list[Labelled]:
    from heedmap.evaluation import folders

    if images is None:
        return folders.scenes(scenes or SCENES, model.labels, SEED)
    return folders.labelled(images, model.labels, label_map, truth, limit, seed)


# ---- what came of it


def _written(folder: Folder, result: Perturbation) -> list[str]:
    """The curves as a picture, and all numbers."""
    from heedmap.evaluation.charts import chart

    base = folder.name(f"perturbation.{slug(result.model)}", ("png", "json"))
    paths = [base.with_name(f"{base.name}.{ending}") for ending in ("png", "json")]
    with beside(paths[0]) as new:
        chart(result).save(new, "PNG")
    with beside(paths[1]) as new:
        new.write_text(encoding.dumps(result.record(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [str(path) for path in paths]


def _told(result: Perturbation) -> None:
    from rich.table import Table

    from heedmap.evaluation.charts import BETTER
    from heedmap.evaluation.masking import MASKS
    from heedmap.evaluation.perturbation import RULE

    roomy = console().width >= ROOMY  # else the areas alone: all numbers are in the file
    some = range(0, len(result.steps), max(1, len(result.steps) // 3)) if roomy else ()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("order", "method", "AUC", "95 %", *(f"at {result.steps[i]:g}" for i in some)):
        table.add_column(name, justify="right" if name == "AUC" or name.startswith("at") else "left", no_wrap=True)
    orders = list(dict.fromkeys(one.order for one in result.curves))
    for one in sorted(result.curves, key=lambda one: orders.index(one.order)):
        auc = f"{one.auc.value:.1f}", _interval(one.auc, ".1f")
        table.add_row(one.order, one.method, *auc, *(f"{one.accuracy[i].value:.3f}" for i in some))
    say(_headline(result))
    show(table)
    for a, b, order, gap in result.differences():
        say(f"{order}: {a} - {b} = {gap.value:+.1f} ({_interval(gap, '+.1f')}), picture by picture")
    say(f"AUC: {RULE}; {', '.join(f'{BETTER[each]} in {each} order' for each in orders)}.")
    tenths = " At each fraction hidden: the accuracy." if some else ""
    say(f"Hidden: {result.unit}s, by {result.mask}: {MASKS[result.mask]}.{tenths}")


def _interval(found: Mean, form: str) -> str:
    return f"{found.low:{form}} to {found.high:{form}}" if found.count > 1 else "of one picture alone"


def _headline(result: Perturbation) -> str:
    told = f"{result.model}: {_counted(result.pictures)}"
    if result.guide:
        place = f"on the {result.side}" if result.side in ("left", "right") else result.side
        told += f", {result.guide} {place}"
    if result.left_out:
        told += f"; {_counted(result.left_out)} of {result.guide} left out"
    if result.skipped:
        told += f"; {len(result.skipped)} could not be read"
    return f"{told}. Explained: {'the prediction' if result.target == 'predicted' else 'the label'}."


def _counted(pictures: int) -> str:
    return f"{pictures:,} picture{'' if pictures == 1 else 's'}"
