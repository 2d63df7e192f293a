"""`heedmap evaluate questions`: measure methods on questions about pictures."""

from __future__ import annotations

import json as encoding
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heedmap.cli import options
from heedmap.cli.files import Folder, beside, slug
from heedmap.cli.many import progress
from heedmap.cli.models import known, loaded
from heedmap.cli.talk import FAILED, UsageError, busy, console, dump, one_of, say, several, show, warn
from heedmap.errors import InputError

if TYPE_CHECKING:
    from heedmap.evaluation.asked import Asked
    from heedmap.evaluation.questions import Removal
    from heedmap.evaluation.statistics import Mean
    from heedmap.evaluation.stores import Store

ZOO = "zoo:lxmert"
COUNT = 100  # where nothing is said
ROOMY = 100  # columns of a terminal that has room for accuracies beside the areas
SEED = 650_000  # of the first drawn question; no model of the zoo learned from it
SOME = (0, 2, 8)  # steps that the terminal shows
LOOKED_AT, REMOVED = "What is asked about", "What is removed"  # panels of the help

File = Path | None


def questions(
    *,
    model: options.Source,
    count: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help=f"So many drawn questions, for {ZOO}.",
            show_default=str(COUNT),
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    questions: Annotated[
        File,
        typer.Option(
            metavar="FILE",
            help="Instead: VQA v2's questions, or LXMERT's own list (valid.json).",
            show_default=False,
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    annotations: Annotated[
        File,
        typer.Option(metavar="FILE", help="VQA v2's answers to them.", show_default=False, rich_help_panel=LOOKED_AT),
    ] = None,
    regions: Annotated[
        File,
        typer.Option(
            metavar="FILE",
            help="Features of the pictures' regions: bottom-up-attention .tsv, or .npz with image_id.",
            show_default=False,
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The pictures, where zoo:lxmert has the zoo's detector find their regions.",
            show_default=False,
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    answers: Annotated[
        File,
        typer.Option(
            metavar="FILE",
            help="What the model's answers are called, in its order: a JSON list, or one a line.",
            show_default="the model's own, or trainval_label2ans.json if there",
            rich_help_panel=LOOKED_AT,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="So many of the questions.", show_default="all", rich_help_panel=LOOKED_AT
        ),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Names with commas; random is a ranking by chance.", rich_help_panel=options.ASKED
        ),
    ] = "heed,heed:positive,heed:absolute,gae,odam,random",
    lead: Annotated[
        bool,
        typer.Option(
            "--lead",
            help="Explain by how much the likeliest answer leads the next, not its logit.",
            rich_help_panel=options.ASKED,
        ),
    ] = False,
    modality: Annotated[
        str, typer.Option(metavar="NAMES", help="image removes regions, text words.", rich_help_panel=REMOVED)
    ] = "image,text",
    order: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="positive removes the most relevant first, negative the least.",
            rich_help_panel=REMOVED,
        ),
    ] = "positive,negative",
    seed: Annotated[
        int, typer.Option(min=0, help="Of what falls by chance: ties, random, --limit.", rich_help_panel=REMOVED)
    ] = 0,
    out: options.Out = None,
    batch: options.Batch = 32,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """How fast a model forgets an answer while regions, or words, are removed as a method ranks them.

    The model is asked again with 25 to 100 % removed; the area under its soft accuracy tells methods apart.

    Examples:
      heedmap evaluate questions --model zoo:lxmert --count 500
      heedmap evaluate questions -m unc-nlp/lxmert-vqa-uncased --questions valid.json --regions val2014_obj36.tsv
    """
    names, modalities, orders = _checked(methods, modality, order)
    known(model)
    _check_looked_at(model, count, questions, annotations, regions, images, answers, limit)
    folder = Folder(out or Path("out")) if not json or out is not None else None
    chosen = loaded(model, None, device)
    from heedmap.evaluation import asked as reading
    from heedmap.evaluation import questions as measuring

    measuring.check_model(chosen)
    with busy("reading the questions"):
        wanted, store, told = _asked(count, questions, annotations, regions, images, limit, seed)
        labels = reading.labels(chosen.labels, measuring.classes(chosen), answers, questions)
    with progress(len(wanted)) as step:
        result = measuring.removal(
            chosen,
            wanted,
            store,
            names,
            modalities,
            orders,
            labels=labels,
            target="lead" if lead else "answer",
            batch=batch,
            seed=seed,
            progress=step,
        )
    for name, why in result.skipped.items():
        warn(why if name in why else f"{name}: {why}")
    written = _written(folder, result) if folder else []
    if json:
        dump({**result.record(), "files": written})
    else:
        _told(result, told)
        for file in written:
            say(f"  written: {file}")
    return FAILED if result.skipped else 0


# ---- what was asked


def _checked(methods: str, modality: str, order: str) -> tuple[list[str], list[str], list[str]]:
    """What is named; whatever is wrong without a model is told before one is loaded."""
    from heedmap.evaluation.masking import ORDERS
    from heedmap.evaluation.perturbation import check_methods
    from heedmap.evaluation.removing import MODALITIES

    names = several("--methods", methods)
    modalities, orders = several("--modality", modality), several("--order", order)
    for option, given, there in (("--modality", modalities, MODALITIES), ("--order", orders, ORDERS)):
        for one in given:
            one_of(option, one, tuple(there))
    try:
        check_methods(names)
    except InputError as error:
        raise UsageError(f"{error} Beside them there is random.") from error
    return names, modalities, orders


def _check_looked_at(
    model: str,
    count: int | None,
    questions: File,
    annotations: File,
    regions: File,
    images: Path | None,
    answers: File,
    limit: int | None,
) -> None:
    if questions is not None and count is not None:
        raise UsageError("--questions and --count are both given. Name one of them.")
    if questions is None:
        if model != ZOO:
            raise UsageError(f"Drawn questions are for {ZOO}. Name a file of questions: --questions.")
        given = {"--annotations": annotations, "--regions": regions, "--images": images, "--answers": answers}
        for option, value in {**given, "--limit": limit}.items():
            if value is not None:
                raise UsageError(f"{option} belongs to --questions; how many drawn questions there are is --count.")
        return
    files = {"--questions": questions, "--annotations": annotations, "--regions": regions, "--answers": answers}
    for option, path in files.items():
        if path is not None and not path.is_file():
            raise UsageError(f"There is no file {str(path)!r}. {option} expects one.")
    if images is not None and not images.is_dir():
        raise UsageError(f"There is no folder {str(images)!r}. --images expects one with pictures.")
    if images is not None and regions is not None:
        raise UsageError("--images and --regions both say what is in the pictures. Name one of them.")
    if regions is None and model != ZOO:
        raise UsageError(f"{model} reads regions of pictures, not pixels. Name the file that has them: --regions.")
    if regions is None and images is None:
        raise UsageError("There is nothing to look at. Name the pictures' regions (--regions) or them (--images).")


def _asked(
    count: int | None,
    questions: File,
    annotations: File,
    regions: File,
    images: Path | None,
    limit: int | None,
    seed: int,
) -> tuple[list[Asked], Store, str]:
    """The questions, where the regions of their pictures are, and what was left out."""
    from heedmap.evaluation import asked, stores

    if questions is None:
        found, pictures = asked.drawn(count or COUNT, SEED)
        return found, stores.Described(pictures), ""
    store = stores.store(regions) if regions is not None else stores.Described(stores.folder(images or Path()))
    there, left = stores.asked_about(store, questions, annotations)
    told = "".join(f"; left out: {number:,} {why}" for why, number in left.items())
    return asked.some(there, limit, seed), store, told


# ---- what came of it


def _written(folder: Folder, result: Removal) -> list[str]:
    """The curves as a picture, and all numbers."""
    from heedmap.evaluation.panels import panels

    base = folder.name(f"questions.{slug(result.model)}", ("png", "json"))
    paths = [base.with_name(f"{base.name}.{ending}") for ending in ("png", "json")]
    with beside(paths[0]) as new:
        panels(result).save(new, "PNG")
    with beside(paths[1]) as new:
        new.write_text(encoding.dumps(result.record(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [str(path) for path in paths]


def _told(result: Removal, left_out: str) -> None:
    from rich.table import Table

    from heedmap.evaluation.charts import BETTER
    from heedmap.evaluation.questions import RULE, TARGETS
    from heedmap.evaluation.removing import STEPS

    many = f"{result.questions:,} question{'' if result.questions == 1 else 's'}"
    skipped = f"; {len(result.skipped)} could not be asked" if result.skipped else ""
    say(f"{result.model}: {many}{left_out}{skipped}. Explained: {TARGETS[result.target]}.")
    some = SOME if console().width >= ROOMY else ()  # else the areas alone: all numbers are in the file
    first, *others = dict.fromkeys(one.method for one in result.curves)
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = "modality", "order", "method", "AUC", "95 %", *(f"at {STEPS[i]:g}" for i in some)
    for name in (*columns, *([f"less {first}"] if others else [])):
        table.add_column(name, justify="right" if name == "AUC" or name.startswith("at") else "left", no_wrap=True)
    for modality, order in result.panels:
        panel = result.panel(modality, order)
        for one in panel:
            row = [modality, order, one.method, f"{one.auc.value:.1f}", _interval(one.auc, ".1f")]
            row += [f"{one.accuracy[i].value:.3f}" for i in some]
            if panel[0].method == first != one.method:
                gap = result.difference(one.method, first, modality, order)
                row.append(f"{gap.value:+.1f} ({_interval(gap, '+.1f')})")
            table.add_row(*row)
    show(table)
    for name, of in result.silent.items():
        say(f"{name} says nothing of {' and '.join(of)}, and is left out there.")
    orders = dict.fromkeys(order for _, order in result.panels)
    if others:
        say("Differences are taken question by question.")
    say(f"AUC: {RULE}; {', '.join(f'{BETTER[each]} in {each} order' for each in orders)}.")


def _interval(found: Mean, form: str) -> str:
    return f"{found.low:{form}} to {found.high:{form}}" if found.count > 1 else "of one question alone"
