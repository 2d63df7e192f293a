"""Labelled pictures on disk, as the field keeps them: a folder per class, or one folder with a list of what is what.

A class goes by the model's label, by one of the names in it ("great white shark, white shark"), by its index, or by
whatever a label map calls it: ImageNet's n02391049, a number of its development kit.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# What ImageNet's own files are called; looked for in the folder and in the one above it.
TRUTHS = ("LOC_val_solution.csv", "val.txt", "ILSVRC2012_validation_ground_truth.txt")
MAPS = ("LOC_synset_mapping.txt", "imagenet_class_index.json")
MAP_HELP = "Give a label map (--label-map), such as ImageNet's LOC_synset_mapping.txt or imagenet_class_index.json"


@dataclass(frozen=True, eq=False)
class Labelled:
    """A picture, or the path of one, and its class: the model's index, and what the model calls it."""

    picture: Path | Image
    index: int
    label: str
    name: str  # what is said of it when it cannot be read


def labelled(
    path: str | Path,
    labels: Sequence[str],
    label_map: str | Path | None = None,
    truth: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Labelled]:
    """The pictures of a folder with their classes, by name; `limit` takes so many, evenly over the classes."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r}. heedmap expected one with labelled pictures.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}. heedmap expected at least 1 picture.")
    classes = Classes(labels, _map(label_map or _known(folder, MAPS)))
    nested = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith((".", "__")))
    if truth is None and any(map(_pictures, nested)):
        found = _by_folder(folder, nested, classes)
    else:
        found = _by_list(folder, truth or _known(folder, TRUTHS), classes)
    return found if limit is None else evenly(found, limit, seed)


def scenes(count: int, labels: Sequence[str], seed: int) -> list[Labelled]:
    """Drawn scenes of one animal each, of the seeds from `seed` on."""
    from heedmap import menagerie

    classes = Classes(labels, {})
    drawn = []
    for scene in menagerie.scenes(count, seed, animals=(1, 1)):
        kind = scene.animals[0].kind
        index = classes.index(kind)
        if index is None:
            raise InputError(
                f"The model has no label {kind!r}. Drawn scenes are for models that know the menagerie's kinds: take "
                "labelled pictures of your own (--images)."
            )
        drawn.append(Labelled(scene.image, index, classes.label(index), f"scene {scene.seed}"))
    return drawn


def evenly(pictures: Sequence[Labelled], limit: int, seed: int = 0) -> list[Labelled]:
    """As many of each class as there are of the others, drawn by chance; all of a class that has fewer."""
    piles: dict[int, list[Labelled]] = defaultdict(list)
    for one in pictures:
        piles[one.index].append(one)
    for index, pile in piles.items():
        random.Random(f"{seed} {index}").shuffle(pile)
    order = sorted(piles)
    random.Random(seed).shuffle(order)  # which classes have one more, where the limit is no multiple
    deepest = max(map(len, piles.values()), default=0)
    dealt = [piles[index][depth] for depth in range(deepest) for index in order if depth < len(piles[index])]
    kept = set(map(id, dealt[:limit]))
    return [one for one in pictures if id(one) in kept]


# ---- a folder per class


def _by_folder(folder: Path, nested: Sequence[Path], classes: Classes) -> list[Labelled]:
    held = {each: _pictures(each) for each in nested}
    indices = {each: classes.index(each.name) for each in nested if held[each]}
    unknown = [each.name for each, index in indices.items() if index is None]
    if unknown:
        raise InputError(
            f"{_some(unknown)} {'is no folder' if len(unknown) == 1 else 'are no folders'} of a class of this model; "
            f"{len(indices) - len(unknown)} of {len(indices)} are. {classes.hint(unknown[0])}"
        )
    return [
        Labelled(picture, index, classes.label(index), picture.relative_to(folder).as_posix())
        for each, index in indices.items()
        if index is not None
        for picture in held[each]
    ]


def _pictures(folder: Path) -> list[Path]:
    inside = (each for each in folder.rglob("*") if each.suffix.lower() in SUFFIXES and not each.name.startswith("."))
    return sorted(inside, key=lambda each: each.relative_to(folder).as_posix())


# ---- one folder and a list


def _by_list(folder: Path, truth: str | Path | None, classes: Classes) -> list[Labelled]:
    pictures = [each for each in _pictures(folder) if each.parent == folder]
    if truth is None:
        raise InputError(
            f"{str(folder)!r} has neither a folder per class with pictures in it nor a list of what is what "
            f"({', '.join(TRUTHS)}). Name the folder above the classes, or the list (--truth)."
        )
    if not pictures:
        raise InputError(f"The folder {str(folder)!r} holds no picture ({', '.join(SUFFIXES)}). Name one that does.")
    named = _truth(Path(truth), pictures, classes)
    called = {each: named.get(each.name) or named.get(each.stem) for each in pictures}
    missing = [each.name for each, name in called.items() if name is None]
    if missing:
        raise InputError(
            f"{Path(truth).name} does not name {_some(missing)}; it names {len(pictures) - len(missing)} of the "
            f"{len(pictures)} pictures. Name the list that belongs to this folder."
        )
    told = {each: classes.index(name) for each, name in called.items() if name is not None}
    unknown = list(dict.fromkeys(str(called[each]) for each, index in told.items() if index is None))
    if unknown:
        raise InputError(
            f"{_some(unknown)} of {Path(truth).name} {'is no class' if len(unknown) == 1 else 'are no classes'} of "
            f"this model. {classes.hint(unknown[0])}"
        )
    return [Labelled(each, index, classes.label(index), each.name) for each, index in told.items() if index is not None]


def _truth(path: Path, pictures: Sequence[Path], classes: Classes) -> dict[str, str]:
    """What a list calls the class of each picture, by its name; also without the ending, where that says which."""
    rows = [row for row in _rows(path) if row]
    if rows and rows[0][0].lower() in ("imageid", "file", "filename", "file_name", "image"):
        rows = rows[1:]
    if rows and all(len(row) == 1 for row in rows):
        return _in_order(path, [row[0] for row in rows], pictures, classes)
    # A prediction string of ImageNet's localisation task begins with the class: n03995372 85 1 499 272.
    named = {Path(row[0]).name: re.sub(r"( \d+){4}.*", "", row[1]) for row in rows if len(row) > 1}
    stems: dict[str, set[str]] = defaultdict(set)
    for name, called in named.items():
        stems[Path(name).stem].add(called)
    return {stem: next(iter(several)) for stem, several in stems.items() if len(several) == 1} | named


def _in_order(path: Path, names: list[str], pictures: Sequence[Path], classes: Classes) -> dict[str, str]:
    """A class a line. A picture with a number in its name has that line: some of ImageNet's pictures will do."""
    if all(name.isdecimal() for name in names) and not classes.mapped:
        raise InputError(
            f"{path.name} is a list of bare numbers. ImageNet's own count classes in another order than models do, "
            "so heedmap expected to be told which is which: give a label map (--label-map) from number to label."
        )
    numbers = [re.fullmatch(r"ILSVRC2012_val_(\d{8})", each.stem) for each in pictures]
    lines = [int(number[1]) for number in numbers if number]
    if len(lines) != len(pictures):
        lines = list(range(1, len(pictures) + 1))
        if len(names) != len(pictures):
            raise InputError(f"{path.name} has {len(names)} lines for {len(pictures)} pictures. They must be as many.")
        _check_order(path, pictures)
    if lines and not 1 <= min(lines) <= max(lines) <= len(names):
        raise InputError(f"{path.name} has {len(names)} lines, and there is a picture number {max(lines)}.")
    return {each.name: names[line - 1] for each, line in zip(pictures, lines, strict=True)}


def _check_order(path: Path, pictures: Sequence[Path]) -> None:
    """Refuse pictures that stand in one order by name and in another by number: which of them a line means is open."""

    def counted(each: Path) -> str:
        return re.sub(r"\d+", lambda digits: digits[0].zfill(20), each.name)

    for one, other in zip(pictures, sorted(pictures, key=counted), strict=True):
        if one != other:
            raise InputError(
                f"{path.name} names no pictures, and {one.name!r} stands before {other.name!r} by name, behind it by "
                "number. heedmap expected to be told which is which: a picture and its class a line."
            )


def _rows(path: Path) -> list[list[str]]:
    """A table's rows: with commas in a .csv, otherwise two columns with a tab or a space between."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}). heedmap expected a text file.") from error
    lines = [line.strip() for line in text.splitlines()]
    if path.suffix.lower() == ".csv":
        return [[cell.strip() for cell in row] for row in csv.reader(line for line in lines if line)]
    return [re.split(r"\t|,?\s+", line, maxsplit=1) for line in lines if line]


# ---- which class a name stands for


class Classes:
    """A model's classes by all that they may be called."""

    def __init__(self, labels: Sequence[str], names: Mapping[str, tuple[Any, int]]) -> None:
        self._labels = tuple(labels)
        self._names = names
        self._whole: dict[str, list[int]] = defaultdict(list)
        self._single: dict[str, list[int]] = defaultdict(list)
        for index, label in enumerate(self._labels):
            self._whole[_plain(label)].append(index)
            for single in label.split(","):
                self._single[_plain(single)].append(index)

    @property
    def mapped(self) -> bool:
        return bool(self._names)

    def label(self, index: int) -> str:
        return self._labels[index] if self._labels else str(index)

    def index(self, name: str) -> int | None:
        """The class, if it is certain."""
        if name in self._names:
            value, line = self._names[name]
            return self._index(value, line)
        return self._index(name)

    def _index(self, value: Any, line: int = -1) -> int | None:
        text = str(value)
        found = self._whole.get(_plain(text)) or self._single.get(_plain(text)) or []
        found = found or self._single.get(_plain(text.split(",")[0]), [])
        if len(found) > 1:  # ImageNet has two cranes: a map of all classes in the model's order tells which
            found = [index for index in found if index == line]
        if found:
            return found[0]
        index = int(text) if text.isdecimal() else -1
        return index if 0 <= index < len(self._labels) or (index >= 0 and not self._labels) else None

    def hint(self, name: str) -> str:
        if self._names:
            return f"The label map has {len(self._names)} names, such as {next(iter(self._names))!r}."
        if re.fullmatch(r"n\d{8}", name):
            return f"{MAP_HELP}."
        labels = ", ".join(self._labels[:4])
        return (
            f"The model's {len(self._labels)} labels are {labels}{' ...' if len(self._labels) > 4 else ''}. {MAP_HELP}."
        )


def _map(path: str | Path | None) -> dict[str, tuple[Any, int]]:
    """What a label map calls each class, and on which line."""
    if path is None:
        return {}
    path = Path(path)
    if path.suffix.lower() != ".json":
        pairs: Iterable[tuple[str, Any]] = [(row[0], row[1]) for row in _rows(path) if len(row) > 1]
    else:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{str(path)!r} cannot be read as JSON ({error}).") from error
        if not isinstance(held, dict):
            raise InputError(
                f"{str(path)!r} holds a {type(held).__name__}. heedmap expected names and labels: {{...}}."
            )
        # {"340": ["n02391049", "zebra"]} names the index first.
        pairs = [
            (value[0], int(key)) if isinstance(value, list) and value else (key, value) for key, value in held.items()
        ]
    found = {str(name): (value, line) for line, (name, value) in enumerate(pairs)}
    if not found:
        raise InputError(f"The label map {str(path)!r} holds no names. heedmap expected two columns, or a JSON object.")
    return found


def _known(folder: Path, names: Sequence[str]) -> Path | None:
    places = (place / name for place in (folder, folder.resolve().parent) for name in names)
    return next((each for each in places if each.is_file()), None)


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
