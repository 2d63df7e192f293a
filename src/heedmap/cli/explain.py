"""`heedmap explain`: what speaks for an answer and against it, in each picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.cli import options, produce
from heedmap.cli.drawing import write
from heedmap.cli.files import Folder, called, formats, pictures, slug
from heedmap.cli.many import Case, Tally, cases, check_texts, each
from heedmap.cli.models import Wish, caution, doubt, example, explained, given, known, loaded, reader, targets
from heedmap.cli.numbers import at, numbers, tell_sinks
from heedmap.cli.talk import FAILED, INTERRUPTED, UsageError, busy, dump, say, show, warn

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation

ONE_NUMBER = "image-classification"  # answers that are no place in an output, so that pictures may go together
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
    guide: options.Guide = None,
    side: options.Side = None,
    prefix: options.Prefix = None,
    chat: options.Chat = False,
    system: options.System = None,
    generate: options.Generate = None,
    word: options.Word = None,
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

    Without --target the prediction is explained; of a detector, every object it is sure of. Several targets stand
    beside one another. With --generate a model that writes does so, and each word of its answer is explained.

    Examples:
      heedmap explain savanna.png -m zoo:vit -T zebra -T elephant
      heedmap explain savanna.png -m zoo:vit -T zebra --against elephant -f html
      heedmap explain snail.png -m zoo:vit --guide menagerie:zebra
      heedmap explain photos/ -m facebook/detr-resnet-50 --out boxes
      heedmap explain room.png -m zoo:lxmert --text "is there a cat?"
      heedmap explain pet.png -m zoo:clip -t "a cat" -t "a dog" -T "a dog"
      heedmap explain -m Helsinki-NLP/opus-mt-en-de -t "the zebra sleeps" --generate 30 -f html
      heedmap explain room.png -m Qwen/Qwen2-VL-2B-Instruct -t "is there a zebra?" --generate 12 -f html
      heedmap explain -m Qwen/Qwen2.5-0.5B-Instruct -t "what sleeps?" --chat --generate 30 --against "An owl does."
    """
    wish = Wish(targets(target), against, loss, correction, method, guide, side)
    if generate is not None:
        produce.check(wish)
    if system is not None and not chat:
        raise UsageError("--system is what a model is told before --chat. Give --chat too.")
    if word is not None and generate is None:
        raise UsageError("--word is one of those that a model writes. Give --generate too.")
    known(model)
    paths = pictures(picture or [])
    writes = not json or out is not None or format is not None
    endings = formats(format)
    check_texts(paths, text)
    folder = Folder(out or Path("out"), paths) if writes else None
    wish = wish.checked().read()
    chosen = loaded(model, task, device)
    if chat and not getattr(chosen.processor.text, "chat_template", None):
        raise UsageError(f"{model} has no chat template: it was not made for conversations. Leave --chat out.")
    extras = {"regions": regions, "prefix": prefix, "chat": chat, "system": system}
    if generate is not None:
        shown = produce.Report(folder, endings, special, wish, quiet, json, word)
        return produce.produce(chosen, paths, text, generate, wish, extras, shown, json, debug)
    produce.check_next_best(chosen, wish)
    wish = wish.among(chosen.labels)
    wanted = cases(paths, text, chosen)
    tally = Tally(debug=debug)
    report = _Report(folder, endings, special, wish, drawn=0 if quiet else SHOWN, silent=json)
    together = batch if chosen.task == ONE_NUMBER and (wish.targets != (None,) or wish.against is None) else 1
    stopped = False
    try:
        each(
            wanted,
            reader(chosen, regions),
            lambda some, things: _explained(chosen, some, things, wish, extras, threshold, len(wanted) == 1),
            report.finish,
            tally,
            together,
        )
    except KeyboardInterrupt:
        stopped = True
    if tally.done and (said := caution(chosen, wish)):
        warn(said)
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
        warn(f"{tally.done} of {len(wanted)} done.{'' if stopped else ' What was written stays.'}")
    return INTERRUPTED if stopped else FAILED if tally.failed else 0


def _explained(
    model: Model,
    together: Sequence[Case],
    things: Sequence[Any],
    wish: Wish,
    extras: Mapping[str, Any],
    threshold: float,
    alone: bool,
) -> list[list[Explanation]]:
    """The explanations of each case: one for each target."""
    asked = given(model, things, together[0].text, **extras)
    with busy("explaining") if alone else nullcontext() as told:  # several have a bar of their own
        found = explained(model, asked, wish, threshold, told)
    if doubtful := doubt(found, wish, threshold):
        warn(f"{together[0].name}: {doubtful}")
    return [[example(each, i) for each in found] for i in range(len(together))]


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
        tell_sinks(case, explanations)
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
        stem = case.picture.stem if case.picture else slug(case.name)
        said = [str(name) for name in (self.wish.method, self.wish.correction) if name]
        detections = self.wish.open and len(explanations) > 1
        answers = ["detections"] if detections else [each["answer"] for each in record["explanations"]]
        name = called(stem, answers, *said)
        return write(self.folder, name, self.endings, {"": explanations}, self.special, record)  # one row


def _headline(case: Case, found: dict[str, Any]) -> str:
    """What was explained, and that it was the prediction where nobody named a target."""
    prediction = " (the prediction: no --target was given)" if found["predicted"] is not None else ""
    return f"{case.name}: {found['answer']}{prediction}, {found['value']:.4g}{at(found['box'])}"
