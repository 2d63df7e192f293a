"""Questions about drawn scenes, and what each animal in them must say, if the model's logic is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from heedmap import api
from heedmap.context import context_of
from heedmap.errors import InputError
from heedmap.families.regions import Given, read
from heedmap.menagerie import COLOURS, KINDS, Question, Scene, answers
from heedmap.reproduce.findings import Setting
from heedmap.reproduce.worlds import BATCH
from heedmap.targets.fields import logits_of
from heedmap.zoo.regions import overlap

if TYPE_CHECKING:
    from torch import Tensor

    from heedmap.families import Model

Item = TypeVar("Item")

SAME = 0.5  # overlap of a region's box and an animal's from which on they are one
STREAM = "visual_feats"
REGIONS, WORDS = "visual_attention_mask", "attention_mask"  # what says which are read
DECIDE = ("yes", "no")
NUMBERS = tuple(each for each in answers() if each.isdecimal())
LIKE = (DECIDE, NUMBERS, tuple(KINDS), tuple(COLOURS))  # answers that fit the same questions
EVERY = 10**9  # answers


@dataclass(frozen=True)
class Role:
    """Regions that together must speak for the answer given (+1) or against it (-1)."""

    part: str
    sign: int
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Posed:
    """A question, what the model answers, and the likeliest other answer of the same kind."""

    scene: Scene
    question: Question
    found: Given  # the regions that the model reads
    answer: str
    other: str

    @property
    def name(self) -> str:
        return f"scene {self.scene.seed}: {self.question.text}"

    @property
    def given(self) -> dict[str, Any]:
        """What a model is asked."""
        return {"image": self.scene.image, "text": self.question.text, "regions": self.found}

    @property
    def right(self) -> bool:
        return self.answer == self.question.answer

    @property
    def roles(self) -> list[Role]:
        """Those of animals that the detector found."""
        owners = matched(self.found.boxes, self.scene)
        told = []
        for part, sign, animals in musts(self.scene, self.question):
            rows = tuple(row for row, owner in enumerate(owners) if owner in animals)
            told += [Role(part, sign, rows)] if rows else []
        return told


def musts(scene: Scene, question: Question) -> list[tuple[str, int, tuple[int, ...]]]:
    """Part, sign and animals.

    Of yes and no: animals of a kind that is asked about speak for yes, of any other kind for no. Of a colour: the
    animal that is asked about speaks for its colour. Of what is left: both animals that decide speak for the answer.
    """
    if question.answer not in DECIDE:
        return [(question.type, 1, (animal,)) for animal in question.regions] if question.type != "count" else []
    yes = 1 if question.answer == "yes" else -1
    asked = {scene.animals[i].kind for i in question.regions}
    kinds = dict.fromkeys(animal.kind for animal in scene.animals)
    return [("asked", yes, _of(scene, kind)) if kind in asked else ("other", -yes, _of(scene, kind)) for kind in kinds]


def _of(scene: Scene, kind: str) -> tuple[int, ...]:
    return tuple(i for i, animal in enumerate(scene.animals) if animal.kind == kind)


def matched(boxes: np.ndarray, scene: Scene) -> list[int | None]:
    """The animal that each region is, None where it is none."""
    owned = np.array([animal.box for animal in scene.animals], dtype=np.float32) / scene.size
    shares = overlap(torch.as_tensor(boxes, dtype=torch.float32), torch.as_tensor(owned))
    best, index = shares.max(-1)
    return [int(i) if share >= SAME else None for share, i in zip(best.tolist(), index.tolist(), strict=True)]


# ---- asking the model, many questions at a time


def pose(model: Model, asked: Sequence[tuple[Scene, Question]], step: Callable[[float], None]) -> list[Posed]:
    """What the model answers each question, and what it would say next of the same kind."""
    posed: list[Posed] = []
    for done, together in batches(asked):
        images = [scene.image for scene, _ in together]
        found = read(None, images, [None] * len(images), model.source)
        told = model.predict(images, [question.text for _, question in together], top=EVERY, regions=list(found))
        for (scene, question), regions, ranked in zip(together, found, told, strict=True):
            labels = [each.label for each in ranked]
            like = next(group for group in LIKE if labels[0] in group)
            other = next(label for label in labels[1:] if label in like)
            posed.append(Posed(scene, question, regions, labels[0], other))
        step(done / len(asked))
    return posed


def given(posed: Sequence[Posed]) -> dict[str, Any]:
    """What a model is asked, many questions together."""
    each = [one.given for one in posed]
    return {name: [one[name] for one in each] for name in each[0]}


def voices(model: Model, posed: Sequence[Posed], against: bool, **options: Any) -> list[np.ndarray]:
    """What flowed from the regions of each question to its answer, alone or held against the other."""
    flows: list[np.ndarray] = []
    for _, together in batches(posed):
        target, other = [each.answer for each in together], [each.other for each in together]
        found = model.explain(**given(together), target=target, against=other if against else None, **options)
        rows = found[STREAM].double().cpu().numpy()
        flows += [row[: len(each.found.boxes)] for row, each in zip(rows, together, strict=True)]
    return flows


def removals(
    model: Model, posed: Sequence[Posed], rows: Sequence[tuple[int, ...]], against: bool, mask: str = REGIONS
) -> list[float]:
    """What each answer loses when some regions, or words, are not read; NaN where none would be left."""
    lost: list[float] = []
    for _, together in batches(list(zip(posed, rows, strict=True))):
        ones = [each for each, _ in together]
        inputs, _ = model.inputs(**given(ones))
        there = inputs[mask].clone()
        for i, (_, hidden) in enumerate(together):
            there[i, list(hidden)] = 0
        whole, less = (_values(model, ones, {**inputs, mask: seen}, against) for seen in (inputs[mask], there))
        lost += (whole - less).where(there.sum(-1) > 0, torch.nan).tolist()
    return lost


def _values(model: Model, posed: Sequence[Posed], inputs: dict[str, Tensor], against: bool) -> Tensor:
    """The logit of each answer, or its difference to the other's."""
    with torch.no_grad():
        logits = logits_of(model.module(**inputs), context_of(model.module, inputs, causal=False)).double()
    rows = range(len(posed))
    value = logits[rows, [model.index(each.answer) for each in posed]]
    return value - logits[rows, [model.index(each.other) for each in posed]] if against else value


def turned(
    model: Model,
    posed: Sequence[Posed],
    rows: Sequence[tuple[int, ...]],
    times: Sequence[float],
    step: Callable[[float], None],
) -> np.ndarray:
    """(question, time, 2): the logits of answer and other where words heed some regions so many times as much."""
    found: list[np.ndarray] = []
    for done, together in batches(list(zip(posed, rows, strict=True))):
        ones = [each for each, _ in together]
        what = given(ones)
        weights = api.weights(model.module, model.inputs(**what)[0])
        reads = [c.index for c in model.wiring(**what).calls if c.read.stream == STREAM != c.reading.stream]
        targets = [[each.answer for each in ones], [each.other for each in ones]]
        values = []
        for factor in times:
            edits = {call: weights[call].clone() for call in reads}
            for edited in edits.values():
                for i, (_, some) in enumerate(together):
                    edited[i, :, :, list(some)] *= factor
            explained = model.explain_each(**what, targets=targets, edits=edits)
            values.append([each.value.tolist() for each in explained])
        found.append(np.array(values).transpose(2, 0, 1))
        step(done / len(posed))
    return np.concatenate(found)


def batches(items: Sequence[Item]) -> Iterator[tuple[int, Sequence[Item]]]:
    """How many are done after each, and some items."""
    for start in range(0, len(items), BATCH):
        together = items[start : start + BATCH]
        yield start + len(together), together


# ---- a person's pictures


def on_pictures(setting: Setting) -> dict[str, dict[str, Any]]:
    """The first question about each picture, as a model takes it, by what it is called."""
    from heedmap.evaluation.asked import read as asked
    from heedmap.evaluation.stores import files, store

    if setting.questions is None:
        raise InputError("Pictures alone ask nothing. Give questions= about them, as VQA v2 has them.")
    first: dict[str, str] = {}
    for one in asked(setting.questions, setting.annotations)[0]:
        first.setdefault(one.picture, one.text)
    held = store(setting.regions) if setting.regions else None
    named = {name: path for name, path in files(setting.images).items() if name in first}
    if not named:
        raise InputError(f"{setting.questions.name} asks about none of the pictures. Name those that it asks about.")
    seen = {name: path for name, path in named.items() if held is None or name in held}
    if not seen:
        raise InputError(f"{setting.regions} has the regions of none of the pictures that are asked about.")
    found = held.read(list(seen)) if held else [None] * len(seen)
    return {
        f"{path.name}: {first[name]}": {"image": path, "text": first[name], "regions": each}
        for (name, path), each in zip(seen.items(), found, strict=True)
    }
