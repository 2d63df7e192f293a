"""Rewriting a picture's category: pixels follow their gradient until the model says something else of them.

    loss = logit(a) - logit(b)
    picture <- picture - step * gradient / max |gradient|

(attention-and-gradient, section 4.5). It shows how little a model's answer may hang on what a person sees, and what its
explanation makes of that. It studies a weakness of a model; it is not for passing off altered pictures.

Every answer on the way is that to the 8-bit picture as it would be saved, through the model's own processor; only the
gradient takes a linear stand-in of the processor (`pulling`). So what is said of a rewritten picture holds of its file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from heedmap.context import context_of
from heedmap.errors import GradientError, InputError
from heedmap.evaluation.likeness import psnr, ssim
from heedmap.experiments.pulling import stand_in
from heedmap.families import Answer, Model
from heedmap.families.answering import probabilities
from heedmap.families.feeding import feed
from heedmap.families.pictures import read
from heedmap.records import Explanation
from heedmap.targets.fields import logits_of

if TYPE_CHECKING:
    from PIL.Image import Image

CLASSIFIES = "image-classification"
NORMS = ("inf", "2")
STEP, STEPS, CONFIDENCE = 2.0, 200, 0.5  # levels, steps, probability
WHITE = 255
EDGE = 1e-6  # of a bound is left free, so that the precision of numbers cannot pass it


@dataclass(frozen=True)
class Reading:
    """What a model makes of one picture: its likeliest answers, and the two that matter."""

    answers: tuple[Answer, ...]
    logits: tuple[float, float]  # of the answer that was left, and of the one that was aimed at
    probabilities: tuple[float, float]


@dataclass(frozen=True)
class Settings:
    """`step` and `bound` are in levels of 255; a bound of norm "2" is the root of the sum of all squared changes."""

    step: float = STEP
    steps: int = STEPS
    bound: float | None = None
    norm: str = "inf"
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise InputError(f"The norm is {self.norm!r}. heedmap expected one of {', '.join(NORMS)}.")
        if not (0 < self.step <= WHITE and self.steps >= 1 and 0 <= self.confidence < 1):
            raise InputError(
                f"Steps of {self.step:g} levels, {self.steps} of them, to a confidence of {self.confidence:g}. heedmap "
                f"expected steps of more than 0 levels (up to {WHITE}), at least one, and a confidence from 0 to less "
                "than 1."
            )
        if self.bound is not None and not self.bound >= 1:
            raise InputError(
                f"The bound is {self.bound:g}. heedmap expected at least 1 level: a byte cannot change by less."
            )


@dataclass(frozen=True, eq=False)
class Rewriting:
    """A picture before and after, and what the model says of either.

    Explanations are of the answer left, of the one aimed at, and of the first rather than the second.
    """

    source: str
    to: str
    original: np.ndarray  # bytes (height, width, 3)
    rewritten: np.ndarray
    reached: bool
    steps: int
    settings: Settings
    before: Reading
    after: Reading
    explained_before: tuple[Explanation, Explanation, Explanation]
    explained_after: tuple[Explanation, Explanation, Explanation]

    @property
    def image(self) -> Image:
        """The rewritten picture. Save it without loss: as PNG."""
        from PIL import Image

        return Image.fromarray(self.rewritten)

    @cached_property
    def change(self) -> np.ndarray:
        """By how many levels each value changed, signed."""
        return self.rewritten.astype(np.int16) - self.original

    @cached_property
    def numbers(self) -> dict[str, float]:
        """How much was changed: levels of 255, and what of the picture changed at all."""
        size = np.abs(self.change)
        return {
            "psnr": psnr(self.original, self.rewritten),
            "ssim": ssim(self.original, self.rewritten),
            "largest": int(size.max()),
            "mean": float(size.mean()),
            "norm2": math.sqrt(float(np.square(self.change, dtype=np.float64).sum())),
            "touched": float(size.any(-1).mean()),  # share of pixels
        }

    @property
    def message(self) -> str:
        """What came of it, in a line."""
        told = self.after.answers[0]
        if self.reached and not self.steps:
            return f"The picture is {self.to} already ({told.value:.1%}): nothing was changed."
        if self.reached:
            first = self.before.answers[0]  # not always the answer that was to be left
            was = f"{first.label} {first.value:.1%}"
            return f"{was} became {self.to} {self.after.probabilities[1]:.1%} in {_counted(self.steps, 'step')}."
        within = "" if self.settings.bound is None else f" within {_bound(self.settings)}"
        return (
            f"{self.to} was not reached{within}: after {_counted(self.steps, 'step')} the model says {told.label} "
            f"({told.value:.1%}), {self.to} {self.after.probabilities[1]:.1%}, and {self.settings.confidence:.0%} was "
            f"wanted. Allow more steps{'' if self.settings.bound is None else ' or a wider bound'}."
        )


def rewrite(
    model: Model,
    image: Any,
    to: str | int,
    source: str | int | None = None,
    *,
    step: float = STEP,
    steps: int = STEPS,
    bound: float | None = None,
    norm: str = "inf",
    confidence: float = CONFIDENCE,
) -> Rewriting:
    """Change a picture until the model says `to` of it with at least `confidence`, or `steps` are over.

    `source` is the answer that is left, the prediction where none is named. In a step the pixel that matters most
    changes by `step` levels of 255, the others in proportion. With norm "inf" no value changes by more than `bound`
    levels; with norm "2" the root of the sum of all squared changes stays within it.
    """
    from PIL import Image

    settings = Settings(step, steps, bound, norm, confidence)
    if model.task != CLASSIFIES:
        raise InputError(f"{model.source!r} does {model.task}. heedmap rewrites what a picture is to a classifier.")
    picture = read(image)
    original = np.asarray(picture)
    a, b = _answers(model, picture, to, source)
    explained = _explained(model, picture, a, b)
    way = stand_in(model.processor.image, picture)
    change = np.zeros(original.shape, np.float32)
    seen, done = original, 0
    pixels, logits = look(model, picture)
    first = logits
    while not (reached := _sure(model, logits, b, confidence)) and done < steps:
        slope = way.back(_gradient(logits[a] - logits[b], pixels))
        change = _kept(change - step * slope / _peak(slope), original, settings)
        seen = _whole(original, change)
        pixels, logits = look(model, Image.fromarray(seen))
        done += 1
    after = Image.fromarray(seen)
    return Rewriting(
        source=_name(model, a),
        to=_name(model, b),
        original=original,
        rewritten=seen,
        reached=reached,
        steps=done,
        settings=settings,
        before=_reading(model, picture, first, a, b),
        after=_reading(model, after, logits, a, b),
        explained_before=explained,
        explained_after=_explained(model, after, a, b),
    )


def look(model: Model, image: Image) -> tuple[Tensor, Tensor]:
    """The pixels as the model's processor makes them, and the logits, with the graph from one to the other."""
    fed = feed(model.module, model.processor, model.task, model.source, image)
    pixels = fed.inputs["pixel_values"].detach().requires_grad_()
    inputs = {**fed.inputs, "pixel_values": pixels}
    with torch.enable_grad():
        output = model.module(**inputs)
        return pixels, logits_of(output, context_of(model.module, inputs, causal=False))[0]


def chances(model: Model, logits: Tensor) -> Tensor:
    """How probable the model finds each class."""
    return probabilities(logits.detach(), model.task, model.config)


def _name(model: Model, index: int) -> str:
    return model.labels[index] if model.labels else str(index)


def _answers(model: Model, picture: Image, to: str | int, source: str | int | None) -> tuple[int, int]:
    """The answer to leave and the one to reach."""
    b = model.index(to)
    if source is not None:
        a = model.index(source)
        if a == b:
            raise InputError(f"The answer to leave and the one to reach are both {_name(model, b)!r}. Name two.")
        return a, b
    a = int(look(model, picture)[1].argmax())
    if a == b:
        raise InputError(
            f"The model says {_name(model, b)!r} of this picture already. Name another answer to reach, or, to make it "
            "surer, the answer to leave."
        )
    return a, b


def _sure(model: Model, logits: Tensor, b: int, confidence: float) -> bool:
    """Whether it is the model's first answer, and probable enough."""
    found = chances(model, logits)
    return int(found.argmax()) == b and float(found[b]) >= confidence


def _gradient(loss: Tensor, pixels: Tensor) -> np.ndarray:
    (gradient,) = torch.autograd.grad(loss, pixels)
    return gradient[0].float().cpu().numpy()


def _peak(slope: np.ndarray) -> float:
    peak = float(np.abs(slope).max())
    if not 0 < peak < math.inf:
        raise GradientError(f"The largest gradient at the picture's pixels is {peak}: they have nothing to follow.")
    return peak


def _kept(change: np.ndarray, original: np.ndarray, settings: Settings) -> np.ndarray:
    """The nearest change that leaves every value within 0 to 255, and all of it within the bound."""
    if settings.bound is not None and settings.norm == "inf":
        change = change.clip(-settings.bound, settings.bound)
    change = change.clip(-original.astype(np.float32), WHITE - original.astype(np.float32))
    if settings.bound is not None and settings.norm == "2":
        length = float(np.linalg.norm(change.astype(np.float64)))
        change = change * min(1.0, (1 - EDGE) * settings.bound / max(length, EDGE))
    return change


def _whole(original: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The picture in bytes, rounded toward the original: so no rounding can pass a bound."""
    return (original + np.trunc(change)).astype(np.uint8)


def _reading(model: Model, image: Image, logits: Tensor, a: int, b: int) -> Reading:
    found = chances(model, logits)
    return Reading(
        answers=model.predict(image)[0],
        logits=(float(logits[a].detach()), float(logits[b].detach())),
        probabilities=(float(found[a]), float(found[b])),
    )


def _explained(model: Model, image: Image, a: int, b: int) -> tuple[Explanation, Explanation, Explanation]:
    left, reached = model.explain_each(image, targets=[a, b])
    return left, reached, model.explain(image, target=a, against=b)


def _bound(settings: Settings) -> str:
    assert settings.bound is not None
    return f"{_counted(settings.bound, 'level')}{' (norm 2)' if settings.norm == '2' else ''}"


def _counted(count: float, what: str) -> str:
    return f"{count:g} {what}{'' if count == 1 else 's'}"
