"""The regions of many pictures, one picture at a time: from a TSV file, from arrays, or found by the zoo's detector.

Files of features are large (VQA v2's are 40,000 rows of 0.4 MB): a TSV file is read through once, to learn where each
picture's row begins.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from heedmap.errors import InputError
from heedmap.evaluation import asked
from heedmap.evaluation.asked import Asked, called
from heedmap.families import pictures, regions

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.families.regions import Given

IDS = ("image_id", "image_ids", "img_id", "ids")


class Store(Protocol):
    """`picture in store`, and the regions of several pictures."""

    def __contains__(self, picture: object) -> bool: ...

    def read(self, wanted: Sequence[str]) -> list[Given]: ...


def store(file: str | Path) -> Store:
    """The store that a file of regions is."""
    path = Path(file)
    if not path.is_file():
        raise InputError(f"There is no file of regions {str(path)!r}. Check the path.")
    if path.suffix == ".tsv":
        return Rows(path)
    if path.suffix == ".npz":
        return Arrays(path)
    raise InputError(f"{str(path)!r} ends in {path.suffix!r}. heedmap reads regions from .npz and .tsv files.")


def asked_about(
    found: Store, questions: str | Path, annotations: str | Path | None = None
) -> tuple[list[Asked], dict[str, int]]:
    """The questions of files about pictures whose regions there are; why others are left out, and how many."""
    every, unanswered = asked.read(questions, annotations)
    there = [one for one in every if one.picture in found]
    if not there:
        raise InputError(
            f"None of the {len(every)} questions is about a picture whose regions there are; the first is about "
            f"picture {every[0].picture}. Name the regions, or the pictures, that belong to them."
        )
    left = {"without an answer": unanswered, "about pictures that are not there": len(every) - len(there)}
    return there, {why: number for why, number in left.items() if number}


def folder(path: str | Path) -> dict[str, Path]:
    """The pictures of a folder, by what questions call them."""
    from heedmap.evaluation.folders import SUFFIXES

    inside = sorted(each for each in Path(path).iterdir() if each.suffix.lower() in SUFFIXES)
    if not inside:
        raise InputError(f"The folder {str(path)!r} holds no picture ({', '.join(SUFFIXES)}). Name one that does.")
    return files(inside)


def files(paths: Sequence[Path]) -> dict[str, Path]:
    """Pictures by what questions call them."""
    _check_one_each([path.stem for path in paths], "The pictures are called")
    return {called(path.stem): path for path in paths}


class Rows:
    """A bottom-up-attention TSV file, with a row for each picture."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts: dict[str, int] = {}
        names: dict[str, bytes] = {}
        start = 0
        with path.open("rb") as lines:
            for line in lines:
                if line.count(b"\t") + 1 not in regions.TSV:
                    raise InputError(
                        f"{str(path)!r} has a row of {line.count(b'	') + 1} columns. heedmap expected "
                        "bottom-up-attention's 6, or the 10 of LXMERT's authors."
                    )
                name = line[: line.index(b"\t")]
                picture = called(name.decode("ascii", "replace"))
                if names.setdefault(picture, name) != name:
                    told = f"{names[picture].decode()!r} and {name.decode('ascii', 'replace')!r}"
                    raise InputError(f"{str(path)!r} has rows {told}, and which is picture {picture} is open.")
                self._starts.setdefault(picture, start)
                start += len(line)

    def __contains__(self, picture: object) -> bool:
        return picture in self._starts

    def read(self, wanted: Sequence[str]) -> list[Given]:
        with self._path.open("rb") as lines:
            return [_given(self._row(lines, one), f"row {one} of {self._path.name}") for one in wanted]

    def _row(self, lines: Any, picture: str) -> dict[str, Any]:
        lines.seek(self._starts[picture])
        cells = lines.readline().decode("ascii", "replace").rstrip("\n").split("\t")
        return regions.decoded(cells, self._path)


class Arrays:
    """Arrays with a row for each region, and one that says in which picture it is; boxes are shares of the picture."""

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as held:
                arrays = {name: held[name] for name in held.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"{str(path)!r} cannot be read as plain arrays ({error}).") from error
        ids, boxes, features = (_named(arrays, names, path) for names in (IDS, regions.BOXES, regions.FEATURES))
        if not len(ids) == len(boxes) == len(features):
            raise InputError(
                f"{str(path)!r} has {len(ids)} ids, {len(boxes)} boxes and {len(features)} features. heedmap expected "
                "one of each for every region."
            )
        if boxes.size and boxes.max() > 1 + regions.SLACK:
            raise InputError(
                f"{str(path)!r} has boxes in pixels, and does not say of how many. heedmap expected shares of the "
                "picture, 0 to 1: divide by its width and height."
            )
        _check_one_each(ids.tolist(), f"{str(path)!r} has regions of")
        self._path, self._boxes, self._features = path, boxes, features
        self._places: dict[str, list[int]] = {}
        for place, one in enumerate(ids.tolist()):
            self._places.setdefault(called(one), []).append(place)

    def __contains__(self, picture: object) -> bool:
        return picture in self._places

    def read(self, wanted: Sequence[str]) -> list[Given]:
        rows = [(one, self._places[one]) for one in wanted]
        return [
            _given({"boxes": self._boxes[at], "features": self._features[at]}, f"{one} of {self._path.name}")
            for one, at in rows
        ]


class Described:
    """What the zoo's detector finds in pictures, or in files of them."""

    def __init__(self, held: Mapping[str, Image] | Mapping[str, Path]) -> None:
        self._pictures = held

    def __contains__(self, picture: object) -> bool:
        return picture in self._pictures

    def read(self, wanted: Sequence[str]) -> list[Given]:
        images = [pictures.read(self._pictures[one]) for one in wanted]
        return list(regions.read(None, images, [None] * len(images), regions.ZOO))


def _check_one_each(names: Sequence[Any], what: str) -> None:
    """Refuse two names of which a question could mean either."""
    met: dict[str, Any] = {}
    for name in names:
        other = met.setdefault(called(name), name)
        if other != name:
            raise InputError(f"{what} {other!r} and {name!r}, and which is picture {called(name)} is open. Rename one.")


def _named(arrays: Mapping[str, np.ndarray], names: Sequence[str], path: Path) -> np.ndarray:
    found = next((arrays[name] for name in names if name in arrays), None)
    if found is None:
        raise InputError(
            f"{str(path)!r} holds {', '.join(arrays)}. heedmap expected image_id, boxes and features, as `heedmap "
            "menagerie export --task questions` writes them."
        )
    return found


def _given(held: Mapping[str, Any], what: str) -> Given:
    """Arrays as a model reads them; the picture itself has nothing to say."""
    from PIL import Image

    try:
        return regions.read(held, [Image.new("RGB", (1, 1))], [None], "")[0]
    except InputError as error:
        raise InputError(f"Of {what}: {error}") from error
