"""`heedmap predict`: what a model answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from heedmap.cli import options
from heedmap.cli.files import pictures
from heedmap.cli.many import Case, Tally, cases, check_texts, each
from heedmap.cli.models import given, loaded, reader
from heedmap.cli.numbers import at
from heedmap.cli.talk import FAILED, INTERRUPTED, dump, say


def predict(
    picture: options.Pictures = None,
    *,
    model: options.Source,
    text: options.Text = None,
    top: Annotated[int, typer.Option(min=1, help="How many answers.")] = 5,
    prefix: options.Prefix = None,
    regions: options.Regions = None,
    batch: options.Batch = 8,
    task: options.Task = None,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Say what the model answers, with probabilities.

    Examples:
      heedmap predict savanna.png --model zoo:vit
      heedmap predict photos/ --model facebook/detr-resnet-50 --json
      heedmap predict --model ./my-bert --text "what a wonderful film"
    """
    paths = pictures(picture or [])
    check_texts(paths, text)
    chosen = loaded(model, task, device)
    wanted = cases(paths, text, chosen)
    tally = Tally(debug=debug)
    records: list[dict[str, Any]] = []

    def finish(case: Case, answers: Sequence[Any]) -> None:
        records.append({
            "picture": case.picture and str(case.picture),
            "text": case.text,
            "answers": [{"label": a.label, "value": a.value, "box": a.box} for a in answers],
        })  # fmt: skip
        if not json:
            _told(case, answers)

    stopped = False
    try:
        each(
            wanted,
            reader(chosen, regions),
            lambda some, things: chosen.predict(**given(chosen, things, some[0].text, regions, prefix), top=top),
            finish,
            tally,
            batch if chosen.task == "image-classification" else 1,
        )
    except KeyboardInterrupt:
        stopped = True
    if json:
        dump({"model": model, "task": chosen.task, "results": records, "failed": tally.failed, "interrupted": stopped})
    return INTERRUPTED if stopped else FAILED if tally.failed else 0


def _told(case: Case, answers: Sequence[Any]) -> None:
    say(case.name)
    if not answers:
        say("          nothing found")
    for answer in answers:
        say(f"  {100 * answer.value:5.1f} %  {answer.label}{at(answer.box)}")
