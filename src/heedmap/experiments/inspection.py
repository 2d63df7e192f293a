"""Logical inspection: do the regions of a picture speak for the answers that they should?

    loss = logit(a) - logit(b)

with two answers that both fit the question. Alone, logit(a) can be lowered in many ways, in favour of any answer. Held
against b, what speaks for a is red, what speaks for b is blue, and each can be checked by its sense: of "is there a
zebra and a dog?" a zebra should speak for yes, and an elephant for no (heterogenous-attention, section 5.2, figure 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heedmap.errors import InputError
from heedmap.families.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heedmap.families import Answer, Model
    from heedmap.records import Explanation

MEETS = "zero-shot-image-classification"  # captions are no question
EVERY = 10**9


@dataclass(frozen=True)
class Voice:
    """A region or a word: the answer it speaks for, and its share of all that its kind says, for either."""

    name: str
    answer: str
    share: float
    value: float  # signed: above 0 for the first answer


@dataclass(frozen=True, eq=False)
class Inspection:
    """A question with two answers: the logit of the first explained, and its difference to the other's."""

    text: str
    answers: tuple[str, str]
    given: Answer  # what the model says
    probabilities: tuple[float, float]  # of the two
    alone: Explanation
    difference: Explanation

    @property
    def regions(self) -> tuple[Voice, ...]:
        """What has a place in the picture, by the difference, loudest first."""
        return self._voices(placed=True)

    @property
    def words(self) -> tuple[Voice, ...]:
        return self._voices(placed=False)

    def _voices(self, placed: bool) -> tuple[Voice, ...]:
        from heedmap.render import panels

        (panel,) = panels(self.difference)
        units = [unit for view in panel.views if view.placed == placed for unit in view.units]
        whole = sum(abs(unit.value) for unit in units)
        voices = [
            Voice(unit.name, self.answers[unit.value < 0], abs(unit.value) / whole, unit.value)
            for unit in units
            if unit.value
        ]
        return tuple(sorted(voices, key=lambda voice: -voice.share))


def inspect(
    model: Model,
    image: Any,
    text: str,
    answers: Sequence[str | int] | None = None,
    *,
    correction: str | None = None,
    regions: Any = None,
) -> Inspection:
    """Explain one answer alone, and held against the other; without `answers`, of the two that are likeliest."""
    task = getattr(model, "task", None)
    if task is None or TASKS[task].takes != ("image", "text") or task == MEETS:
        met = f"{model.source!r} does {task}" if task else f"The model is a {type(model).__name__}"
        raise InputError(f"{met}. heedmap inspects models that answer questions about pictures, such as zoo:lxmert.")
    if not isinstance(text, str) or isinstance(image, list | tuple):
        raise InputError("Several pictures or questions were given. heedmap inspects one of each at a time.")
    ranked = model.predict(image, text, top=EVERY, regions=regions)[0]
    first, second = _pair(answers, [_label(model, answer.label) for answer in ranked[:2]])
    alone, difference = (
        model.explain(image, text, first, against, correction=correction, regions=regions) for against in (None, second)
    )
    name = _answer(alone)
    other = _answer(difference).removeprefix(f"{name} rather than ")
    shares = {answer.label: answer.value for answer in reversed(ranked)}
    return Inspection(text, (name, other), ranked[0], (shares[name], shares[other]), alone, difference)


def _pair(answers: Sequence[str | int] | None, likeliest: Sequence[str | int]) -> tuple[str | int, str | int]:
    if answers is None:
        answers = likeliest
    if isinstance(answers, str) or len(answers) != 2 or answers[0] == answers[1]:
        raise InputError(f"answers is {answers!r}. heedmap expected two that differ, such as ('yes', 'no').")
    return answers[0], answers[1]


def _label(model: Model, label: str) -> str | int:
    """What the model calls an answer; of a model without names, its index."""
    return label if model.labels or not label.isdecimal() else int(label)


def _answer(explanation: Explanation) -> str:
    """What is explained, in the model's own words."""
    return explanation.shown[0].answer or ""
