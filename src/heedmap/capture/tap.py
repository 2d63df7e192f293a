"""Where the graph of an explanation begins, and where its gradients are met.

Parameters and inputs are detached as they enter an operation, so nothing before the first attention call is kept for
the backward pass. Each call's output then passes through a tap: an identity that makes the graph begin, and that is
told the gradient of the output when the backward pass arrives there. A leaf would not do: models add to an attention's
output in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Valve:
    """What taps do when a gradient arrives: tell `visit`, then let it pass unless closed."""

    def __init__(self) -> None:
        self.visit: Callable[[int, Tensor], None] | None = None
        self.closed = False


class Tap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, valve: Valve, index: int) -> Tensor:
        ctx.valve, ctx.index = valve, index
        ctx.set_materialize_grads(False)
        return output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = gradients
        if gradient is None or ctx.valve.closed:
            return None, None, None, None
        if ctx.valve.visit is not None:
            ctx.valve.visit(ctx.index, gradient)
        return gradient, None, None, None
