"""`python -m sweep`: try every class, print what became of it, write the page. `--help` lists the options."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

from . import report
from .finding import Found, classes
from .pool import results
from .trying import Tried

PAGE = Path(__file__).parents[1] / "docs" / "sweep.md"


def main(arguments: Sequence[str] | None = None) -> list[Tried]:
    """Run the sweep. The page is written only by a whole one, or where it is told to go."""
    options = read_options(arguments)
    todo = chosen(options)
    began = time.monotonic()
    tried: list[Tried] = []
    for each in results(todo, options.workers, options.seconds):
        tried.append(each)
        print(f"{len(tried)}/{len(todo)} {each.name}: {line(each)}", flush=True)
    tried.sort(key=lambda each: (each.model_type, each.name))
    took = time.monotonic() - began
    print(f"\n{dict(Counter(each.status for each in tried).most_common())} in {took / 60:.1f} minutes")
    whole = not options.only and options.limit is None
    path = options.out or (PAGE if whole else None)
    if path is not None:
        path.write_text(report.page(tried, took, options.workers))
        print(f"Written: {path}")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in tried], indent=1) + "\n")
    return tried


def chosen(options: argparse.Namespace) -> list[Found]:
    """The classes that are asked for by name or by type, `*` standing for anything."""
    todo = classes()
    if options.only:
        unknown = [
            text
            for text in options.only
            if not any(fnmatchcase(each.name, text) or fnmatchcase(each.model_type, text) for each in todo)
        ]
        if unknown:
            sys.exit(f"--only {unknown[0]!r} fits no model class and no model type of this transformers.")
        todo = [
            each
            for each in todo
            if any(fnmatchcase(each.name, text) or fnmatchcase(each.model_type, text) for text in options.only)
        ]
    return todo if options.limit is None else todo[: options.limit]


def line(each: Tried) -> str:
    """A result in a line of the terminal."""
    if each.difference is not None:
        return f"{each.status} ({each.calls} calls, {each.streams} streams, difference {each.difference:.1e})"
    told = " ".join(each.why.split())
    return f"{each.status}: {told[:160]}" if told else each.status


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sweep", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="classes or model types, as in 'Bert*' or vit")
    parser.add_argument("--limit", type=_count, help="only the first so many")
    parser.add_argument("--workers", type=_count, default=2, help="processes at a time (default 2)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for one class (default 60)")
    parser.add_argument("--out", type=Path, help="the page (default: docs/sweep.md, when all classes are tried)")
    parser.add_argument("--json", type=Path, help="all that is known of every class, for a program")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


if __name__ == "__main__":
    main()
