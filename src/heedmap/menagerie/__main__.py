"""`python -m heedmap.menagerie export`: write scenes to a folder, as the field reads them; `--help` lists how."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from .export import TASKS, Features, export

OPTIONS = ("--task", "--count", "--seed", "--out", "--size", "--animals", "--regions", "--help")
REQUIRED = {"action": "export", "task": "--task", "count": "--count", "out": "--out"}
WRONG = 2  # exit code of a mistake on the command line


class Parser(argparse.ArgumentParser):
    """Says what is meant by a mistyped word before it says what is missing."""

    def parse_args(self, args=None, namespace=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        options, unknown = self.parse_known_args(args, namespace)
        for word in unknown:
            self.error(f"{word} is not an option.{_hint(word.split('=')[0], OPTIONS)}")
        missing = [word for name, word in REQUIRED.items() if getattr(options, name) is None]
        if missing:
            self.error(f"{' '.join(missing)} must be given.")
        return options

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{message}\n`python -m heedmap.menagerie export --help` lists the options.\n")
        sys.exit(WRONG)


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(arguments)
    try:
        features = detected() if options.task == "questions" and options.regions == "detr" else None
        where, how = (options.task, options.count, options.seed, options.out), (options.size, options.animals, features)
        out = export(*where, *how)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return WRONG
    regions = f", regions from {features.source}" if features else ""
    sys.stdout.write(f"{options.count} scenes for {options.task} written to {out}{regions}\n")
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m heedmap.menagerie", allow_abbrev=False, add_help=False)
    parser.add_argument("action", nargs="?", type=_action, help="export, the only one")
    parser.add_argument("-h", "--help", action="help", help="show this list")
    parser.add_argument("--task", type=_task, help=", ".join(TASKS))
    parser.add_argument("--count", type=_number, metavar="N", help="how many scenes")
    parser.add_argument(
        "--seed", type=_number, default=0, metavar="S", help="of the first scene, the next has S + 1 ... (default 0)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="a folder that is new, empty or an earlier export")
    parser.add_argument("--size", type=_number, default=96, metavar="PIXELS", help="width and height (default 96)")
    parser.add_argument(
        "--animals", type=_animals, metavar="N or N-M",
        help="how many in a scene (default: 1 for classification, 1-4 for detection; questions decide for themselves)",
    )  # fmt: skip
    parser.add_argument(
        "--regions", type=_regions, default="detr",
        help="who describes the regions of questions: detr, the zoo's detector, or none (default detr)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def detected() -> Features:
    """Boxes and features of the zoo's detector. Nothing else in the menagerie asks for torch."""
    from heedmap.zoo import describing

    try:
        describing.detector()
    except (ImportError, describing.ModelError) as error:
        raise ValueError(f"{error}\nRegions need the zoo's detector; `--regions none` writes none.") from error
    return Features(
        "heedmap.zoo detr",
        lambda pictures: [(each.boxes.numpy(), each.features.numpy()) for each in describing.describe(pictures)],
    )


# ------------------------------------------------------------------------------------------------------ kinds of value


def _action(text: str) -> str:
    return _one_of(text, ("export",), "an action")


def _task(text: str) -> str:
    return _one_of(text, TASKS, "a task")


def _regions(text: str) -> str:
    return _one_of(text, ("detr", "none"), "a source of regions")


def _one_of(text: str, names: Sequence[str], what: str) -> str:
    if text not in names:
        raise argparse.ArgumentTypeError(f"'{text}' is not {what}: it is {', '.join(names)}.{_hint(text, names)}")
    return text


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 up.")
    return int(text)


def _animals(text: str) -> tuple[int, int]:
    fewest, _, most = text.partition("-")
    if not (fewest.isdecimal() and (most or fewest).isdecimal()) or not 1 <= int(fewest) <= int(most or fewest):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of animals, such as 2, or a range, such as 1-4.")
    return int(fewest), int(most or fewest)


def _hint(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, 1)
    return f" Did you mean {near[0]}?" if near else ""


if __name__ == "__main__":
    sys.exit(main())
