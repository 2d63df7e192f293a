"""The function mode that sees a forward pass: labels every tensor, meets every attention call."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heedmap.capture import operations as ops
from heedmap.capture.attention import Attention
from heedmap.capture.labels import Labels, tensors, union
from heedmap.capture.names import AUXILIARY
from heedmap.capture.seams import Form, Product, Weighting, operands_of, parse_einsum, scores, weighted
from heedmap.capture.tap import Tap, Valve
from heedmap.errors import HeedmapError, NotEvalError, UnsupportedError
from heedmap.records import Base, Mark, Name, Origin

UNSEEN = Origin()


class Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module, named: list[tuple[str, Tensor]]) -> None:
        super().__init__()
        self.calls: list[Attention] = []
        self.names: list[Name] = []
        self.bases: list[Base] = []
        self.marks: list[Mark] = []
        self.valve = Valve()
        self.after_model = False
        self.anchor = torch.zeros((), requires_grad=True)
        self._origins = Labels()
        self._products = Labels()
        self._weights = Labels()
        self._modules = {id(module): path for path, module in model.named_modules()}
        self._parameters = {id(p): name for name, p in model.named_parameters()}
        self._parameters |= {id(b): name for name, b in model.named_buffers()}
        self._parameter_origins: dict[str, Origin] = {}
        self._primary = 0  # the bits of names that are inputs with content of their own
        self._inside_mha = 0
        for name, tensor in named:
            self._enter(name, tensor)

    # -- the mode ----------------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = ops.name_of(func)
        if func is ops.SDPA:
            return self._sdpa(*args, **kwargs)
        if func is ops.MHA:
            return self._mha(args, kwargs)
        if name.startswith("__") and name in ("__get__", "__set__", "__len__"):
            return self._label(func, name, args, kwargs, func(*args, **kwargs))
        self._refuse_active(func, name, args, kwargs)
        if name in ops.PRODUCTS:
            return self._product(func, name, args, kwargs)
        result = func(*_frozen(args), **_frozen(kwargs))
        return self._label(func, name, args, kwargs, result)

    def _refuse_active(self, func: Any, name: str, args: Any, kwargs: Any) -> None:
        if "dropout" in name or name == "batch_norm":
            bound = _bound(func, args, kwargs)
            if bound.get("training", bound.get("train")) and (name == "batch_norm" or bound.get("p", 0.5) > 0):
                raise _not_eval(self._where(), f"{name} is active")
        elif "attention" in name or "attn" in name:
            raise UnsupportedError(
                f"{self._where()} computes attention by {name}, a form whose weights heedmap cannot see. "
                'Use the model\'s "sdpa" or "eager" attention.'
            )

    # -- labels ------------------------------------------------------------------------------------------------------

    def _enter(self, name: str, tensor: Tensor) -> None:
        kind = "auxiliary" if AUXILIARY.search(name) else "input"
        bit = self._name(Name(name, kind))
        if kind == "input":
            self._primary |= bit
        origin = Origin(names=bit)
        if tensor.is_floating_point():
            origin = origin | self._base(name, origin)
        self._origins.set(tensor, origin)

    def _name(self, name: Name) -> int:
        if name not in self.names:
            self.names.append(name)
        return 1 << self.names.index(name)

    def _base(self, operation: str, origin: Origin) -> Origin:
        self.bases.append(Base(operation, bool(origin.names & self._primary)))
        return Origin(bases=1 << (len(self.bases) - 1))

    def origin(self, tensor: Tensor) -> Origin | None:
        known = self._origins.get(tensor)
        if known is not None:
            return known
        name = self._parameters.get(id(tensor))
        if name is None:
            return None
        if name not in self._parameter_origins:
            origin = Origin(names=self._name(Name(name, "parameter")))
            self._parameter_origins[name] = origin | self._base(name, origin)
        return self._parameter_origins[name]

    def _label(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        results = list(tensors(result))
        if name in ("__setitem__", "__set__"):
            results = [args[0]] if isinstance(args[0], Tensor) else []
        if not results:
            return result
        operands = [*tensors(_data(name, args)), *tensors(_data_keywords(name, kwargs))]
        origin = UNSEEN if name in ops.EMPTY else self._join(name, operands)
        if origin is None and not operands:
            origin = UNSEEN
        if origin is not None and origin.names and not origin.calls and not _keeps_tokens(name, operands):
            origin = origin._replace(bases=0) | self._base(name, origin)
        if func in ops.SOFTMAX:
            origin = self._softmax(args, kwargs, operands[0], results[0], origin)
        elif name in ops.KEEPS_SCORES:
            self._carry(name, operands, results[0])
        for item in results:
            if item.dtype == torch.bool:
                self._origins.set(item, UNSEEN)
            elif origin is not None:
                self._origins.set(item, origin)
        if ops.in_place(name) and isinstance(args[0], Tensor) and origin is not None:
            target = args[0]
            self._origins.set(target, origin)
            if target._base is not None:
                self._origins.set(target._base, (self.origin(target._base) or UNSEEN) | origin)
        return result

    def _join(self, name: str, operands: list[Tensor]) -> Origin | None:
        """The union of the operands' origins; marked where a state meets an older one that it already contains."""
        origins = [self.origin(t) for t in operands]
        known = [o for o in origins if o is not None]
        joined = union(known)
        if joined is None or len(known) < 2 or not joined.calls:
            return joined
        floating = [(t, o) for t, o in zip(operands, origins, strict=True) if o and t.is_floating_point()]
        for deeper, a in floating:
            for older, b in floating:
                if a.calls and _contains(a, b, self._primary):
                    tokens = self.calls[a.calls.bit_length() - 1].counts[0]
                    tokenwise = _has_tokens(deeper, tokens) and _has_tokens(older, tokens)
                    joined |= self._mark("join", name, joined, older=b, tokenwise=tokenwise)
                    return joined
        return joined

    def _mark(self, kind: str, operation: str, upstream: Origin, **more: Any) -> Origin:
        self.marks.append(Mark(kind, operation, self._where(), upstream, after_model=self.after_model, **more))
        return Origin(marks=1 << (len(self.marks) - 1))

    def _where(self) -> str:
        """The path of the innermost module of the model that is running, read off the stack: nothing is hooked."""
        frame = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in self._modules:
                return self._modules[id(owner)] or type(owner).__name__
            frame = frame.f_back
        return "the target" if self.after_model else "the model"

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
        output = ops.SDPA(query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)
        return self._met(
            "multi_head_attention_forward" if self._inside_mha else "scaled_dot_product_attention",
            output,
            origins=(self.origin(query), self.origin(key), self.origin(value)),
            queries=query,
            keys=key,
            values=value,
            order=tuple(range(output.ndim)),
            lead=tuple(query.shape[:-2]),
            counts=(query.shape[-2], key.shape[-2]),
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
            self._products.set(result, products[0] if len(products) == 1 else Product())
        if name not in ops.KEEPS_WEIGHTS:
            return
        for tensor in operands:
            weighting = self._weights.get(tensor)
            others = [self.origin(t) for t in operands if t is not tensor]
            if weighting is None or any(o is not None and o.calls for o in others):
                continue
            if result.numel() == tensor.numel() and result.shape[-2:] == tensor.shape[-2:]:
                self._weights.set(result, weighting)

    def _product(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """A product of two tensors: attention's output, its scores, or neither."""
        plan = parse_einsum(args) if name == "einsum" else None
        pair = plan.operands if plan else None if name == "einsum" else operands_of(name, args, kwargs)
        result = func(*_frozen(args), **_frozen(kwargs))
        if pair is None:
            return self._label(func, name, args, kwargs, result)
        for weights, values, first in ((*pair, True), (*pair[::-1], False)):
            weighting = self._weights.get(weights)
            form = weighted(plan, weights, values, first) if weighting else None
            if weighting and form:
                return self._weighted(name, result, weighting, form, self.origin(values))
        self._label(func, name, args, kwargs, result)
        a, b = map(self.origin, pair)
        if a is None or b is None:
            return result
        rows = scores(plan, *pair)
        self._products.set(result, Product(*rows, a, b) if rows else Product())
        origin = self.origin(result)
        if a.calls and b.calls and origin is not None:
            sizes = plan.contracted() if plan else (pair[0].shape[-1],)
            self._origins.set(result, origin | self._mark("product", name, origin, sizes=sizes))
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

    def _met(self, seam: str, output: Tensor, **more: Any) -> Tensor:
        """Record a call; its output is where the graph begins, and where gradients are met."""
        self._refuse_checkpoint()
        index = len(self.calls)
        tapped: Tensor = Tap.apply(output, self.anchor, self.valve, index)  # type: ignore[assignment]
        edge = torch.autograd.graph.get_gradient_edge(tapped) if tapped.requires_grad else None
        self.calls.append(Attention(index=index, module=self._where(), seam=seam, edge=edge, **more))
        self._origins.set(tapped, Origin(calls=1 << index))
        return tapped

    def _refuse_checkpoint(self) -> None:
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)  # type: ignore[attr-defined]
        if hooks is not None and "checkpoint" in getattr(hooks[0], "__module__", ""):
            raise UnsupportedError(
                f"{self._where()} runs under gradient checkpointing, which forgets what the explanation reads. "
                "Switch it off: model.gradient_checkpointing_disable()."
            )


def _contains(a: Origin, b: Origin, primary: int) -> bool:
    """Whether a state holds all that an older one holds, and more."""
    mine, other = (a.calls, a.names & primary), (b.calls, b.names & primary)
    return mine != other and any(other) and not (other[0] & ~mine[0]) and not (other[1] & ~mine[1])


def _has_tokens(tensor: Tensor, count: int) -> bool:
    return tensor.ndim >= 3 and count in tensor.shape[:-1]


def _keeps_tokens(name: str, operands: list[Tensor]) -> bool:
    """Whether an operation leaves tokens where they are; a cache that begins empty is joined to nothing."""
    if name in ("cat", "concat", "concatenate"):
        return sum(tensor.numel() > 0 for tensor in operands) == 1
    return (name if name.startswith("__") else name.rstrip("_")) in ops.TOKENWISE


def _frozen(value: Any) -> Any:
    """The same arguments without any leaf that wants a gradient: parameters stay out of the graph."""
    if isinstance(value, Tensor):
        return value.detach() if value.requires_grad and value.grad_fn is None else value
    if isinstance(value, tuple):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, list):
        return [_frozen(item) for item in value]
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value


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
