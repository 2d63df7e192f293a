"""Explaining a picture while another class stands beside it.

With one class in a picture there is nowhere for attention to go but within it; with another beside it, attention that
leaves the class goes there, and all of the class speaks for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from heedmap.errors import InputError
from heedmap.guidance.guides import guide as read_guide
from heedmap.guidance.stitching import Stitched, cut, stitch
from heedmap.records import Explanation

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from heedmap.families import Model

SEEN = 5  # a guide's class is seen if it is among so many of a pair's likeliest answers
CLASSIFIES = "image-classification"
GUIDED = (CLASSIFIES, "zero-shot-image-classification")

Explain = Callable[[list["Image"], Sequence[Any]], list[Explanation]]


class GuideWarning(UserWarning):
    """A guide that cannot steer: the model does not see its class, or it is the class that is explained."""


@dataclass(frozen=True)
class Sight:
    """What a model makes of a guide: its class, and how likely that is in a picture and in the pair."""

    label: str
    alone: float
    paired: float
    rank: int  # among the pair's answers; 1 is the likeliest

    @property
    def seen(self) -> bool:
        return self.rank <= SEEN and self.paired > self.alone


def guided(
    model: Model, image: Any, text: Any, targets: Sequence[Any], guide: Any, side: str, explain: Explain
) -> list[Explanation]:
    """What `explain` says of each picture when it stands beside the guide, cut back to the picture.

    A target that is None is what the model predicts of the picture alone: beside the guide it may be the guide's class.
    """
    from heedmap.families.pictures import read, shown

    if image is None:
        raise InputError("A guide is stitched to a picture, and no picture was given. Leave guide= out.")
    if model.task not in GUIDED:
        raise InputError(
            f"{model.source!r} does {model.task}. A guide steers models that classify pictures or match them with "
            "captions. Leave guide= out."
        )
    pictures = [read(one) for one in (image if isinstance(image, list | tuple) else [image])]
    other = read_guide(guide)
    pairs = pair(model, pictures, other, side)
    images = [each.image for each in pairs]
    alone = _chances(model, pictures) if model.task == CLASSIFIES else None
    predicted: list[Any] = []
    if alone is not None:
        predicted = alone.argmax(-1).tolist()
    elif any(target is None for target in targets):
        predicted = [answers[0].label for answers in model.predict(pictures, text, top=1)]
    named = tuple(one if isinstance(one, str) else _name(model, one) for one in predicted)
    open_ = predicted[0] if len(predicted) == 1 else predicted
    found = explain(images, [open_ if target is None else target for target in targets])
    sights = [] if alone is None else _sights(model, alone, _chances(model, images), other)
    finished = []
    for explanation, target in zip(found, targets, strict=True):
        _warn(sights, [example.answer for example in explanation.shown])
        bare = cut(explanation, pairs[0].window, [shown(picture) for picture in pictures])
        finished.append(
            replace(
                bare,
                predicted=named if target is None else bare.predicted,
                shown=_titled(bare, sights),
                metadata=_noted(bare, side, sights),
            )
        )
    return finished


def pair(model: Model, pictures: Sequence[Image], guide: Image, side: str = "right") -> list[Stitched]:
    """Each picture stitched to the guide, of the size that the model looks at where it has one."""
    natural = [stitch(picture, guide, side) for picture in pictures]
    size = _size(model, natural[0].image, pictures[0])
    return natural if size is None else [stitch(picture, guide, side, size) for picture in pictures]


def _size(model: Model, *images: Image) -> tuple[int, int] | None:
    """Width and height of the model's input, where it is the same for pictures of any shape."""
    from heedmap.families.feeding import pixels

    shapes = {tuple(pixels(model.processor.image, [image])["pixel_values"].shape[-2:]) for image in images}
    (height, width), *others = shapes
    return None if others else (width, height)


def _sights(model: Model, alone: Tensor, paired: Tensor, guide: Image) -> list[Sight]:
    """How the guide is seen in each pair, told from the chances of the classes."""
    index = int(_chances(model, [guide])[0].argmax())
    ranks = ((paired > paired[:, index, None]).sum(1) + 1).tolist()
    label = _name(model, index)
    return [Sight(label, float(alone[i, index]), float(paired[i, index]), ranks[i]) for i in range(len(paired))]


def _name(model: Model, index: int) -> str:
    return model.labels[index] if index < len(model.labels) else str(index)


def _chances(model: Model, images: list[Image]) -> Tensor:
    import torch

    from heedmap.families.answering import probabilities

    inputs, _ = model.inputs(images)
    with torch.no_grad():
        return probabilities(model.module(**inputs).logits, model.task, model.config)


def _warn(sights: Sequence[Sight], answers: Sequence[str | None]) -> None:
    for i, sight in enumerate(sights):
        where = f" (picture {i})" if len(sights) > 1 else ""
        if sight.label == answers[i]:
            said = f"shows {sight.label}, the class that is explained{where}: attention has nowhere else to go"
        elif not sight.seen:
            said = f"({sight.label}) is hardly seen beside the picture{where}: {sight.paired:.1%}, number {sight.rank}"
        else:
            continue
        warnings.warn(f"The guide {said}. Take a guide of another class.", GuideWarning, stacklevel=2)


def _titled(explanation: Explanation, sights: Sequence[Sight]) -> tuple[Any, ...]:
    labels = [sight.label for sight in sights] or [""] * len(explanation.shown)
    return tuple(
        replace(example, answer=f"{example.answer}, guided by {label}" if label else example.answer)
        for example, label in zip(explanation.shown, labels, strict=True)
    )


def _noted(explanation: Explanation, side: str, sights: Sequence[Sight]) -> dict[str, str]:
    seen = "; ".join(f"{sight.label}, {sight.paired:.3f}, number {sight.rank}" for sight in sights)
    return {
        **explanation.metadata,
        "guide": f"on the {side}" if side in ("left", "right") else side,
        "guide seen as": seen,
    }
