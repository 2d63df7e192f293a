"""Whether a rewritten category outlives what happens to pictures, and whether another model sees it too."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from heedmap.experiments.rewrite import chances, look

if TYPE_CHECKING:
    from heedmap.experiments.rewrite import Rewriting
    from heedmap.families import Model


@dataclass(frozen=True)
class Trial:
    """What a model says of the rewritten picture after something was done to it.

    `original` is what it says of the original after the same: what was lost there was not lost by rewriting.
    """

    name: str
    label: str
    value: float  # how probable that label is
    probability: float  # how probable the category is that was written
    survived: bool
    original: str


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def saved(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return saved


def _resized(picture: Image.Image) -> Image.Image:
    """To three quarters of its sides and back, bicubic."""
    smaller = tuple(max(1, side * 3 // 4) for side in picture.size)
    return picture.resize((smaller[0], smaller[1]), Image.Resampling.BICUBIC).resize(
        picture.size, Image.Resampling.BICUBIC
    )


TREATMENTS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 95": _jpeg(95),
    "JPEG, quality 75": _jpeg(75),
    "JPEG, quality 50": _jpeg(50),
    "resized to 3/4 and back": _resized,
}


def survival(rewriting: Rewriting, model: Model, others: Sequence[Model] = ()) -> tuple[Trial, ...]:
    """The rewritten picture after each treatment, and as it is to other models that know the category."""
    treated = [_tried(rewriting, model, name, treat) for name, treat in TREATMENTS.items()]
    return (*treated, *(_tried(rewriting, other, other.source, lambda picture: picture) for other in others))


def _tried(rewriting: Rewriting, model: Model, name: str, treat: Callable[[Image.Image], Image.Image]) -> Trial:
    wanted = model.index(rewriting.to if model.labels else int(rewriting.to))
    with torch.no_grad():
        found, untouched = (
            chances(model, look(model, treat(picture))[1])
            for picture in (rewriting.image, Image.fromarray(rewriting.original))
        )
    best = int(found.argmax())

    def called(index: int) -> str:
        return model.labels[index] if model.labels else str(index)

    return Trial(
        name=name,
        label=called(best),
        value=float(found[best]),
        probability=float(found[wanted]),
        survived=best == wanted,
        original=called(int(untouched.argmax())),
    )
