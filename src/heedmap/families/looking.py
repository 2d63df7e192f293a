"""What a model answers to what it was fed: computed once, and only where it is asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from heedmap.context import context_of
from heedmap.families import answering
from heedmap.families.asking import Asked
from heedmap.families.feeding import Fed
from heedmap.families.tasks import WRITERS
from heedmap.layouts import Window
from heedmap.targets import Context
from heedmap.targets.expressions import Logit, leaves

if TYPE_CHECKING:
    from heedmap.families.model import Model


class Look:
    """One forward pass, made when its output is first asked for."""

    def __init__(self, model: Model, fed: Fed) -> None:
        self.model, self.fed = model, fed
        self.context: Context = context_of(model.module, fed.inputs, causal=model.task in WRITERS)

    @cached_property
    def _output(self) -> Any:
        with torch.no_grad(), self.model.steady(self.fed):
            return self.model.module(**self.fed.inputs)

    def output(self) -> Any:
        return self._output

    def box(self, asked: Asked, example: int) -> Window | None:
        """Where the object is that is explained."""
        if asked.queries is None:
            return None
        from heedmap.zoo.regions import corners

        box = corners(self._output.pred_boxes[example, asked.queries[example]].float())
        return answering.window(box.clamp(0, 1))

    def sure(self, asked: Asked, example: int) -> float | None:
        """How probable the model finds the object that is explained."""
        if asked.queries is None:
            return None
        first: Any = next(leaf for leaf in leaves(asked.target) if isinstance(leaf, Logit))
        index = first.index[example] if isinstance(first.index, tuple) else first.index
        shares = answering.certainties(self._output, self.context)
        return float(shares[example, asked.queries[example], index])
