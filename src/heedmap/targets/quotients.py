"""The sign rule: a quotient is explained only where every logit moves it the way it is written to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from heedmap.errors import QuotientError
from heedmap.targets.expressions import Binary, Constant, Negated, Target, fold, leaves

FLAT = 1e-12  # a slope this small, relative to the logits, is rounding


def check_quotients(target: Target, settled: Target, values: Mapping[Target, Tensor]) -> None:
    """Refuse a quotient that the logits met turn round, so that what speaks for it would show as against it.

    Every logit must move the value, in every example, the way it is written to: a up and b down in a / b and
    (a - b) / a.
    """
    if not _divides(target):
        return
    written = {}  # what each leaf is in the user's words, and its sign where it stands first
    for leaf, user_leaf, sign in zip(leaves(settled), leaves(target), _signs(target), strict=True):
        written.setdefault(leaf, (user_leaf, sign))
    with torch.inference_mode(False), torch.enable_grad():
        probes = {leaf: _probe(values[leaf]) for leaf in written}
        slopes = torch.autograd.grad(fold(settled, probes.__getitem__).sum(), list(probes.values()))
    size = torch.stack([probe.detach().abs() for probe in probes.values()]).amax(0)
    for (user_leaf, sign), slope in zip(written.values(), slopes, strict=True):
        if wrong := (~(sign * slope * size > FLAT)).nonzero().flatten().tolist():  # NaN is wrong too
            met = ", ".join(f"{name!r} is {probes[leaf][wrong[0]]:.4g}" for leaf, (name, _) in written.items())
            terms = " ".join(f"{'+' if sign > 0 else '-'} {name!r}" for name, sign in written.values())
            raise QuotientError(
                f"The quotient {target!r} does not {'rise' if sign > 0 else 'fall'} with {user_leaf!r} in example "
                f"{wrong[0]}, where {met}. A quotient keeps its meaning only while its logits are positive. "
                f"Explain the difference: {terms.removeprefix('+ ')}"
            )


def _divides(target: Target) -> bool:
    match target:
        case Binary(sign, left, right):
            return (sign == "/" and not isinstance(right, Constant)) or _divides(left) or _divides(right)
        case Negated(inner):
            return _divides(inner)
    return False


def _signs(target: Target, sign: int = 1) -> list[int]:
    """For every leaf +1 where it is written to raise the target, -1 where to lower it."""
    match target:
        case Negated(inner):
            return _signs(inner, -sign)
        case Binary("+", left, right):
            return _signs(left, sign) + _signs(right, sign)
        case Binary("-", left, right):
            return _signs(left, sign) + _signs(right, -sign)
        case Binary(between, left, right):
            turn = 1 if between == "*" else -1
            return _signs(left, sign * _factor_sign(right)) + _signs(right, sign * _factor_sign(left) * turn)
        case Constant():
            return []
    return [sign]


def _factor_sign(factor: Target) -> int:
    """The sign of a factor or divisor while its logits are positive; that of a difference cannot be told."""
    match factor:
        case Constant(number):
            return -1 if number < 0 else 1
        case Negated(inner):
            return -_factor_sign(inner)
        case Binary("*" | "/", left, right):
            return _factor_sign(left) * _factor_sign(right)
    return 1


def _probe(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float64, copy=True).requires_grad_()
