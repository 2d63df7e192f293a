"""Linear layers with packed or quantised weights, which may hand no gradient on by themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

UNPACK = {"linear_dynamic": "linear_unpack", "linear_dynamic_fp16": "linear_unpack_fp16"}  # in torch.ops.quantized


class Packed(torch.autograd.Function):
    """Forward the layer as it is; backward its weights as they were packed, the rounding of its input left out."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, layer: Callable[[Tensor], Tensor], unpacked: Callable[[], Tensor]) -> Tensor:
        ctx.unpacked = unpacked
        ctx.set_materialize_grads(False)
        return layer(tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        return None if gradient is None else gradient @ ctx.unpacked().to(gradient), None, None


def carried(function: Callable[..., Tensor], name: str, args: Any) -> Callable[..., Tensor]:
    """The same operation; where it is a layer of this kind, with a gradient."""
    packed = name in UNPACK
    if not packed and not (name == "linear" and len(args) > 1 and _quantised(args[1])):
        return function

    def run(tokens: Tensor, weights: Any, *more: Any, **options: Any) -> Tensor:
        def layer(given: Tensor) -> Tensor:
            return function(given, weights, *more, **options)

        return Packed.apply(tokens, layer, partial(_unpacked, weights, name))

    return run


def gradientless(function: Any, args: Any, result: Any) -> bool:
    """Whether an operation that is not torch's own cut off the gradient that its arguments carry."""
    if not (getattr(function, "__module__", None) or "").startswith("torch._ops.") or not torch.is_grad_enabled():
        return False
    if not isinstance(result, Tensor) or not result.is_floating_point():
        return False
    if result.grad_fn is not None:
        return result.grad_fn.name().endswith("NotImplemented")
    return any(isinstance(each, Tensor) and each.requires_grad for each in args)


def _quantised(weights: Any) -> bool:
    """Whether a tensor is of a class that knows by itself what it stands for."""
    return isinstance(weights, Tensor) and type(weights).dequantize is not Tensor.dequantize


def _unpacked(weights: Any, name: str) -> Tensor:
    plain = getattr(torch.ops.quantized, UNPACK[name])(weights)[0] if name in UNPACK else weights.dequantize()
    return plain.dequantize() if plain.is_quantized else plain
