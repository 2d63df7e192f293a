"""Files that are written whole or not at all, under names that overwrite nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from heedmap.cli.talk import UsageError

FORMATS = ("png", "svg", "html", "json", "heed")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
LONGEST = 60  # characters of a slug


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
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def formats(text: str | None, default: str = "png") -> tuple[str, ...]:
    """The endings that `png,html` names."""
    names = tuple(dict.fromkeys(name.strip().lower() for name in (text or default).split(",")))
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--format {name!r} is not one of {', '.join(FORMATS)}. Name one, or several with commas.")
    return names


def pictures(paths: Iterable[Path]) -> list[Path]:
    """Every path, folders replaced by the pictures in them."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(each for each in path.iterdir() if each.suffix.lower() in PICTURES) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"The folder {str(path)!r} holds no picture ({', '.join(PICTURES)}). Name one that does.")
        found += inside
    return found


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^\w]+", "-", text).strip("-")[:LONGEST] or "x"
