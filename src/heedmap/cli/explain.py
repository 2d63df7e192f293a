"""`heedmap explain`: what speaks for an answer and against it, in each picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.cli import options
from heedmap.cli.drawing import write
from heedmap.cli.files import Folder, formats, pictures, slug
from heedmap.cli.many import Case, Tally, cases, check_texts, each
from heedmap.cli.models import Wish, example, given, loaded, reader
from heedmap.cli.numbers import numbers
from heedmap.cli.talk import FAILED, INTERRUPTED, UsageError, dump, say, show, warn

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation

ONE_NUMBER = "image-classification"  # answers that are no place in an output, so that pictures may go together
DETECTION = "object-detection"
SHOWN = 4  # pictures whose heat is drawn in the terminal


def explain(
    picture: options.Pictures = None,
    *,
    model: options.Source,
    text: options.Text = None,
    target: options.Target = None,
    against: options.Against = None,
    loss: options.Loss = None,
    correction: options.Correction = None,
    method: options.Method = None,
    prefix: options.Prefix = None,
    regions: options.Regions = None,
    threshold: options.Threshold = 0.5,
    out: options.Out = None,
    format: options.Formats = None,
    special: options.Special = False,
    quiet: options.Quiet = False,
    batch: options.Batch = 8,
    task: options.Task = None,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Explain an answer: what in the picture (or the words) speaks for it, and what against it.

    Without --target the prediction is explained; of a detector, every object it is sure of.

    Examples:
      heedmap explain savanna.png -m zoo:vit --target zebra
      heedmap explain savanna.png -m zoo:vit -T zebra --against elephant -f html
      heedmap explain photos/ -m facebook/detr-resnet-50 --out boxes
      heedmap explain room.png -m zoo:lxmert --text "is there a cat?"
      heedmap explain pet.png -m zoo:clip -t "a cat" -t "a dog" -T "a dog"
    """
    if target and len(target) > 1:
        raise UsageError("explain takes one --target. `heedmap compare` puts several beside one another.")
    wish = Wish(target[0] if target else None, against, loss, correction, method)
    paths = pictures(picture or [])
    writes = not json or out is not None or format is not None
    endings = formats(format)
    check_texts(paths, text)
    folder = Folder(out or Path("out"), paths) if writes else None
    wish.checked()
    chosen = loaded(model, task, device)
    wish = wish.among(chosen.labels)
    wanted = cases(paths, text, chosen)
    tally = Tally(debug=debug)
    report = _Report(folder, endings, special, wish, drawn=0 if quiet else SHOWN, silent=json)
    together = batch if chosen.task == ONE_NUMBER and (wish.target is not None or wish.against is None) else 1
    extras = {"regions": regions, "prefix": prefix}
    stopped = False
    try:
        each(
            wanted,
            reader(chosen, regions),
            lambda some, things: _explained(chosen, some, things, wish, extras, threshold),
            report.finish,
            tally,
            together,
        )
    except KeyboardInterrupt:
        stopped = True
    if json:
        dump(
            {
                "model": model,
                "task": chosen.task,
                "results": report.records,
                "failed": tally.failed,
                "interrupted": stopped,
            }
        )
    if (tally.failed or stopped) and len(wanted) > 1:
        warn(f"{tally.done} of {len(wanted)} done{'; interrupted' if stopped else ''}. What was written stays.")
    return INTERRUPTED if stopped else FAILED if tally.failed else 0


def _explained(
    model: Model,
    together: Sequence[Case],
    things: Sequence[Any],
    wish: Wish,
    extras: Mapping[str, Any],
    threshold: float,
) -> list[list[Explanation]]:
    """The explanations of each case: one, or of a detector one for each object where no target is named."""
    asked = wish.options()
    if model.task == DETECTION and wish.target is None and wish.against is None:
        found = model.explain_detections(things[0], threshold=threshold, **asked)
        if found:
            return [found]
        warn(
            f"{together[0].name}: no object is {threshold:.0%} sure (--threshold). Its surest one is explained instead."
        )
    explanation = model.explain(**given(model, things, together[0].text, **extras), **asked)
    return [[example(explanation, i)] for i in range(len(together))]


@dataclass
class _Report:
    """What is written and said of each case as it comes."""

    folder: Folder | None
    endings: tuple[str, ...]
    special: bool
    wish: Wish
    drawn: int  # how many are still drawn in the terminal
    silent: bool
    records: list[dict[str, Any]] = field(default_factory=list)

    def finish(self, case: Case, explanations: list[Explanation]) -> None:
        found = [numbers(explanation, self.special) for explanation in explanations]
        record: dict[str, Any] = {"picture": case.picture and str(case.picture), "explanations": found}
        files = self._write(case, explanations, record)
        self.records.append({**record, "files": files})
        if self.silent:
            return
        for each_found in found:
            say(_headline(case, each_found))
        if self.drawn > 0:
            from heedmap.render import terminal

            self.drawn -= 1
            show(*(terminal(explanation, special=self.special) for explanation in explanations))
        for file in files:
            say(f"  written: {file}")

    def _write(self, case: Case, explanations: list[Explanation], record: Any) -> list[str]:
        if self.folder is None:
            return []
        stem = case.picture.stem[:100] if case.picture else slug(case.name)
        said = [str(name) for name in (self.wish.method, self.wish.correction) if name]
        answer = record["explanations"][0]["answer"] if len(explanations) == 1 else "detections"
        name = ".".join([stem, *map(slug, (answer, *said))])
        return write(self.folder, name, self.endings, explanations, self.special, record)


def _headline(case: Case, found: dict[str, Any]) -> str:
    """What was explained, and that it was the prediction where nobody named a target."""
    prediction = " (the prediction: no --target was given)" if found["predicted"] is not None else ""
    return f"{case.name}: {found['answer']}{prediction}, {found['value']:.4g}"
