"""Perturbation: how fast a model forgets a picture's label while what a map ranks highest, or lowest, is hidden.

Positive order hides the most relevant first: the faster the accuracy falls, the better the map. Negative order hides
the least relevant first: the longer it stays, the better. A picture may have a guide of another class beside it; what
is explained is still the picture's own label, and the tokens of the whole pair are ranked (attention-and-gradient,
section 4.6). Maps are not computed anew while parts are hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from heedmap.errors import InputError
from heedmap.evaluation.folders import Labelled
from heedmap.evaluation.hiding import RANDOM, TARGETS, Guide, Hiding
from heedmap.evaluation.masking import MASKS, ORDERS, check_drop
from heedmap.evaluation.statistics import Mean, difference, mean
from heedmap.methods import method

if TYPE_CHECKING:
    from heedmap.families import Model

RULE = "trapezoid of the accuracy over the fractions hidden, times 100"  # not divided by how far the fractions go
STEPS = tuple(i / 10 for i in range(10))
UNITS = {"token": "mean", "pixel": "zero"}  # and how each is hidden unless told
CLASSIFIES = "image-classification"


@dataclass(frozen=True, eq=False)
class Curve:
    """`hits` (picture, step): whether the answer was the picture's label when so much was hidden."""

    method: str
    order: str
    steps: tuple[float, ...]
    hits: np.ndarray = field(repr=False)

    @cached_property
    def accuracy(self) -> tuple[Mean, ...]:
        return tuple(mean(column) for column in self.hits.T)

    @cached_property
    def areas(self) -> np.ndarray:
        """The area under each picture's own curve, by RULE; their mean is the area under the accuracy."""
        return area(self.steps, self.hits)

    @cached_property
    def auc(self) -> Mean:
        return mean(self.areas)


@dataclass(frozen=True, eq=False)
class Perturbation:
    """Accuracy step by step for every method and order, and how it was measured."""

    model: str
    curves: tuple[Curve, ...]
    steps: tuple[float, ...]
    unit: str
    mask: str
    target: str
    guide: str | None  # the class of what stood beside the pictures
    side: str
    seed: int
    pictures: int
    left_out: int  # pictures of the guide's own class
    skipped: Mapping[str, str]  # what could not be read, and why

    def curve(self, method: str, order: str) -> Curve:
        for one in self.curves:
            if (one.method, one.order) == (method, order):
                return one
        raise InputError(f"There is no curve of {method!r} in {order!r} order. There are {self._names()}.")

    def difference(self, a: str, b: str, order: str) -> Mean:
        """By how much the area of one method exceeds another's, picture by picture."""
        return difference(self.curve(a, order).areas.tolist(), self.curve(b, order).areas.tolist())

    def differences(self) -> list[tuple[str, str, str, Mean]]:
        """Every two methods: a, b, order, a - b."""
        orders = list(dict.fromkeys(one.order for one in self.curves))
        names = list(dict.fromkeys(one.method for one in self.curves))
        return [(a, b, order, self.difference(a, b, order)) for order in orders for a, b in combinations(names, 2)]

    def record(self) -> dict[str, Any]:
        """All of it as plain numbers and words."""
        told = ("model", "unit", "mask", "target", "guide", "side", "seed", "pictures", "left_out")
        return {
            **{name: getattr(self, name) for name in told},
            "skipped": dict(self.skipped),
            "rule": RULE,
            "steps": list(self.steps),
            "curves": [
                {
                    "method": one.method,
                    "order": one.order,
                    "auc": _plain(one.auc),
                    "accuracy": [_plain(each) for each in one.accuracy],
                }
                for one in self.curves
            ],
            "differences": [
                {"a": a, "b": b, "order": order, "auc": _plain(each)} for a, b, order, each in self.differences()
            ],
        }

    def _names(self) -> str:
        return ", ".join(f"{one.method} {one.order}" for one in self.curves)


def perturbation(
    model: Model,
    pictures: Sequence[Labelled],
    methods: Sequence[str] = ("heed", "gae"),
    orders: Sequence[str] = tuple(ORDERS),
    *,
    guide: Any = None,
    guide_label: str | int | None = None,
    side: str = "right",
    mask: str | None = None,
    unit: str = "token",
    steps: Sequence[float] = STEPS,
    batch: int = 16,
    seed: int = 0,
    target: str = "label",
    progress: Callable[[int], None] = lambda pictures: None,
) -> Perturbation:
    """Hide what each method ranks highest or lowest, step by step, and ask the model each time.

    `unit` is what is ranked and hidden, "token" or "pixel"; `mask` is "mean" (the processor's mean colour), "zero"
    (black) or "drop" (the token is left out); tokens take "mean" and pixels "zero" unless told. `guide` is a picture,
    or `menagerie:zebra`; pictures of its class (`guide_label`, by default what the model sees in it) are left out.
    `target` is whose logit is explained, that of the "label" or of what is "predicted"; the accuracy is always the
    label's. `progress` is told how many more pictures are done.
    """
    mask = mask or UNITS.get(unit, "mean")
    _check(model, methods, orders, mask, unit, steps, batch, target)
    beside = None if guide is None else Guide.of(model, guide, guide_label, side)
    wanted = [(place, one) for place, one in enumerate(pictures) if beside is None or one.index != beside.index]
    progress(len(pictures) - len(wanted))
    hiding = Hiding(model, tuple(methods), tuple(orders), tuple(steps), mask, unit, target, beside, seed)
    hits: list[np.ndarray] = []
    skipped: dict[str, str] = {}
    for start in range(0, len(wanted), batch):
        some = wanted[start : start + batch]
        for fed in hiding.fed(some, skipped):
            if mask == "drop" and not hits:
                check_drop(model.module, fed.pixels, fed.grid, fed.tokens)
            hits.append(hiding.measured(fed))
        progress(len(some))
    if not hits:
        raise InputError(_nothing(len(pictures), len(pictures) - len(wanted), skipped))
    whole = np.concatenate(hits)
    pairs = [(name, order) for name in methods for order in orders]
    return Perturbation(
        model=model.source,
        curves=tuple(Curve(*pair, tuple(steps), whole[:, i]) for i, pair in enumerate(pairs)),
        steps=tuple(steps),
        unit=unit,
        mask=mask,
        target=target,
        guide=beside.label if beside else None,
        side=side if beside else "",
        seed=seed,
        pictures=len(whole),
        left_out=len(pictures) - len(wanted),
        skipped=skipped,
    )


def area(steps: Sequence[float], values: np.ndarray) -> np.ndarray:
    """The area under curves (curve, step), by RULE."""
    widths, heights = np.diff(np.asarray(steps)), np.asarray(values, dtype=np.float64)
    return 100 * ((heights[..., 1:] + heights[..., :-1]) / 2 * widths).sum(-1)


def _check(
    model: Model,
    methods: Sequence[str],
    orders: Sequence[str],
    mask: str,
    unit: str,
    steps: Sequence[float],
    batch: int,
    target: str,
) -> None:
    check_model(model)
    for what, given, known in (("unit", [unit], UNITS), ("mask", [mask], MASKS), ("target", [target], TARGETS)):
        _known(what, given, known)
    _known("order", orders, ORDERS)
    check_methods(methods)
    if unit == "pixel" and mask == "drop":
        raise InputError("A pixel cannot be dropped from a picture. Take mask='zero' or 'mean', or unit='token'.")
    rising = all(a < b for a, b in pairwise(steps))
    if len(steps) < 2 or steps[0] != 0 or steps[-1] > 1 or not rising:
        raise InputError(f"steps is {list(steps)}. heedmap expected fractions that rise from 0 to at most 1.")
    if batch < 1:
        raise InputError(f"batch is {batch}. heedmap expected at least 1.")


def _nothing(given: int, left_out: int, skipped: Mapping[str, str]) -> str:
    """Why nothing was measured."""
    why = []
    if left_out:
        why.append(f"{left_out} {'is' if left_out == 1 else 'are'} of the guide's own class (take another guide)")
    if skipped or not left_out:
        first = f" ({next(iter(skipped.values()))})" if skipped else ""
        why.append(f"{len(skipped)} could not be read{first}")
    return f"None of {given} pictures was measured: {', '.join(why)}."


def check_model(model: Model) -> None:
    """Refuse what has no label for a whole picture."""
    if model.task != CLASSIFIES:
        raise InputError(f"{model.source!r} does {model.task}. heedmap expected a model that classifies pictures.")


def check_methods(names: Sequence[str]) -> None:
    """Refuse what no method is called."""
    for name in names:
        if name != RANDOM:
            method(name)
    if not names or len(set(names)) < len(names):
        raise InputError(f"methods is {list(names)}. heedmap expected at least one, and each once.")


def _known(what: str, given: Sequence[str], known: Any) -> None:
    for one in given:
        if one not in known:
            raise InputError(f"{what} is {one!r}. heedmap expected one of {', '.join(known)}.")
    if not given or len(set(given)) < len(given):
        raise InputError(f"{what}s is {list(given)}. heedmap expected at least one, and each once.")


def _plain(one: Mean) -> dict[str, float | None]:
    """As JSON has it: a single picture has no interval."""
    low, high = (one.low, one.high) if one.count > 1 else (None, None)
    return {"value": one.value, "low": low, "high": high}
