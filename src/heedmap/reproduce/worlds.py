"""Drawn scenes, explained many at a time, as relevance of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from heedmap.evaluation.drawn import GREY as GREY
from heedmap.evaluation.drawn import cosine as cosine
from heedmap.evaluation.drawn import of as of
from heedmap.evaluation.drawn import pairs as pairs
from heedmap.evaluation.drawn import parts as parts
from heedmap.evaluation.drawn import singles as singles
from heedmap.evaluation.localisation import spread
from heedmap.menagerie import Scene

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation

BATCH = 32
SEEDS = 800_000  # below those that the zoo learned from, above those of its cards; each figure has its own thousand


@dataclass(frozen=True)
class Ask:
    """A target for every scene, and what it is held against; how it is explained."""

    target: Callable[[Scene], str]
    against: Callable[[Scene], str] | None = None
    correction: str | None = None
    method: str = "heed"
    loss: str | None = None


def first(scene: Scene) -> str:
    return scene.animals[0].kind


def second(scene: Scene) -> str:
    return scene.animals[1].kind


Maps: TypeAlias = list[np.ndarray]


def relevance(
    model: Model, drawn: Sequence[Scene], asks: Sequence[Ask], step: Callable[[float], None], **options: Any
) -> list[Maps]:
    """For each ask the relevance of every scene's pixels."""
    maps: list[Maps] = [[] for _ in asks]
    for done, together in batches(drawn):
        for i, found in enumerate(explained(model, together, asks, **options)):
            maps[i] += [spread(found, example) for example in range(len(together))]
        step(done / len(drawn))
    return maps


def explained(model: Model, drawn: Sequence[Scene], asks: Sequence[Ask], **options: Any) -> list[Explanation]:
    """One explanation of all scenes for each ask."""
    images = [each.image for each in drawn]
    return [
        model.explain(
            images,
            target=[ask.target(each) for each in drawn],
            against=None if ask.against is None else [ask.against(each) for each in drawn],
            loss=ask.loss,
            correction=ask.correction,
            method=ask.method,
            **options,
        )
        for ask in asks
    ]


def batches(drawn: Sequence[Scene], size: int = BATCH) -> Iterator[tuple[int, list[Scene]]]:
    """How many are done after each, and the scenes of it."""
    waiting = iter(drawn)
    done = 0
    while together := list(islice(waiting, size)):
        done += len(together)
        yield done, together


def ground(drawn: Scene) -> np.ndarray:
    """The pixels of no animal."""
    return ~np.any([animal.mask for animal in drawn.animals], axis=0)


def effects(model: Model, drawn: Sequence[Scene], masks: Sequence[np.ndarray], ask: Ask) -> list[float]:
    """By how much some pixels of each scene raise what is asked: what it loses when they become mid-grey."""
    return gains(model, drawn, [np.zeros_like(mask) for mask in masks], masks, ask)


def gains(
    model: Model, drawn: Sequence[Scene], hidden: Sequence[np.ndarray], also: Sequence[np.ndarray], ask: Ask
) -> list[float]:
    """What is asked of each scene with `hidden` under mid-grey, less the same with `also` under it too."""
    import torch

    index = {label: i for i, label in enumerate(model.labels)}
    found: list[float] = []
    for done, together in batches(drawn):
        here = slice(done - len(together), done)
        covered = [hidden[here], [a | b for a, b in zip(hidden[here], also[here], strict=True)]]
        seen = []
        for masks in covered:
            images = [np.array(each.image) for each in together]
            for image, mask in zip(images, masks, strict=True):
                image[mask] = GREY
            inputs, _ = model.inputs(images)
            with torch.no_grad():
                logits = model.module(**inputs).logits.double().cpu().numpy()
            rows = range(len(images))
            other = 0 if ask.against is None else logits[rows, [index[ask.against(each)] for each in together]]
            seen.append(logits[rows, [index[ask.target(each)] for each in together]] - other)
        found += (seen[0] - seen[1]).tolist()
    return found


def agrees(says: Sequence[float], does: Sequence[float]) -> list[float]:
    """Whether what a map says of some pixels has the sign of what they do; NaN where it says nothing."""
    return [
        float("nan") if np.isnan(a) or not a else float((a > 0) == (b > 0)) for a, b in zip(says, does, strict=True)
    ]
