"""Files that are written whole or not at all, under names that overwrite nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from heedmap.cli.talk import UsageError

FORMATS = ("png", "svg", "html", "json", "heed")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
LONGEST = 40  # characters of a slug: of a name's parts together 255 are allowed
STEM = 70  # characters of a picture's own name
FEW = 3  # things told by name


class Folder:
    """Where a command writes: made and tried before anything slow begins."""

    def __init__(self, path: Path, inputs: Iterable[Path] = ()) -> None:
        self.path = path
        self._taken = {each.resolve() for each in inputs}
        try:
            path.mkdir(parents=True, exist_ok=True)
            trial = path / f".heedmap.{os.getpid()}"
            trial.write_bytes(b"?")
            trial.unlink()
        except OSError as error:
            raise OSError(error.errno, f"nothing can be written there: {error.strerror}", str(path)) from error

    def name(self, stem: str, endings: Iterable[str]) -> Path:
        """A path without its ending that is no input's and no earlier result's of this run, whichever the ending."""
        number = 1
        while True:
            base = self.path / (stem if number == 1 else f"{stem}-{number}")
            paths = {ending: self.path / f"{base.name}.{ending}" for ending in endings}
            if not any(path.resolve() in self._taken for path in paths.values()):
                self._taken.update(path.resolve() for path in paths.values())
                return base
            number += 1


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` when the block ends well and removed when it does not."""
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:  # it names the part, or nothing
            raise OSError(error.errno, f"it cannot be written: {error.strerror}", str(path)) from error
        raise


def formats(text: str | None, default: str = "png") -> tuple[str, ...]:
    """The endings that `png,html` names."""
    names = tuple(dict.fromkeys(name.strip().lower() for name in (text or default).split(",")))
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--format {name!r} is not one of {', '.join(FORMATS)}. Name one, or several with commas.")
    return names


def pictures(paths: Iterable[Path]) -> list[Path]:
    """Every path, folders replaced by the pictures in them; what is in folders below is left alone."""
    found: list[Path] = []
    for path in paths:
        found += _inside(path) if path.is_dir() else [path]
    return found


def _inside(folder: Path) -> list[Path]:
    held = sorted(folder.iterdir())
    found = [each for each in held if each.suffix.lower() in PICTURES and not each.is_dir()]
    if found:
        return found
    told = f"The folder {str(folder)!r} holds no picture ({', '.join(PICTURES)})."
    below = [str(each) for each in held if each.is_dir()]
    if not below:
        raise UsageError(f"{told} Name one that does.")
    more = f" and {len(below) - FEW} more" if len(below) > FEW else ""
    raise UsageError(f"{told} Folders in it are not searched: name them, {', '.join(below[:FEW])}{more}.")


def called(stem: str, answers: Sequence[str], *said: str) -> str:
    """What a file is called: after its picture, what was explained, and what else was said."""
    first = [slug(answer) for answer in answers[:FEW]]
    more = [f"and-{len(answers) - FEW}-more"] if len(answers) > FEW else []
    return ".".join([stem[:STEM], *first, *more, *map(slug, said)])


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^\w]+", "-", text).strip("-")[:LONGEST] or "x"
