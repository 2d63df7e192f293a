"""What a model is asked, where the truth of it lies, and what a method says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heedmap import api
from heedmap.context import context_of
from heedmap.layouts import Shown
from heedmap.records import Explanation
from heedmap.targets import Target, evaluate, settle
from heedmap.targets.expressions import Logit


def _nowhere() -> np.ndarray:
    return np.zeros(0, dtype=bool)


@dataclass(frozen=True, eq=False)
class Case:
    """One question about one scene. Masks are of pixels, or of regions where a model reads those."""

    scene: int  # scenes are what intervals are drawn from: one may have several cases
    given: Mapping[str, Any] = field(repr=False)  # what the model takes: image, text, regions
    index: int  # the answer that is explained
    query: int | None = None  # at which a detector gives it
    other: int | None = None  # the answer that it is held against
    target: np.ndarray = field(default_factory=_nowhere, repr=False)  # where what speaks for it belongs
    others: np.ndarray = field(default_factory=_nowhere, repr=False)  # where what speaks against it belongs
    part: np.ndarray = field(default_factory=_nowhere, repr=False)  # the detail on which the two answers turn


@dataclass(frozen=True, eq=False)
class Fed:
    """Cases that go through a model together."""

    cases: tuple[Case, ...]
    inputs: Mapping[str, Tensor]
    shown: tuple[Shown, ...]
    target: Target

    def explained(self, module: nn.Module, method: str) -> Explanation:
        return replace(api.explain(module, dict(self.inputs), self.target, method=method), shown=self.shown)

    def value(self, module: nn.Module, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """The target of each case, with the graph that leads to it."""
        given = dict(self.inputs if inputs is None else inputs)
        output = module(**given)
        context = context_of(module, given, causal=False)
        return evaluate(settle(self.target, output, context), output, context)


def fed(cases: Sequence[Case], inputs: Mapping[str, Tensor], shown: Sequence[Shown], turned: bool = False) -> Fed:
    """Cases and their target: their answers, held against the others where they have any; `turned` the other way."""
    target = _logit([case.index for case in cases], cases)
    if cases[0].other is not None:
        other = _logit([case.other for case in cases if case.other is not None], cases)
        target = other - target if turned else target - other
    return Fed(tuple(cases), dict(inputs), tuple(shown), target)


def _logit(indices: Sequence[int], cases: Sequence[Case]) -> Target:
    queries = tuple(case.query for case in cases if case.query is not None)
    return Logit(tuple(indices), query=queries or None)


def worth(one: Fed, module: nn.Module, inputs: Mapping[str, Tensor]) -> np.ndarray:
    """What each case's target loses when other inputs stand in for its own."""
    with torch.no_grad():
        return (one.value(module) - one.value(module, inputs)).double().cpu().numpy()
