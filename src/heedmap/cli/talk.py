"""What a command says: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import typer

from heedmap.errors import HeedmapError

if TYPE_CHECKING:
    from rich.console import Console

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes; 130 is what shells give a command that was interrupted
WIDTH = 100  # of tables where there is no terminal


# The library's messages name its arguments; here they are options.
_OPTION = re.compile(
    r"\b(text|target|against|loss|method|correction|regions|prefix|task|device|guide|side|mask|unit)=(['\"\w])?"
)


# What the library lets one choose and the command line does not.
_LIBRARY = re.compile(r" Name the state: noise='[^']*'\.")


class UsageError(Exception):
    """The command line asks for what cannot be."""


def one_of(option: str, text: str, names: Sequence[str]) -> None:
    """Refuse a word that is none of an option's."""
    if text not in names:
        near = get_close_matches(text.lower(), names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"{option} {text!r} is not one of {', '.join(names)}.{hint}")


def several(option: str, text: str) -> list[str]:
    """The names that an option lists, each once."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError(f"{option} is empty. Name one, or several with commas.")
    return names


def say(text: str = "") -> None:
    typer.echo(text)


def warn(text: str) -> None:
    typer.echo(text, err=True)


def dump(record: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(record, indent=2, ensure_ascii=False))


def show(*renderables: Any) -> None:
    """Tables and heat pictures, in colour where the terminal has any."""
    console().print(*renderables)


def console(err: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(stderr=err, width=None if stream.isatty() else WIDTH, highlight=False)


def one_line(error: BaseException) -> str:
    """An error as one line. What nobody raised on purpose comes with its name and a way to see more."""
    text = _LIBRARY.sub("", " ".join(str(error).split()))
    text = _OPTION.sub(lambda met: " ".join(filter(None, (f"--{met[1]}", met[2]))), text)
    if isinstance(error, HeedmapError | UsageError):
        return text
    if isinstance(error, OSError) and error.strerror:
        place = f"{str(error.filename)!r}: " if error.filename else ""
        return f"{place}{error.strerror}."
    return f"{type(error).__name__}: {text or 'no message'}. This was not expected: --debug shows where it happened."


@contextmanager
def busy(text: str) -> Iterator[Callable[[int, int], None]]:
    """A spinner while something takes its time, where somebody looks; told how much of how much is done."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with console(err=True).status(text) as shown:
        yield lambda done, total: shown.update(f"{text}: {done:,} of {total:,}")
