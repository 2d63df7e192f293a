"""Where the graph of an explanation begins, and where its gradients are met.

Parameters and inputs are detached as they enter an operation, so nothing before the first attention call is kept for
the backward pass. Each call's output then passes through a tap, which makes the graph begin and is told the gradient of
the output when the backward pass arrives there. A leaf would not do: models add to an attention's output in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from heedmap.capture.operations import SDPA

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
Wanted = tuple[bool, bool, bool]
NOTHING: Gradients = (None, None, None)


class Valve:
    """What taps do when a gradient arrives: tell `visit`, then let it pass unless closed.

    `visit` may return the gradients of the call's queries, keys and values if it has formed them on the way.
    """

    def __init__(self) -> None:
        self.visit: Callable[[int, Tensor, Wanted | None], Gradients | None] | None = None
        self.closed = False


class Tap(torch.autograd.Function):
    """An identity: behind a call whose backward pass is the model's own, or, numbered below 0, behind a base."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, valve: Valve, index: int) -> Tensor:
        ctx.valve, ctx.index = valve, index
        ctx.set_materialize_grads(False)
        return output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if gradient is None or (ctx.valve.closed and ctx.index >= 0):
            return (None,) * 4
        if ctx.valve.visit is not None:
            ctx.valve.visit(ctx.index, gradient, None)
        return gradient, None, None, None


class Attend(torch.autograd.Function):
    """Fused attention whose backward pass forms map and gradients from the same blocks, instead of each by itself."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, anchor: Tensor, valve: Valve, index: int, options: dict
    ) -> Tensor:
        ctx.valve, ctx.index, ctx.options = valve, index, options
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(query, key, value)
        return SDPA(query, key, value, **options)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        if gradient is None or ctx.valve.closed:
            return (None,) * 7
        wanted = ctx.needs_input_grad[:3]
        found = None if ctx.valve.visit is None else ctx.valve.visit(ctx.index, gradient, wanted)
        if found is None:
            found = _fused(ctx.saved_tensors, gradient, ctx.options, wanted)
        return (*found, None, None, None, None)


def _fused(tensors: tuple[Tensor, ...], gradient: Tensor, options: dict, wanted: Wanted) -> Gradients:
    """The gradients by torch's own fused backward pass."""
    if not any(wanted):
        return NOTHING
    with torch.enable_grad():
        own = [t.detach().requires_grad_(want) for t, want in zip(tensors, wanted, strict=True)]
        query, key, value = own
        output = SDPA(query, key, value, **options)
    found = iter(torch.autograd.grad(output, [t for t in own if t.requires_grad], gradient))
    of = [next(found) if want else None for want in wanted]
    return of[0], of[1], of[2]
