"""A target meets an output: what it leaves open is settled, and it becomes one number per example."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from heedmap.errors import TargetError
from heedmap.targets.expressions import (
    PASS_A_CALLABLE,
    Custom,
    Each,
    Logit,
    Predicted,
    Target,
    called,
    fold,
    leaves,
)
from heedmap.targets.fields import Context, class_logits, class_of, logits_of, names_of_classes, shape
from heedmap.targets.quotients import check_quotients

Item = TypeVar("Item")


def settle(target: Target, output: Any, context: Context) -> Target:
    """The same target with nothing left open: each logit with its index, and its query or position if any."""

    def settled(leaf: Target) -> Target:
        match leaf:
            case Predicted():
                return _prediction(output, context)
            case Logit():
                return _settled(leaf, output, context)
        return leaf

    return fold(target, settled)


def evaluate(target: Target, output: Any, context: Context) -> Tensor:
    """The target's value, one number per example."""
    settled = settle(target, output, context)
    values = {leaf: _value(leaf, output, context) for leaf in leaves(settled)}
    if len({len(value) for value in values.values()}) > 1:
        met = ", ".join(f"{leaf!r} has {len(value)}" for leaf, value in values.items())
        raise TargetError(f"The parts of {target!r} disagree on the number of examples: {met}. Make them agree.")
    check_quotients(target, settled, values)
    return _checked(fold(settled, values.__getitem__), target, context.batch)


def predicted(target: Target, output: Any, context: Context) -> list[int] | None:
    """The class that the prediction stands for, of every example; None where the target has no prediction."""
    if not any(isinstance(leaf, Predicted) for leaf in leaves(target)):
        return None
    index: Any = _prediction(output, context).index
    return _spread(index, len(logits_of(output, context)))


def logits_behind(target: Target, output: Any, context: Context) -> Tensor | None:
    """The logits that a target is made of; None where it is, or holds, a callable of its own."""
    if any(not isinstance(leaf, Logit) for leaf in leaves(settle(target, output, context))):
        return None
    return logits_of(output, context)


# ---- what a target leaves open


def _settled(target: Logit, output: Any, context: Context) -> Logit:
    logits, axis, no_object = class_logits(output, context)
    for place in ("query", "position"):
        if getattr(target, place) is not None and place != axis:
            met = f"{target!r} has {place}=, but the logits have shape {shape(logits)}"
            todo = f"and their middle axis is {axis}: use {axis}=" if axis else "and no such axis: leave it out"
            raise TargetError(f"{met} {todo}.")
    found = [class_of(x, logits.shape[-1], context.labels or {}) for x in _spread(target.index, len(logits))]
    index, shown = [i for i, _ in found], [x for _, x in found]
    places = {}
    if axis == "query":
        places["query"] = _common(_queries(target.query, logits, index, no_object))
    elif axis == "position":
        places["position"] = _common(_positions(target.position, logits, context))
    return Logit(_common(index), **places, shown=_common(shown) if target.shown is None else target.shown)


def _prediction(output: Any, context: Context) -> Logit:
    logits, axis, no_object = class_logits(output, context)
    places = {}
    if axis == "query":
        classes = logits.shape[-1] - no_object
        best = _certainty(logits, no_object)[..., :classes].flatten(1).argmax(1).tolist()
        index = [i % classes for i in best]
        places["query"] = _common([i // classes for i in best])
    elif axis == "position":
        positions = _positions(None, logits, context)
        index = logits[list(range(len(logits))), positions].argmax(-1).tolist()
        places["position"] = _common(positions)
    else:
        index = logits.argmax(-1).tolist()
    names = names_of_classes(logits.shape[-1] - (axis == "query"), context.labels or {})
    return Logit(_common(index), **places, shown=_common([names.get(i, i) for i in index]))


def _queries(query: Any, logits: Tensor, index: list[int], no_object: bool) -> list[int]:
    """The queries asked for, or in every example the one most certain of its class."""
    if query is None:
        return _certainty(logits, no_object)[list(range(len(logits))), :, index].argmax(1).tolist()
    return [_within("query", i, 0, logits.shape[1]) for i in _spread(query, len(logits))]


def _certainty(logits: Tensor, no_object: bool) -> Tensor:
    """Ordered as the probabilities: classes compete with "no object" in a softmax, else each has its sigmoid."""
    return _wide(logits).log_softmax(-1) if no_object else _wide(logits)


def _positions(position: Any, logits: Tensor, context: Context) -> list[int]:
    """The positions asked for, counted from the start."""
    (batch, tokens, _), mask = logits.shape, context.mask
    if position is None:
        return _last_positions(logits, context)
    chosen = [_within("position", i, -tokens, tokens) for i in _spread(position, batch)]
    for example, i in enumerate(chosen):
        if mask is not None and mask.shape == (batch, tokens) and not mask[example, i]:
            raise TargetError(f"position={i} is padding in example {example} (mask 0). Choose a real token.")
    return [i % tokens for i in chosen]


def _last_positions(logits: Tensor, context: Context) -> list[int]:
    """The only position, or the last unmasked one of a causal model; padding may be on either side."""
    (batch, tokens, _), mask = logits.shape, context.mask
    if tokens == 1:
        return [0] * batch
    if not context.causal:
        choose = f"Choose one, as in logit(3, position=0), or {PASS_A_CALLABLE}."
        raise TargetError(f"Each of {tokens} positions has logits, and which to explain is not said. {choose}")
    if mask is None:
        return [tokens - 1] * batch
    if mask.shape != (batch, tokens):
        met = f"the mask has shape {shape(mask)}, the logits {shape(logits)}"
        raise TargetError(f"The last unmasked position is not certain: {met}. Choose one, as in position=-1.")
    real = mask != 0
    if empty := (~real.any(1)).nonzero().flatten().tolist():
        raise TargetError(f"The mask leaves no token in example {empty[0]}. Expected at least one: correct it.")
    return (real * torch.arange(tokens, device=mask.device)).argmax(1).tolist()


def _within(name: str, value: int, low: int, high: int) -> int:
    if not low <= value < high:
        raise TargetError(f"{name}={value} is out of range: the logits have {high}. Choose {low} to {high - 1}.")
    return value


def _spread(value: Item | tuple[Item, ...], batch: int) -> list[Item]:
    if not isinstance(value, tuple):
        return [value] * batch
    if len(value) != batch:
        raise TargetError(f"A list of {len(value)} was given for {batch} examples. Give one value, or {batch}.")
    return list(value)


def _common(values: list[Item]) -> Any:
    """The value that all examples share, otherwise one per example."""
    return values[0] if len(set(values)) == 1 else tuple(values)


# ---- numbers


def _value(leaf: Target, output: Any, context: Context) -> Tensor:
    value: Any = None
    match leaf:
        case Custom(call):
            value = call(output)
        case Each(calls):
            logits = logits_of(output, context)
            pairs = zip(_spread(calls, len(logits)), logits, strict=True)
            value = torch.cat([_one_number(call, example) for call, example in pairs])
        case Logit(index, query, position):
            logits = logits_of(output, context)
            places: Any = [_spread(x, len(logits)) for x in (query, position, index) if x is not None]
            value = logits[(list(range(len(logits))), *places)]
    return _wide(_checked(value, leaf, context.batch))


def _one_number(call: Any, example: Tensor) -> Tensor:
    number = call(example)
    if not isinstance(number, Tensor) or number.numel() != 1:
        raise TargetError(
            f"The target {called(call)} was given one example's logits, {shape(example)}, and returned "
            f"{shape(number)}. Expected a tensor with one number: choose one, for instance a class."
        )
    return number.reshape(1)


def _checked(value: Any, target: Target, batch: int | None) -> Tensor:
    """`value`, certain to be one finite real number per example."""
    if isinstance(value, Tensor) and value.ndim == 0 and batch in (None, 1):
        value = value.reshape(1)
    if not isinstance(value, Tensor):
        met, todo = f"gave a {type(value).__name__}", "return a tensor"
    elif not value.is_floating_point():
        met, todo = f"gave numbers of {value.dtype}", "return real floating numbers that have a gradient"
    elif value.ndim == 0:
        met, todo = f"gave one number for {batch} examples", "do not sum or average over the batch"
    elif value.ndim != 1 or batch not in (None, len(value)):
        met, todo = f"gave a tensor of shape {shape(value)}", "choose one number of each example, as [:, 3]"
    elif bad := (~value.detach().isfinite()).nonzero().flatten().tolist():
        met = f"is {', '.join(f'{value[i].item()} in example {i}' for i in bad[:8])}{' ...' * (len(bad) > 8)}"
        todo = "look for NaN or infinity in the inputs and logits, and for a division by zero"
    else:
        return value
    expected = f"({'batch' if batch is None else batch},)"
    raise TargetError(f"The target {target!r} {met}. Expected one finite number per example, shape {expected}: {todo}.")


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
