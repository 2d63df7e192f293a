"""Pictures whose objects are outlined, as COCO's instances have them: from its files, or from drawn scenes."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heedmap.errors import InputError
from heedmap.installs import extra
from heedmap.menagerie import KINDS, Scene, draws, scene, scenes
from heedmap.menagerie.rle import encode

if TYPE_CHECKING:
    from PIL.Image import Image

PLACES = ("", "images", "val2017", "val2014")  # where in a folder its pictures may lie
FILES = ("instances.json", "instances_val2017.json", "instances_val2014.json")
NEEDED = ("image_id", "category_id", "segmentation", "area", "bbox")
COCO = {1: "person", 17: "cat", 90: "toothbrush"}  # of its 80 categories: numbers that no other collection has
SLOTS = (91, 92)  # classes of a detector that learned COCO: the number of a category is its index
CROWDED = (1, 4)  # how many animals a drawn scene has


@dataclass(frozen=True, eq=False)
class Annotated:
    """A picture, or the path of one, and its objects as COCO notes them."""

    id: int
    picture: Path | Image
    name: str  # what is said of it when it cannot be read
    size: tuple[int, int]  # height, width
    objects: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, eq=False)
class Collection:
    pictures: tuple[Annotated, ...]
    categories: Mapping[int, str]  # by number

    @property
    def real(self) -> bool:
        """Whether it is COCO itself."""
        return len(self.categories) == 80 and all(self.categories.get(key) == name for key, name in COCO.items())


# ---- drawn scenes


def company(count: int, seed: int, size: int = 96) -> list[Scene]:
    """Scenes of one to four animals, of the seeds from `seed` on; in every second one two are of a kind."""
    plain = scenes(count, seed, CROWDED, size)
    return [_pair(one.seed, size) if i % 2 else one for i, one in enumerate(plain)]


def _pair(seed: int, size: int) -> Scene:
    chance = draws(seed, "company")
    kind = chance.choice(KINDS)
    others = [chance.choice(KINDS) for _ in range(chance.integer(0, CROWDED[1] - 2))]
    return scene(chance.shuffled([kind, kind, *others]), seed, size)


def drawn(many: Iterable[Scene]) -> Collection:
    """Scenes with what they know of their animals."""
    pictures = []
    for each in many:
        objects = []
        for animal in each.animals:
            if not animal.mask.any():
                continue
            left, top, right, bottom = animal.box
            objects.append({
                "image_id": each.seed,
                "category_id": KINDS.index(animal.kind) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(animal.mask.sum()),
                "segmentation": encode(animal.mask),
                "iscrowd": 0,
            })  # fmt: skip
        pictures.append(Annotated(each.seed, each.image, f"scene {each.seed}", (each.size, each.size), tuple(objects)))
    return Collection(tuple(pictures), {i + 1: kind for i, kind in enumerate(KINDS)})


# ---- files


def read(folder: str | Path, annotations: str | Path | None = None, limit: int | None = None) -> Collection:
    """The pictures of a folder and their instances; the first `limit` of the file.

    Without a file, COCO's own or that of `heedmap menagerie export` is looked for beside the pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r}. heedmap expected one with COCO's pictures.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}. heedmap expected at least 1 picture.")
    path = Path(annotations) if annotations is not None else _beside(folder)
    record = _record(path)
    inside = _inside(folder, record["images"], path)
    objects: dict[int, list[Mapping[str, Any]]] = {}
    for one in record["annotations"]:
        objects.setdefault(one["image_id"], []).append({"iscrowd": 0, **one})
    pictures = [
        Annotated(
            one["id"],
            inside / one["file_name"],
            one["file_name"],
            (one["height"], one["width"]),
            tuple(objects.get(one["id"], ())),
        )
        for one in record["images"][:limit]
    ]
    return Collection(tuple(pictures), {one["id"]: one["name"] for one in record["categories"]})


def _beside(folder: Path) -> Path:
    above = folder.resolve().parent
    tried = [place / "annotations" / name for place in (folder, above) for name in FILES]
    for path in tried:
        if path.is_file():
            return path
    raise InputError(
        f"No annotations were found beside {str(folder)!r} (annotations/{', annotations/'.join(FILES)}). heedmap "
        "expected COCO's instances: name the file."
    )


def _record(path: Path) -> dict[str, Any]:
    """What the file holds, certain to be instances."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no file {str(path)!r}. heedmap expected COCO's instances.") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} cannot be read as JSON ({error}). heedmap expected COCO's instances."
        ) from error
    parts = {"images": ("id", "file_name", "height", "width"), "annotations": NEEDED, "categories": ("id", "name")}
    for part, needed in parts.items():
        held = record.get(part) if isinstance(record, dict) else None
        if not isinstance(held, list) or (not held and part != "annotations"):
            raise InputError(
                f"{str(path)!r} has no list of {part}. heedmap expected COCO's instances: images, annotations and "
                "categories."
            )
        for i, one in enumerate(held):
            missing = [name for name in needed if not isinstance(one, dict) or name not in one]
            if missing:
                raise InputError(
                    f"{str(path)!r}: number {i} of its {part} has no {missing[0]}. heedmap expected COCO's instances "
                    "(not its captions or keypoints)."
                )
    known = {one["id"] for one in record["categories"]}
    foreign = next((one["category_id"] for one in record["annotations"] if one["category_id"] not in known), None)
    if foreign is not None:
        raise InputError(f"{str(path)!r}: an annotation is of category {foreign}, which its categories do not have.")
    return record


def _inside(folder: Path, images: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Where in the folder the pictures are."""
    for place in PLACES:
        if any((folder / place / one["file_name"]).is_file() for one in images):
            return folder / place
    raise InputError(
        f"None of the {len(images)} pictures that {path.name} names is in {str(folder)!r}, such as "
        f"{images[0]['file_name']!r}. Name the folder that they are in."
    )


# ---- as pycocotools has them


def numbers(labels: Sequence[str], classes: int, collection: Collection) -> dict[int, int]:
    """Of each of the model's classes that is one of the collection's categories: the category's number, by index."""
    by_name = {_plain(name): number for number, name in collection.categories.items()}
    found = {i: by_name[_plain(label)] for i, label in enumerate(labels) if _plain(label) in by_name}
    if not found and collection.real and classes in SLOTS:
        return {number: number for number in collection.categories}
    if not found:
        told = ", ".join(labels[:4]) or "without names"
        wanted = ", ".join(list(collection.categories.values())[:4])
        raise InputError(
            f"None of the {len(collection.categories)} categories ({wanted} ...) is a class of this model, whose "
            f"{classes} classes are {told} ... Take a model that learned them."
        )
    return found


def indexed(pictures: Sequence[Annotated], categories: Mapping[int, str], objects: Iterable[Mapping[str, Any]]) -> Any:
    """The objects of some pictures as pycocotools' COCO, numbered from 1: it takes 0 for no object."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        made = extra("pycocotools.coco").COCO()
        made.dataset = {
            "images": [{"id": one.id, "height": one.size[0], "width": one.size[1]} for one in pictures],
            "categories": [{"id": number, "name": name} for number, name in categories.items()],
            "annotations": [{**one, "id": i} for i, one in enumerate(objects, start=1)],
        }
        made.createIndex()
    return made


def outlined(picture: Annotated, categories: Mapping[int, str]) -> list[np.ndarray]:
    """The mask of each object, crowds too."""
    made = indexed([picture], categories, picture.objects)
    return [decoded(made.annToRLE(one)) for one in made.dataset["annotations"]]


def decoded(runs: Mapping[str, Any]) -> np.ndarray:
    """The mask that run lengths stand for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools and numpy 2
        return extra("pycocotools.mask").decode(runs).astype(bool)


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())
