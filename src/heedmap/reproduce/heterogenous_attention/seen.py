"""Animals that a detector sees in drawn scenes, and by each method why: what figures 2 to 4 are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from heedmap.errors import InputError
from heedmap.evaluation.drawn import matched as matched
from heedmap.evaluation.localisation import spread
from heedmap.menagerie import KINDS, Animal, Scene, scene
from heedmap.reproduce.findings import Setting
from heedmap.reproduce.worlds import batches, ground, pairs

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.families.answering import Found
    from heedmap.records import Explanation

DETECTS = "object-detection"
SEEDS = 900_000  # of this paper: no zoo model learned from them; each figure has its own thousand
GAE, ODAM, ABSOLUTE, POSITIVE, NOISED, COMPLETE = (
    "gae", "odam", "heed:absolute", "heed:positive", "heed:positive+noise", "heed",
)  # fmt: skip
PAPER = (GAE, ODAM, ABSOLUTE, POSITIVE, NOISED)
METHODS = (*PAPER, COMPLETE)
SURE = 0.5  # detections that the model is less sure of are left out
COLUMNS = 6  # detections that are shown


@dataclass(frozen=True, eq=False)
class Detection:
    """An animal that was detected, and by each method why."""

    scene: Scene
    animal: Animal
    object: Found  # what the model saw
    explained: Mapping[str, Explanation]  # each of this object alone

    def map(self, method: str) -> np.ndarray:
        """The relevance of each pixel."""
        return spread(self.explained[method])

    @property
    def neighbour(self) -> np.ndarray:
        """The pixels of the other animals."""
        return np.any([other.mask for other in self.scene.animals if other is not self.animal], axis=0)

    @property
    def ground(self) -> np.ndarray:
        return ground(self.scene)


def detector(setting: Setting) -> Model:
    """The zoo's detector, or the one that was asked for."""
    model = setting.loaded("zoo:detr")
    if model.task != DETECTS:
        raise InputError(f"{model.source!r} does {model.task}. This figure expected a detector, such as zoo:detr.")
    return model


def animals(count: int, seed: int) -> list[Scene]:
    """Scenes of two animals: half of them of one kind, half of two kinds."""
    half = -(-count // 2)
    return [scene((KINDS[i % len(KINDS)],) * 2, seed + i) for i in range(half)] + pairs(count - half, seed + half)


def twin(drawn: Scene) -> bool:
    """Whether all animals of a scene are of one kind."""
    return len({animal.kind for animal in drawn.animals}) == 1


def detections(
    model: Model, drawn: Sequence[Scene], methods: Sequence[str], step: Callable[[float], None]
) -> list[Detection]:
    """Every animal that the model is sure of, where it is, explained by each method: one forward pass for a batch."""
    from heedmap.evaluation.detections import seen

    known = {index: index for index, label in enumerate(model.labels) if label in KINDS}
    found: list[Detection] = []
    for done, together in batches(drawn):
        looked = seen(model, [each.image for each in together], methods, SURE, known)
        for each, one in zip(together, looked, strict=True):
            for place, animal in matched(one.sure, each, model.labels):
                told = {name: _named(one.said[name][place], one.sure[place], animal.kind) for name in methods}
                found.append(Detection(each, animal, one.sure[place], told))
        step(done / len(drawn))
    if not found:
        raise InputError(
            f"{model.source!r} is over {SURE:.0%} sure of none of the drawn animals. This figure expected a detector "
            "that knows them, such as zoo:detr."
        )
    return found


def _named(explanation: Explanation, object: Found, answer: str) -> Explanation:
    """With what is shown of it: its name, its box, how sure the model is."""
    (shown,) = explanation.shown
    return replace(explanation, shown=(replace(shown, answer=answer, box=object.box, sure=object.value),))


def shown(found: Sequence[Detection]) -> dict[str, list[Explanation]]:
    """A row for each method, a column for each of the first detections of two animals of one kind, and of two kinds."""
    same, other = ([each for each in found if twin(each.scene) is kind] for kind in (True, False))
    first = [*same[: COLUMNS - COLUMNS // 3], *other[: COLUMNS // 3]]
    return {method: [each.explained[method] for each in first] for method in METHODS}


def photographed(model: Model, setting: Setting) -> dict[str, list[Explanation]]:
    """A row for each picture and method, a column for each of its surest objects."""
    rows: dict[str, list[Explanation]] = {}
    for done, path in enumerate(setting.images, start=1):
        for method in METHODS:
            rows[f"{path.name}, {method}"] = model.explain_detections(str(path), SURE, COLUMNS, method=method)
        setting.step(done / len(setting.images))
    rows = {name: row for name, row in rows.items() if row}
    if not rows:
        raise InputError(
            f"{model.source!r} is over {SURE:.0%} sure of nothing in these pictures: there is nothing to explain. Give "
            "others with --images."
        )
    return rows


def scenewise(found: Sequence[Detection], values: Sequence[float]) -> list[float]:
    """One number for each scene: the mean of its detections."""
    scenes: dict[int, list[float]] = {}
    for each, value in zip(found, values, strict=True):
        scenes.setdefault(each.scene.seed, []).append(value)
    return [sum(some) / len(some) for some in scenes.values()]
