"""How each form of attention is met: what it reads is noted, and its output becomes where the graph begins."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from heedmap.capture import operations as ops
from heedmap.capture.attention import Attention
from heedmap.capture.labels import Labels, union
from heedmap.capture.sampled import SEAM, Sampling, Weighed
from heedmap.capture.seams import Form, Product, Weighting
from heedmap.capture.tap import Attend, Tap
from heedmap.capture.tracker import EMPTY, ENTRY, Tracker
from heedmap.errors import HeedmapError, InputError, NotEvalError, UnsupportedError
from heedmap.records import Origin


class Meeting(Tracker):
    """What is known of scores, weights and sampled points on their way to a call."""

    def __init__(self, model: nn.Module, stems: bool, edits: Mapping[int, Tensor] | None) -> None:
        super().__init__(model, stems)
        self.edits = edits or {}
        self.digest = 0  # of all operations met with their numbers, in order
        self._products = Labels()
        self._weights = Labels()
        self._sampling = Sampling()
        self._inside_mha = 0

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
            raise not_eval(self._where(), f"attention drops out {dropout_p:g} of its weights")
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

    def _carry(self, name: str, operands: list[Tensor], result: Tensor, turned: bool) -> None:
        """Scores stay scores, and weights stay weights, through masks, scales, views and casts."""
        products = [p for p in map(self._products.get, operands) if p is not None]
        if products:
            product = products[0] if len(set(map(id, products))) == 1 else Product()
            self._products.set(result, product.turned() if turned else product)
        if name not in ops.KEEPS_WEIGHTS or turned:
            return
        for tensor in operands:
            weighting = self._weights.get(tensor)
            others = [self.origin(t) for t in operands if t is not tensor]
            if weighting is None or any(o is not None and o.calls for o in others):
                continue
            whole = result.numel() == tensor.numel() and result.shape[-2:] == tensor.shape[-2:]
            if whole or (name == "__getitem__" and result.shape[:-1] == tensor.shape[:-1]):
                self._weights.set(result, weighting)

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

    def _over_points(self, weighed: Weighed) -> bool:
        """Whether what weighs the points is a softmax over them."""
        origin = self.origin(weighed.weights) or EMPTY
        sizes = {mark.sizes for i, mark in enumerate(self.marks) if origin.marks & self._softmaxes & 1 << i}
        return (weighed.weights.shape[-1],) in sizes

    def _summed(self, output: Tensor, weighed: Weighed) -> Tensor:
        """Points between tokens, weighed and added up; its queries are the weights, its keys the tokens around."""
        self._sampling.loose -= len(weighed.levels)
        values, points = weighed.tokens(), weighed.points()
        counts = (points.weights.shape[1], values.shape[1])
        edit = self._edit((len(values),), counts, values)
        origin = union(self.origin(grid) for grid in weighed.grids)
        return self._met(
            SEAM,
            output if edit is None else (edit @ values).mT.contiguous(),
            origins=(self.origin(weighed.weights), origin, origin),
            queries=points.weights,
            keys=values,
            values=values,
            order=(0, 2, 1),
            lead=(len(values),),
            counts=counts,
            weights=edit,
            points=points,
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


def _called_from(file: str) -> bool:
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != ENTRY:
        if frame.f_code.co_filename == file:
            return True
        frame = frame.f_back
    return False


def not_eval(where: str, what: str) -> HeedmapError:
    return NotEvalError(
        f"In {where}, {what}: the model is in training mode. heedmap expected eval mode; call model.eval()."
    )
