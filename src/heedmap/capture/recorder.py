"""The function mode that sees a forward pass: labels every tensor, meets every attention call."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._pytree import tree_map

from heedmap.capture import operations as ops
from heedmap.capture.attention import Attention
from heedmap.capture.labels import Labels, tensors
from heedmap.capture.packed import carried, gradientless
from heedmap.capture.seams import Form, Product, Weighting, operands_of, parse_einsum, scores, weighted
from heedmap.capture.tap import Attend, Tap
from heedmap.capture.tracker import EMPTY, ENTRY, Tracker
from heedmap.errors import HeedmapError, InputError, NotEvalError, UnsupportedError
from heedmap.records import Origin

RANDOM = frozenset("rand randn randint rand_like randn_like bernoulli bernoulli_ multinomial uniform_ normal_".split())


class Recorder(Tracker, TorchFunctionMode):
    def __init__(self, model: nn.Module, stems: bool, edits: Mapping[int, Tensor] | None = None) -> None:
        super().__init__(model, stems)
        self.edits = edits or {}
        self.digest = 0  # of all operations met with their numbers, in order
        self.unsteady = False  # something may mix tokens on one input, and not on another
        self._products = Labels()
        self._weights = Labels()
        self._training = any(module.training for module in model.modules())
        self._buffers = {id(buffer) for buffer in model.buffers()}
        self._inside_mha = 0

    # -- the mode ----------------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = ops.name_of(func)
        if not self.after_model:
            self.digest = hash((self.digest, name, _numbers(args), _numbers(tuple(kwargs.values()))))
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
        return self._label(func, name, args, kwargs, result)

    def _refuse_active(self, func: Any, name: str, args: Any, kwargs: Any) -> None:
        if "dropout" in name or name == "batch_norm":
            bound = _bound(func, args, kwargs)
            if bound.get("training", bound.get("train")) and (name == "batch_norm" or bound.get("p", 0.5) > 0):
                raise _not_eval(self._where(), f"{name} is active")
        elif name in RANDOM and self._training:
            raise _not_eval(self._where(), f"{name} draws random numbers")
        elif ops.in_place(name) and args and id(args[0]) in self._buffers:
            raise _not_eval(self._where(), f"{name} changes the model's own buffer {self._parameters[id(args[0])]!r}")
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
                self.unsteady |= not pooled and self._weights.get(operands[0]) is None
            elif origin.names and not origin.calls:
                origin = origin._replace(bases=0) | self._base(name, origin, results[0])
                grown = name == "embedding" or results[0].requires_grad  # else no gradient could ever lead there
                if self._stems and grown and not changed and isinstance(result, Tensor):
                    result = self._tap_base(result)
                    results = [result]
        if name in ops.KEEPS_SCORES:
            self._carry(name, operands, results[0])
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
            self.unsteady |= operands[0].shape[-1] == tokens
        if name in ("cat", "concat", "concatenate") and not origin.calls:
            layouts = {(self.origin(tensor) or EMPTY).bases for tensor in operands}
            if len(layouts) == 1 and 0 not in layouts:
                return True  # parts of one layout put together again
        if name == "__getitem__" and origin.calls and ops.indexed(name, args, (Tensor, list)):
            return False
        return ops.keeps_tokens(name, args, kwargs, operands)

    # -- the seams ---------------------------------------------------------------------------------------------------

    def _mha(self, args: Any, kwargs: Any) -> Any:
        self._inside_mha += 1
        try:
            with self:
                return ops.MHA_INSIDE(*args, **kwargs)
        finally:
            self._inside_mha -= 1

    def _sdpa(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if dropout_p > 0:
            raise _not_eval(self._where(), f"attention drops out {dropout_p:g} of its weights")
        if attn_mask is not None and attn_mask.requires_grad and not (self.origin(attn_mask) or EMPTY).calls:
            attn_mask = attn_mask.detach()  # a position's bias: another kernel would run for its gradient
        options = {"attn_mask": attn_mask, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        edit = self._edit(tuple(query.shape[:-2]), (query.shape[-2], key.shape[-2]), value)
        if edit is not None:
            shared = query.shape[-3] // value.shape[-3] if enable_gqa else 1
            output, tapped = edit @ (value.repeat_interleave(shared, -3) if shared > 1 else value), None
        elif _blocks_pay(query, key, value, attn_mask):
            output, tapped = None, Attend.apply(query, key, value, self.anchor, self.valve, len(self.calls), options)
        else:
            output, tapped = ops.SDPA(query, key, value, **options), None
        return self._met(
            "multi_head_attention_forward" if self._inside_mha else "scaled_dot_product_attention",
            output,
            tapped,
            origins=(self.origin(query), self.origin(key), self.origin(value)),
            queries=query,
            keys=key,
            values=value,
            order=tuple(range(query.ndim)),
            lead=tuple(query.shape[:-2]),
            counts=(query.shape[-2], key.shape[-2]),
            weights=edit,
            mask=attn_mask,
            causal=is_causal,
            scale=scale,
            grouped=enable_gqa,
        )

    def _softmax(self, args: Any, kwargs: Any, scored: Tensor, result: Tensor, origin: Origin | None) -> Origin | None:
        """Note a softmax: its result may become the weights of an attention, and is marked until it does."""
        if origin is None:
            return None
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if axis is not None and scored.ndim >= 2 and axis in (-1, scored.ndim - 1):
            self._weights.set(result, Weighting(origin, self._products.get(scored)))
        sizes = tuple(scored.shape) if axis is None else (scored.shape[axis],)
        return origin | self._mark("softmax", "softmax", origin, sizes=sizes)

    def _carry(self, name: str, operands: list[Tensor], result: Tensor) -> None:
        """Scores stay scores, and weights stay weights, through masks, scales, views and casts."""
        products = [p for p in map(self._products.get, operands) if p is not None]
        if products:
            self._products.set(result, products[0] if len(set(map(id, products))) == 1 else Product())
        if name not in ops.KEEPS_WEIGHTS:
            return
        for tensor in operands:
            weighting = self._weights.get(tensor)
            others = [self.origin(t) for t in operands if t is not tensor]
            if weighting is None or any(o is not None and o.calls for o in others):
                continue
            whole = result.numel() == tensor.numel() and result.shape[-2:] == tensor.shape[-2:]
            if whole or (name == "__getitem__" and result.shape[:-1] == tensor.shape[:-1]):
                self._weights.set(result, weighting)

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
        return result

    def _weighted(self, name: str, output: Tensor, weighting: Weighting, form: Form, values: Origin | None) -> Tensor:
        product = weighting.product or Product()
        return self._met(
            "multi_head_attention_forward" if self._inside_mha else f"softmax, {name.strip('_')}",
            output,
            origins=(product.left_origin or weighting.origin, product.right_origin, values),
            queries=product.left,
            keys=product.right,
            values=form.values,
            order=form.order,
            lead=tuple(form.weights.shape[:-2]),
            counts=(form.weights.shape[-2], form.weights.shape[-1]),
            weights=form.weights,
        )

    def _edit(self, lead: tuple[int, ...], counts: tuple[int, ...], like: Tensor) -> Tensor | None:
        """The weights that stand in place of the next call's own, in its layout; none where it keeps its own."""
        index = len(self.calls)
        if index not in self.edits:
            return None
        edit = self.edits[index]
        own = (*(lead if len(lead) == 2 else ()), *counts)
        if edit.ndim != 4 or edit.numel() != math.prod((*lead, *counts)) or edit.shape[-len(own) :] != own:
            raise InputError(
                f"The edit of call {index} ({self._where()}) is {tuple(edit.shape)}, its weights are "
                f"{(*lead, *counts)}. heedmap expected (batch, head, query, key)."
            )
        self.digest = hash((self.digest, "edit", index))  # what was found right of other calls says nothing of these
        return edit.to(like).reshape(*lead, *counts)

    def _met(self, seam: str, output: Tensor | None, tapped: Any = None, **more: Any) -> Tensor:
        """Record a call; its output is where the graph begins, and where gradients are met."""
        self._refuse_checkpoint()
        index = len(self.calls)
        tapped = Tap.apply(output, self.anchor, self.valve, index) if tapped is None else tapped
        edge = torch.autograd.graph.get_gradient_edge(tapped) if tapped.requires_grad else None
        self.calls.append(Attention(index=index, module=self._where(), seam=seam, edge=edge, **more))
        self._origins.set(tapped, Origin(calls=1 << index))
        return tapped

    def _refuse_checkpoint(self) -> None:
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)  # type: ignore[attr-defined]
        kept = hooks is not None and "checkpoint" in getattr(hooks[0], "__module__", "")
        if kept or (not torch.is_grad_enabled() and _called_from(checkpoint.__file__)):
            raise UnsupportedError(
                f"{self._where()} runs under gradient checkpointing, which forgets what the explanation reads. "
                "Switch it off: model.gradient_checkpointing_disable()."
            )


def _blocks_pay(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Whether a backward pass in blocks of our own serves: on a processor it takes the map's row on its way.

    An accelerator's fused kernel keeps its scores on the chip; there the row is taken beside it.
    """
    plain = query.ndim == key.ndim == value.ndim == 4 and len(query) == len(key) == len(value)
    return plain and query.device.type == "cpu" and not (mask is not None and mask.requires_grad)


def _numbers(value: Any) -> Any:
    """The numbers among an operation's arguments: axes, shifts, slices."""
    if isinstance(value, (int, float, str, type(None))):
        return value
    if isinstance(value, slice):
        return _numbers((value.start, value.stop, value.step))
    return tuple(map(_numbers, value)) if isinstance(value, (tuple, list)) else type(value).__name__


def _exchanged(given: Any, old: Tensor, new: Tensor) -> Any:
    return tree_map(lambda leaf: new if leaf is old else leaf, given)


def _called_from(file: str) -> bool:
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != ENTRY:
        if frame.f_code.co_filename == file:
            return True
        frame = frame.f_back
    return False


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


def _not_eval(where: str, what: str) -> HeedmapError:
    return NotEvalError(
        f"In {where}, {what}: the model is in training mode. heedmap expected eval mode; call model.eval()."
    )
