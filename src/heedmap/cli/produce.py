"""`heedmap explain --generate`: what a model writes, each word of it explained."""

from __future__ import annotations

import json as json_of
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.cli.files import Folder, beside, called, slug
from heedmap.cli.many import Case, Tally, cases, each
from heedmap.cli.models import Wish, given, reader, telling
from heedmap.cli.numbers import numbers, tell_sinks
from heedmap.cli.talk import FAILED, INTERRUPTED, UsageError, busy, dump, say, show, warn
from heedmap.errors import InputError

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.families.producing import Produced, Word

BESIDE = ("target", "loss", "guide", "side")  # options of one answer


def check(wish: Wish) -> None:
    """Refuse what is asked of one answer: every word that is written is explained."""
    asked = {"target": wish.targets != (None,), "loss": wish.loss, "guide": wish.guide is not None, "side": wish.side}
    for name in BESIDE:
        if asked[name]:
            raise UsageError(f"--generate explains every word that the model writes. Leave --{name} out.")


def check_next_best(model: Model, wish: Wish) -> None:
    """Refuse what is said of every written word where one answer is asked for."""
    from heedmap.families.producing import NEXT
    from heedmap.families.tasks import WRITERS

    if model.task in WRITERS and wish.against == NEXT:
        raise UsageError(f"--against {NEXT!r} is of each word that the model writes. Give --generate too.")


def produce(
    model: Model,
    paths: Sequence[Path],
    text: Sequence[str] | None,
    tokens: int,
    wish: Wish,
    extras: dict[str, Any],
    report: Report,
    json: bool,
    debug: bool,
) -> int:
    """Let the model write about each case, and explain what it wrote."""
    from heedmap.families.tasks import WRITERS

    if model.task not in WRITERS:
        raise UsageError(f"{model.source} does {model.task}: it writes nothing. Leave --generate out.")
    wanted = cases(paths, text, model)
    tally = Tally(debug=debug)
    how = {name: value for name, value in wish.options().items() if name != "targets"}

    def work(some: Sequence[Case], things: Sequence[Any]) -> list[Produced]:
        with busy("explaining") if len(wanted) == 1 else nullcontext() as told:  # several have a bar of their own
            asked = given(model, things, some[0].text, **extras)
            return [model.explain_produced(**asked, tokens=tokens, **how, **telling(wish, told))]

    stopped = False
    try:
        each(wanted, reader(model, extras["regions"]), work, report.finish, tally)
    except KeyboardInterrupt:
        stopped = True
    if json:
        told = {"results": report.records, "failed": tally.failed, "interrupted": stopped}
        dump({"model": model.source, "task": model.task, **told})
    if (tally.failed or stopped) and len(wanted) > 1:
        warn(f"{tally.done} of {len(wanted)} done.{'' if stopped else ' What was written stays.'}")
    return INTERRUPTED if stopped else FAILED if tally.failed else 0


@dataclass
class Report:
    """What is written and said of each case as it comes."""

    folder: Folder | None
    endings: tuple[str, ...]
    special: bool
    wish: Wish
    quiet: bool
    silent: bool
    word: str | None = None  # to be seen by itself
    records: list[dict[str, Any]] = field(default_factory=list)

    def finish(self, case: Case, produced: Produced) -> None:
        record = _record(case, produced, self.special)
        files = self._write(case, produced, record)
        self.records.append({**record, "files": files})
        tell_sinks(case, produced.explanations)
        if self.silent:
            return
        from heedmap.render.reading import legible

        told = legible(produced.text) or "nothing but special tokens"
        say(f"{case.name}: {told}{'' if produced.ended else ' …'}")
        if not self.quiet:
            from heedmap.render.produced import terminal

            show(terminal(produced, special=self.special))
        if not produced.ended:
            say(f"  The model had not ended after {len(produced.indices)} tokens. --generate takes more.")
        for file in files:
            say(f"  written: {file}")
        if self.word is not None:  # last: where there is no such word, the files are told of all the same
            from heedmap.render import terminal as alone

            show(alone(picked(produced, self.word).explanation, special=self.special))

    def _write(self, case: Case, produced: Produced, record: dict[str, Any]) -> list[str]:
        if self.folder is None:
            return []
        from heedmap.render.produced import drawn

        stem = case.picture.stem if case.picture else slug(case.name)
        said = [str(name) for name in (self.wish.method, self.wish.correction, self.wish.against) if name]
        base = self.folder.name(called(stem, [produced.text], *said), self.endings)
        written = []
        for ending in self.endings:
            path = base.with_name(f"{base.name}.{ending}")
            if ending == "heed":  # one explanation each
                written += _kept(base, produced)
                continue
            with beside(path) as new:
                if ending == "json":
                    new.write_text(json_of.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
                else:
                    new.write_bytes(drawn(produced, f".{ending}", special=self.special))
            written.append(str(path))
        return written


def picked(produced: Produced, word: str) -> Word:
    """A word of the answer, by itself or by its number; where it stands several times, the first."""
    words = produced.told
    for one in words:
        if one.text.casefold() == word.casefold():
            return one
    if word.isdecimal() and 1 <= int(word) <= len(words):
        return words[int(word) - 1]
    raise InputError(
        f"--word {word!r} is not in the answer. heedmap expected one of {', '.join(one.text for one in words[:20])}"
        f"{' ...' if len(words) > 20 else ''}, or a number from 1 to {len(words)}."
    )


def _kept(base: Path, produced: Produced) -> list[str]:
    written = []
    for number, word in enumerate(produced.told, start=1):
        path = base.with_name(f"{base.name}-{number}.heed")
        with beside(path) as new:
            word.explanation.save(new)
        written.append(str(path))
    return written


def _record(case: Case, produced: Produced, special: bool) -> dict[str, Any]:
    """Everything as plain numbers: each word, and what flowed to it from each thing that was read."""
    words = [
        {
            "word": word.text,
            "special": word.special,
            "overruled": bool(set(word.tokens) & set(produced.overruled)),
            **({"against": produced.held_against(word.tokens)} if produced.against else {}),
            **numbers(word.explanation, special),
        }
        for word in produced.told
    ]
    return {
        "picture": case.picture and str(case.picture),
        "text": case.text,
        "written": produced.text,
        "tokens": list(produced.tokens),
        "ended": produced.ended,
        **({"against": produced.other} if produced.other else {}),
        "words": words,
    }
