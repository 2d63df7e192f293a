"""Attention transfer: when attention weights alone descend a class's logit, where does attention go?

The weights A of every call of one picture become free numbers, and nothing else of the model changes:

    A <- A - rate * d logit(target) / d A       (attention-and-gradient, section 4.4 and figure 6)

With out = A V the gradient of the weights is dOut V^T: the same gradient by which complete correction explains them. So
one backward pass tells both how the weights move and what now speaks for the target, and against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from heedmap import api
from heedmap.checking import batches, connected, recorded, start_states
from heedmap.context import context_of
from heedmap.correction import correction
from heedmap.errors import InputError
from heedmap.families.answering import probabilities
from heedmap.records import Explanation, Heads
from heedmap.targets import Context, Target, as_target, evaluate
from heedmap.targets.fields import logits_of
from heedmap.walk import Walk

if TYPE_CHECKING:
    from torch import Tensor, nn

    from heedmap.capture import Recording
    from heedmap.families import Model
    from heedmap.propagation import Gradients
    from heedmap.records import Wiring
    from heedmap.walk import Wanted

RATE = 0.0004  # the paper's
STEPS = 100
TASK = "image-classification"


@dataclass(frozen=True)
class Step:
    """The model after so many steps of descent: both answers explained, and how probable it finds them."""

    number: int
    target: Explanation
    other: Explanation
    probability: tuple[float, float]  # of the target, of the other
    predicted: str

    @property
    def logits(self) -> tuple[float, float]:
        """Of the target, of the other."""
        return self.target.value.item(), self.other.value.item()

    @cached_property
    def centre(self) -> tuple[float, float] | None:
        """The centre of what speaks for the target, as shares of the picture's width and height."""
        return centre(self.target)


@dataclass(frozen=True)
class Transfer:
    """Every step of a descent, the model as it stands first."""

    source: str
    target: str
    other: str
    rate: float
    layers: tuple[int, ...]  # the calls whose weights were free
    steps: tuple[Step, ...]

    def kept(self, count: int = 8) -> tuple[Step, ...]:
        """So many steps, evenly spread, the first and the last among them."""
        if count < 2:
            raise InputError(f"{count} steps are to be kept. heedmap expected at least 2, the first and the last.")
        last = len(self.steps) - 1
        return tuple(self.steps[i] for i in sorted({round(i * last / (count - 1)) for i in range(count)}))

    def numbers(self) -> dict[str, Any]:
        """The whole descent in plain numbers, but for the relevance of the single patches."""
        return {
            "model": self.source,
            "target": self.target,
            "other": self.other,
            "rate": self.rate,
            "layers": list(self.layers),
            "steps": [
                {
                    "step": step.number,
                    "logits": list(step.logits),
                    "probabilities": list(step.probability),
                    "predicted": step.predicted,
                    "centre": step.centre and list(step.centre),
                }
                for step in self.steps
            ],
        }


def transfer(
    model: Model,
    image: Any,
    target: str | int | None = None,
    other: str | int | None = None,
    *,
    steps: int = STEPS,
    rate: float = RATE,
    layers: Sequence[int] | None = None,
    until: Callable[[Step], bool] | None = None,
) -> Transfer:
    """Let the attention weights of one picture descend the target's logit, and explain the model at every step.

    Where they are not named, `target` is what the model predicts and `other` what it finds likeliest beside it.
    `layers` are the calls whose weights are free, by number; None is all. `until` is asked at every step whether it is
    the last.

    The weights are not normalised again: a row need not sum to 1, and a weight may fall below 0. What a mask holds at 0
    stays there. Free weights no longer hang on queries and keys, so no gradient passes through those: the explanation
    of step 0 is near that of the model as it stands, not the same.
    """
    _check(model, steps, rate)
    inputs, shown = model.inputs(image)
    if len(shown) != 1:
        raise InputError(f"{len(shown)} pictures were given. heedmap transfers the attention of one at a time.")
    pair = _pair(model, inputs, target, other)
    weights = api.weights(model.module, inputs)
    free = _free(layers, len(weights))
    heard = {index: weights[index] != 0 for index in free}  # not what a mask hides
    edits = {index: weights[index].clone() for index in free}
    asked = [index if label is None else label for label, index in zip((target, other), pair, strict=True)]
    begun = model.explain_each(image, targets=asked, edits=edits)  # says what the tokens are, and probes the wiring
    met: list[Step] = []
    while True:
        look = _look(model.module, inputs, pair, edits)
        met.append(_step(len(met), look, begun, pair, model))
        if len(met) > steps or (until is not None and until(met[-1])):
            return Transfer(model.source, _name(model, pair[0]), _name(model, pair[1]), rate, free, tuple(met))
        for index, change in look.changes.items():
            edits[index] -= rate * change * heard[index]


def centre(explanation: Explanation) -> tuple[float, float] | None:
    """The centre of positive relevance, as shares of the picture; None where nothing that has a place is positive."""
    from heedmap.render import panels

    units = [unit for view in panels(explanation)[0].views for unit in view.patches if unit.value > 0]
    total = sum(unit.value for unit in units)
    places = [(unit.value / total, unit.window) for unit in units if unit.window is not None]
    if not places:
        return None
    return (
        sum(share * (left + right) / 2 for share, (left, _, right, _) in places),
        sum(share * (top + bottom) / 2 for share, (_, top, _, bottom) in places),
    )


# ---- one step


@dataclass(frozen=True)
class _Look:
    """What one forward pass tells."""

    logits: Tensor
    answers: tuple[_Answer, ...]
    changes: Mapping[int, Tensor]  # the gradient of the first answer by the free weights of each call


class _Answer(NamedTuple):
    value: Tensor
    relevance: Mapping[str, Tensor]
    starts: Mapping[str, Tensor]


def _look(module: nn.Module, inputs: Any, pair: Sequence[int], edits: Mapping[int, Tensor]) -> _Look:
    """One forward pass, and one backward pass for each answer."""
    context = context_of(module, inputs, causal=False)
    changes: dict[int, Tensor] = {}

    def moving(index: int, heads: Heads, gradient: Tensor) -> None:
        if index in edits:
            changes[index] = gradient @ heads.values.mT

    with recorded(module, inputs, None, verify=False, edits=edits) as (recording, wired):
        logits = logits_of(recording.output, context).detach()
        if not logits.isfinite().all():
            raise InputError("The logits are no longer finite: the weights went too far. Give a smaller rate.")
        target, other = map(as_target, pair)
        answers = (
            _answer(recording, wired, target, context, moving),
            _answer(recording, wired, other, context),
        )
        return _Look(logits, answers, changes)


def _answer(
    recording: Recording,
    wired: Wiring,
    target: Target,
    context: Context,
    moving: Callable[[int, Heads, Tensor], None] | None = None,
) -> _Answer:
    """One backward pass: what flowed to an answer; `moving` is told of each call on the way, and more is to come."""
    value, seen = recording.evaluate(lambda output: evaluate(target, output, context))
    starts = start_states(None, connected(value, seen), wired, recording.marks)
    walk = Walk(wired, correction("complete"), starts)

    def meet(index: int, heads: Heads, gradient: Tensor, wanted: Wanted | None) -> tuple[bool, Gradients | None]:
        if moving is not None:
            moving(index, heads, gradient)
        return walk.step(index, heads, gradient, wanted)

    recording.backward(value, batches(recording, wired, 1), meet, keep=moving is not None)
    return _Answer(value.detach(), *walk.finish())


def _step(number: int, look: _Look, begun: Sequence[Explanation], pair: Sequence[int], model: Model) -> Step:
    target, other = (
        replace(explanation, **answer._asdict()) for explanation, answer in zip(begun, look.answers, strict=True)
    )
    shares = probabilities(look.logits, model.task, model.config)[0]
    sure = shares[pair[0]].item(), shares[pair[1]].item()
    return Step(number, target, other, sure, _name(model, int(look.logits[0].argmax())))


# ---- what is asked


def _check(model: Model, steps: int, rate: float) -> None:
    task = getattr(model, "task", None)
    if task != TASK:
        met = f"{model.source!r} does {task}" if task else f"The model is a {type(model).__name__}"
        raise InputError(f"{met}. heedmap transfers attention in models that classify pictures, such as zoo:vit.")
    if steps < 0 or not (rate > 0 and math.isfinite(rate)):
        raise InputError(f"steps={steps}, rate={rate}. heedmap expected no less than 0 steps, and a rate above 0.")


def _pair(model: Model, inputs: Mapping[str, Tensor], *labels: str | int | None) -> tuple[int, int]:
    """The classes that are meant; where none is named, the likeliest that is left."""
    with torch.no_grad():
        logits = logits_of(model.module(**inputs), context_of(model.module, inputs, causal=False))[0]
    if len(logits) < 2:
        raise InputError(f"{model.source!r} has one class. heedmap expected two to go between.")
    named = [None if label is None else model.index(label) for label in labels]
    ranked = [index for index in logits.argsort(descending=True).tolist() if index not in named]
    target, other = (ranked.pop(0) if index is None else index for index in named)
    if target == other:
        raise InputError(f"The target and the other answer are both {_name(model, target)!r}. Name two answers.")
    return target, other


def _free(layers: Sequence[int] | None, calls: int) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(calls))
    wrong = [index for index in layers if not 0 <= index < calls]
    if wrong or not layers:
        raise InputError(f"layers are {list(layers)}. heedmap expected some of the model's calls, 0 to {calls - 1}.")
    return tuple(sorted(set(layers)))


def _name(model: Model, index: int) -> str:
    return model.labels[index] if model.labels else str(index)
