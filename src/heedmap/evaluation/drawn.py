"""Drawn scenes by what is in them, and which of their animals a model means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from heedmap.menagerie import KINDS, Animal, Question, Scene, scene, scenes
from heedmap.zoo.regions import overlap

if TYPE_CHECKING:
    from heedmap.families.answering import Found

GREY = 128  # what hides a part: the middle of the scale, as the zoo's processors take it
SAME = 0.5  # overlap (intersection over union) from which on a box is an animal's


def singles(count: int, seed: int, kinds: Sequence[str] = KINDS, without: str | None = None) -> list[Scene]:
    """Scenes of one animal."""
    return list(scenes(count, seed, animals=(1, 1), kinds=[kind for kind in kinds if kind != without]))


def pairs(count: int, seed: int) -> list[Scene]:
    """Scenes of two animals of different kinds."""
    return list(scenes(count, seed, animals=(2, 2), distinct=True))


def of(kind: str, count: int, seed: int) -> list[Scene]:
    return [scene(kind, seed + i) for i in range(count)]


def parts(animal: Animal, names: Sequence[str]) -> np.ndarray:
    """The pixels of some parts of an animal."""
    return np.any([animal.parts[name] for name in names], axis=0)


def matched(sure: Sequence[Found], drawn: Scene, labels: Sequence[str]) -> Iterator[tuple[int, Animal]]:
    """Each animal with the place of the surest object of its kind that lies where it does."""
    left = dict(enumerate(sure))
    for animal in drawn.animals:
        box = torch.tensor([animal.box]) / drawn.size
        for place, one in left.items():
            if labels[one.index] == animal.kind and float(overlap(torch.tensor([one.box]), box)) > SAME:
                del left[place]
                yield place, animal
                break


def deciding(drawn: Scene, question: Question, boxes: np.ndarray) -> np.ndarray:
    """Which boxes are animals that decide the answer."""
    animals = torch.tensor([animal.box for animal in drawn.animals], dtype=torch.float64) / drawn.size
    both = overlap(torch.from_numpy(boxes).double(), animals).numpy()
    return np.array([each.max() >= SAME and each.argmax() in question.regions for each in both])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two maps are; NaN where one of them says nothing."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / lengths if lengths else float("nan")
