"""The function mode that sees a forward pass: labels every tensor, meets every attention call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from heedmap.capture import operations as ops
from heedmap.capture.labels import Labels, tensors
from heedmap.capture.meeting import Meeting, not_eval
from heedmap.capture.packed import carried, gradientless
from heedmap.capture.sampled import NAMES
from heedmap.capture.seams import Product, operands_of, parse_einsum, scores, weighted
from heedmap.capture.stacks import Stacks
from heedmap.capture.tracker import EMPTY
from heedmap.errors import UnsupportedError
from heedmap.records import Origin

RANDOM = frozenset("rand randn randint rand_like randn_like bernoulli bernoulli_ multinomial uniform_ normal_".split())


class Recorder(Meeting, TorchFunctionMode):
    def __init__(self, model: nn.Module, stems: bool, edits: Mapping[int, Tensor] | None = None) -> None:
        super().__init__(model, stems, edits)
        self._unsteady = False
        self._stacks = Stacks()
        self._given = Labels()  # the number of the operation that gave a tensor
        self._operations = 0
        self._training = any(module.training for module in model.modules())
        self._buffers = {id(buffer) for buffer in model.buffers()}

    @property
    def unsteady(self) -> bool:
        """Whether something may mix tokens on one input, and not on another."""
        moving = (
            mark.kind == "product" or (mark.kind == "move" and ops.by_index(mark.operation)) for mark in self.marks
        )
        picked = sum(1 << i for i, moves in enumerate(moving) if moves)
        met = any(
            tensor is not None and origin is not None and origin.marks & picked
            for call in self.calls
            for tensor, origin in zip((call.queries, call.keys, call.values), call.origins, strict=True)
        )
        return self._unsteady or self._sampling.loose > 0 or met

    # -- the mode ----------------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = ops.name_of(func)
        if self.after_model:
            return self._run(func, name, args, kwargs)
        taken = tuple(map(self._known_as, tensors((args, kwargs))))
        self.digest = hash((self.digest, name, _numbers(args), _numbers(tuple(kwargs.values())), taken))
        result = self._run(func, name, args, kwargs)
        for item in tensors(result):
            self._operations += 1
            self._given.set(item, self._operations)
        return result

    def _known_as(self, tensor: Tensor) -> Any:
        """What tells a tensor from others of the same pass: which of two a model takes may hang on what it is given."""
        number = self._given.get(tensor)
        return self._parameters.get(id(tensor), self._origins.get(tensor)) if number is None else number

    def _run(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if func is ops.SDPA:
            return self._sdpa(*args, **kwargs)
        if func is ops.MHA:
            return self._mha(args, kwargs)
        if name in ("__get__", "__set__", "__len__"):
            result = func(*args, **kwargs)
            if isinstance(result, Tensor) and self._named(args[0]) is not None:
                result = result.detach()  # as in weight.T
            return self._label(func, name, args, kwargs, result)
        self._refuse_active(func, name, args, kwargs)
        if name in ops.PRODUCTS:
            return self._product(func, name, args, kwargs)
        result = carried(func, name, args)(*self._frozen(name, args), **self._frozen(name, kwargs))
        if gradientless(func, args, result):
            raise UnsupportedError(
                f"{self._where()} computes {name}, which hands no gradient on. heedmap expected layers with one; where "
                "their weights are quantised, bring them back: model.dequantize(), or load the model as it was."
            )
        weighed = self._sampling.summed(args, kwargs, result) if name == "sum" else None
        if weighed is not None and self._over_points(weighed):
            return self._summed(result, weighed)
        result = self._label(func, name, args, kwargs, result)
        if name in NAMES:
            self._sampling.note(name, args, kwargs, result)
        return result

    def _refuse_active(self, func: Any, name: str, args: Any, kwargs: Any) -> None:
        if "dropout" in name or name == "batch_norm":
            bound = _bound(func, args, kwargs)
            if bound.get("training", bound.get("train")) and (name == "batch_norm" or bound.get("p", 0.5) > 0):
                raise not_eval(self._where(), f"{name} is active")
        elif name in RANDOM and self._training:
            raise not_eval(self._where(), f"{name} draws random numbers")
        elif ops.in_place(name) and args and id(args[0]) in self._buffers:
            raise not_eval(self._where(), f"{name} changes the model's own buffer {self._parameters[id(args[0])]!r}")
        elif "attention" in name or "attn" in name:
            raise UnsupportedError(
                f"{self._where()} computes attention by {name}, a form whose weights heedmap cannot see. "
                'Use the model\'s "sdpa" or "eager" attention.'
            )

    # -- labels ------------------------------------------------------------------------------------------------------

    def _label(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        results = list(tensors(result))
        changed = ops.in_place(name) or name == "__set__"
        if changed:
            results = [args[0]] if args and isinstance(args[0], Tensor) else []
        if not results:
            return result
        picked = self._stacks.picked(name, args, kwargs)
        if picked is not None:
            for item, part in zip(results, picked, strict=True):
                self._origins.set(item, part)
            return result
        operands = [*tensors(_data(name, args)), *tensors(_data_keywords(name, kwargs))]
        origin = EMPTY if name in ops.DATALESS else self._join(name, args, kwargs, operands)
        if origin is None and not operands:
            origin = EMPTY
        if func in ops.SOFTMAX:
            origin = self._softmax(args, kwargs, operands[0], results[0], origin)
        elif origin is not None and not self._keeps(name, args, kwargs, operands, origin):
            if not origin.calls:
                origin = self._rearranged(name, args, origin)
            if origin.calls and results[0].is_floating_point():
                tokens = self.calls[origin.calls.bit_length() - 1].counts[0]
                pooled = results[0].ndim < 3 or tokens not in results[0].shape or "pool" in name
                origin |= self._mark("move", name, origin, tokenwise=pooled)
                known = name in ("stack", "grid_sample") or self._sampling.holds(operands[0])
                self._unsteady |= not pooled and not known and self._weights.get(operands[0]) is None
            elif origin.names and not origin.calls:
                origin = origin._replace(bases=0) | self._base(name, origin, results[0])
                grown = name == "embedding" or results[0].requires_grad  # else no gradient could ever lead there
                if self._stems and grown and not changed and isinstance(result, Tensor):
                    result = self._tap_base(result)
                    results = [result]
        if name == "detach" and origin is not None and operands[0].requires_grad:
            origin = self._detached_choice(origin, results[0])
        if name == "stack":
            self._stacks.note(args, kwargs, results[0], [self.origin(tensor) for tensor in operands])
        if name in ops.KEEPS_SCORES:
            self._carry(name, operands, results[0], ops.turns(name, args, kwargs))
        if origin is None:
            return result
        for item in results:
            self._origins.set(item, EMPTY if item.dtype == torch.bool else origin)
        if changed:
            self._touch(results[0], origin)
        return result

    def _keeps(self, name: str, args: Any, kwargs: Any, operands: list[Tensor], origin: Origin) -> bool:
        """Whether an operation leaves every token where it is; or may be held to it by the probe."""
        if name == "linear" and origin.calls and operands:
            tokens = self.calls[origin.calls.bit_length() - 1].counts[0]
            self._unsteady |= operands[0].shape[-1] == tokens
        if name in ("cat", "concat", "concatenate") and not origin.calls:
            layouts = {(self.origin(tensor) or EMPTY).bases for tensor in operands}
            if len(layouts) == 1 and 0 not in layouts:
                return True  # parts of one layout put together again
        if name == "__getitem__" and origin.calls and ops.indexed(name, args, (Tensor, list)):
            return False
        return ops.keeps_tokens(name, args, kwargs, operands)

    # -- products ----------------------------------------------------------------------------------------------------

    def _mha(self, args: Any, kwargs: Any) -> Any:
        self._inside_mha += 1
        try:
            with self:
                return ops.MHA_INSIDE(*args, **kwargs)
        finally:
            self._inside_mha -= 1

    def _product(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """A product of two tensors: attention's output, its scores, or neither."""
        plan = parse_einsum(args) if name == "einsum" else None
        pair = plan.operands if plan else None if name == "einsum" else operands_of(name, args, kwargs)
        result = func(*self._frozen(name, args), **self._frozen(name, kwargs))
        if pair is None:
            return self._label(func, name, args, kwargs, result)
        for weights, values, first in ((*pair, True), (*pair[::-1], False)):
            weighting = self._weights.get(weights)
            form = weighted(plan, weights, values, first) if weighting else None
            if weighting and form:
                edit = self._edit(tuple(form.weights.shape[:-2]), tuple(form.weights.shape[-2:]), values)
                if edit is not None:
                    form = replace(form, weights=edit)
                    args, kwargs = _exchanged((args, kwargs), weights, edit.permute(form.laid))
                    result = func(*self._frozen(name, args), **self._frozen(name, kwargs))
                return self._weighted(name, result, weighting, form, self.origin(values))
        self._label(func, name, args, kwargs, result)
        a, b = map(self.origin, pair)
        if a is None or b is None:
            return result
        rows = scores(plan, *pair)
        self._products.set(result, Product(*rows, a, b) if rows else Product())
        origin = self.origin(result)
        shared = a.calls & b.calls or (not (a.calls or b.calls) and a.names & b.names & self._primary)
        if shared and origin is not None and max(tensor.ndim for tensor in pair) > 2:
            self._origins.set(result, origin | self._mark("product", name, origin))
        self._unsteady |= bool(a.calls & b.calls) and max(tensor.ndim for tensor in pair) == 2
        return result


def _numbers(value: Any) -> Any:
    """The numbers among an operation's arguments: axes, shifts, slices."""
    if isinstance(value, (int, float, str, type(None))):
        return value
    if isinstance(value, slice):
        return _numbers((value.start, value.stop, value.step))
    return tuple(map(_numbers, value)) if isinstance(value, (tuple, list)) else type(value).__name__


def _exchanged(given: Any, old: Tensor, new: Tensor) -> Any:
    return tree_map(lambda leaf: new if leaf is old else leaf, given)


def _data(name: str, args: Any) -> Any:
    """The positional arguments that carry tokens: weights of channels do not."""
    if name in ops.WEIGHTS:
        drop = {position for position, _ in ops.WEIGHTS[name]}
        return [item for position, item in enumerate(args) if position not in drop]
    return args


def _data_keywords(name: str, kwargs: Any) -> Any:
    if name in ops.WEIGHTS:
        drop = {key for _, key in ops.WEIGHTS[name]}
        return {key: item for key, item in kwargs.items() if key not in drop}
    return kwargs


def _bound(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    try:
        return dict(inspect.signature(func).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        keys = ("input", "p", "train")
        return {**dict(zip(keys, args, strict=False)), **kwargs}
