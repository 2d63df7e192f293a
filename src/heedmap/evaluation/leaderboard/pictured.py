"""Models that read pictures, asked about drawn ones: classifiers, detectors, and those that match captions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heedmap.context import context_of
from heedmap.evaluation.detections import seen
from heedmap.evaluation.drawn import GREY, SAME, matched, pairs, singles
from heedmap.evaluation.leaderboard.cases import Case, Fed, fed
from heedmap.evaluation.leaderboard.trials import SEEDS, Pictures
from heedmap.families.answering import certainties
from heedmap.menagerie import KINDS, Scene, phrase
from heedmap.zoo.regions import corners, overlap

SURE = 0.5  # a detector's object is one from here on


class Classifier(Pictures):
    """The first of two animals is asked about; the other one speaks for another class."""

    def placed(self, count: int) -> list[Case]:
        return [
            Case(each.seed, {"image": each.image}, self.model.index(a.kind), target=a.mask, others=b.mask)
            for each in pairs(count, SEEDS)
            for a, b in [each.animals]
        ]

    def details(self, count: int) -> list[Case]:
        return [
            Case(i, {"image": each.image}, self.model.index(kind), other=self.model.index(other), part=part)
            for i, (each, kind, other, part) in enumerate(self.deciding(count, SEEDS + 20_000))
        ]

    def single(self, count: int) -> list[Case]:
        return [
            Case(each.seed, {"image": each.image}, self.model.index(each.animals[0].kind))
            for each in singles(count, SEEDS + 10_000)
        ]

    def knows(self, one: Fed, pixels: Tensor) -> np.ndarray:
        logits = self.model.module(pixel_values=pixels).logits
        return logits.argmax(-1).cpu().numpy() == np.array([case.index for case in one.cases])


class Detector(Pictures):
    """Every object that the model is sure of and right about; other animals are not its business."""

    def placed(self, count: int) -> list[Case]:
        return self._found(pairs(count, SEEDS))

    def single(self, count: int) -> list[Case]:
        return self._found(singles(count, SEEDS + 10_000))

    def details(self, count: int) -> list[Case]:
        asked = list(self.deciding(count, SEEDS + 20_000))
        cases = []
        for i, (each, _, other, part) in enumerate(asked):
            cases += [
                Case(i, case.given, case.index, case.query, self.model.index(other), part=part)
                for case in self._found([each])
            ]
        return cases

    def _found(self, drawn: Sequence[Scene]) -> list[Case]:
        labels = self.model.labels
        known = {index: index for index, label in enumerate(labels) if label in KINDS}
        cases = []
        for start in range(0, len(drawn), self.batch):
            together = drawn[start : start + self.batch]
            looked = seen(self.model, [each.image for each in together], (), SURE, known)
            for each, one in zip(together, looked, strict=True):
                for place, animal in matched(one.sure, each, labels):
                    find = one.sure[place]
                    rest = [other.mask for other in each.animals if other is not animal]
                    others = np.any(rest, axis=0) if rest else np.zeros_like(animal.mask)
                    cases.append(
                        Case(each.seed, {"image": each.image}, find.index, find.query, None, animal.mask, others)
                    )
        return cases

    def knows(self, one: Fed, pixels: Tensor) -> np.ndarray:
        """Whether any query is still sure of the kind, where the animal is."""
        inputs = {**one.inputs, "pixel_values": pixels}
        output = self.model.module(**inputs)
        sure = certainties(output, context_of(self.model.module, inputs, causal=False))
        boxes = corners(output.pred_boxes.float()).clamp(0, 1)
        animals = torch.tensor([_box(case.target) for case in one.cases])
        there = overlap(boxes.cpu(), animals[:, None])[..., 0] > SAME
        classes = torch.tensor([case.index for case in one.cases])
        best, index = sure.cpu().max(-1)
        return ((best > SURE) & (index == classes[:, None]) & there).any(1).numpy()


class Matcher(Pictures):
    """A picture of two animals and a caption that names the first."""

    detailed = 1  # two captions are weighed for one picture at a time

    def placed(self, count: int) -> list[Case]:
        return [
            Case(each.seed, _captioned(each), 0, target=a.mask, others=b.mask)
            for each in pairs(count, SEEDS)
            for a, b in [each.animals]
        ]

    def single(self, count: int) -> list[Case]:
        return [Case(each.seed, _captioned(each), 0) for each in singles(count, SEEDS + 10_000)]

    def details(self, count: int) -> list[Case]:
        return [
            Case(i, {"image": each.image, "text": [phrase(kind), phrase(other)]}, 0, other=1, part=part)
            for i, (each, kind, other, part) in enumerate(self.deciding(count, SEEDS + 20_000))
        ]

    def fed(self, cases: Sequence[Case], turned: bool = False) -> Fed:
        inputs, shown = self.model.inputs(*self._given(cases))
        if cases[0].other is not None:
            return fed(cases, inputs, shown, turned)
        own = [Case(case.scene, case.given, i, target=case.target, others=case.others) for i, case in enumerate(cases)]
        return fed(own, inputs, shown, turned)  # each picture's caption is the one in its place

    def hidden(self, cases: Sequence[Case], masks: Sequence[np.ndarray]) -> dict[str, Tensor]:
        pictures, texts = self._given(cases)
        pictures = [np.array(picture) for picture in pictures]
        for picture, mask in zip(pictures, masks, strict=True):
            picture[mask] = GREY
        return self.model.inputs(pictures, texts)[0]

    def _given(self, cases: Sequence[Case]) -> tuple[list[Any], list[str]]:
        texts = [text for case in cases for text in case.given["text"]]
        return [case.given["image"] for case in cases], texts

    def knows(self, one: Fed, pixels: Tensor) -> np.ndarray:
        """Whether of all kinds' captions its own fits best."""
        logits = self.model.module(pixel_values=pixels, **self._every).logits_per_image
        own = [self._captions.index(case.given["text"][0]) for case in one.cases]
        return logits.argmax(-1).cpu().numpy() == np.array(own)

    @cached_property
    def _captions(self) -> list[str]:
        return [phrase(kind) for kind in KINDS]

    @cached_property
    def _every(self) -> dict[str, Tensor]:
        (drawn,) = singles(1, SEEDS)
        inputs = self.model.inputs(drawn.image, self._captions)[0]
        return {name: tensor for name, tensor in inputs.items() if name != "pixel_values"}


def _captioned(drawn: Scene) -> dict[str, Any]:
    return {"image": drawn.image, "text": [phrase(drawn.animals[0].kind)]}


def _box(mask: np.ndarray) -> list[float]:
    """Left, top, right, bottom of what a mask covers, as shares of it."""
    down, across = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return [across[0] / width, down[0] / height, (across[-1] + 1) / width, (down[-1] + 1) / height]
