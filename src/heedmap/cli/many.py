"""Many pictures, one result each: what fails is reported by name and left out, the rest goes on."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from heedmap.cli.talk import UsageError, console, one_line, warn
from heedmap.errors import LabelError

if TYPE_CHECKING:
    from heedmap.families import Model

Result = TypeVar("Result")


@dataclass(frozen=True)
class Case:
    """One thing to look at: a picture, a text, or both."""

    name: str
    picture: Path | None = None
    text: Any = None


@dataclass
class Tally:
    """What came of the cases."""

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    debug: bool = False

    def fail(self, case: Case, error: BaseException) -> None:
        line = one_line(error)
        self.failed[case.name] = line
        warn(line if case.name in line else f"{case.name}: {line}")
        if self.debug:
            traceback.print_exception(error)


def check_texts(paths: Sequence[Path], texts: Sequence[str] | None) -> None:
    """What is wrong with what is asked whatever the model: told before one is loaded."""
    if any(not text.strip() for text in texts or ()):
        raise UsageError("--text is empty. Write a question, a sentence or a caption.")
    if not paths and not texts:
        raise UsageError("There is nothing to look at. Name a picture, or give --text.")


def cases(paths: Sequence[Path], texts: Sequence[str] | None, model: Model) -> list[Case]:
    """What the command line asks a model. Captions go to every picture together, a question by itself."""
    from heedmap.families.tasks import TASKS

    takes = TASKS[model.task].takes
    wants = " and ".join({"image": "a picture", "text": "--text", "sound": "a sound"}[each] for each in takes)
    if bool(paths) != (takes != ("text",)) or bool(texts) != ("text" in takes):
        raise UsageError(f"{model.source} does {model.task}: it takes {wants}, no more and no less.")
    if not paths:
        return [Case(text, text=text) for text in texts or ()]
    if texts and model.task.startswith("zero-shot"):
        return [Case(str(path), path, list(texts)) for path in paths]
    if texts and len(texts) > 1:
        raise UsageError(f"{len(texts)} texts were given, and this model reads one with a picture. Give --text once.")
    return [Case(str(path), path, texts[0] if texts else None) for path in paths]


def each(
    wanted: Sequence[Case],
    read: Callable[[Path], Any],
    work: Callable[[Sequence[Case], Sequence[Any]], Sequence[Result]],
    finish: Callable[[Case, Result], None],
    tally: Tally,
    batch: int = 1,
) -> None:
    """Read, work on and finish every case; a batch that fails is tried again one by one."""
    with progress(len(wanted)) as step:
        for start in range(0, len(wanted), batch):
            together = wanted[start : start + batch]
            _together(list(_opened(together, read, tally)), work, finish, tally)
            step(len(together))


def _together(opened: list[tuple[Case, Any]], work: Any, finish: Any, tally: Tally) -> None:
    if not opened:
        return
    try:
        results = work([case for case, _ in opened], [picture for _, picture in opened])
    except LabelError as error:  # it would be the same for every picture
        raise UsageError(str(error)) from error
    except Exception as error:
        if len(opened) == 1:
            tally.fail(opened[0][0], error)
            return
        for one in opened:
            _together([one], work, finish, tally)
        return
    for (case, _), result in zip(opened, results, strict=True):
        try:
            finish(case, result)
        except OSError:  # a full disk stays full
            raise
        except Exception as error:
            tally.fail(case, error)
        else:
            tally.done += 1


def _opened(together: Sequence[Case], read: Callable[[Path], Any], tally: Tally) -> Iterator[tuple[Case, Any]]:
    for case in together:
        if case.picture is None:
            yield case, None
            continue
        try:
            picture = read(case.picture)
        except Exception as error:
            tally.fail(case, error)
            continue
        yield case, picture


def progress(total: int) -> AbstractContextManager[Callable[[int], None]]:
    """A bar on standard error, where somebody looks and there is something to wait for."""
    if total < 2 or not sys.stderr.isatty():
        return nullcontext(lambda steps: None)
    return _Bar(total)


class _Bar(AbstractContextManager["Callable[[int], None]"]):
    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        # What goes to a file or a pipe must not be drawn above the bar instead.
        self._bar = Progress(*columns, console=console(err=True), redirect_stdout=sys.stdout.isatty())
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        return lambda steps: self._bar.advance(self._task, steps)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
