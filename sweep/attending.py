"""Every attention call of one run, dense: what the oracle sees of a model.

The fused call is replaced by its definition, and so is what weighs points between tokens; a softmax of scores that
weighs values in a product is the third form.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .calls import Attended
from .sampling import between, restated

Ends = tuple[Tensor, Tensor]  # what the rows of a product were made of, and what its columns were
PRODUCTS = ("matmul", "bmm", "baddbmm", "__matmul__", "__rmatmul__")


@contextlib.contextmanager
def watched(model: nn.Module, cut: bool) -> Iterator[list[Attended]]:
    """The calls of a model made inside, in order. With `cut`, the graph ends at the result of each."""
    watch = _Watch(cut)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", watch.fused))
            stack.enter_context(between(model, watch.sampled))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(watch)
            yield watch.calls
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def dense(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """softmax(q k^T * scale + mask), and the values it weighs. A row with every key masked has weights 0."""
    if query.ndim == 4:  # heads that share keys and values
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    dead = (scores == float("-inf")).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(dead, 0.0), -1).masked_fill(dead, 0.0), value


@dataclass
class _Letters:
    """An einsum of two tensors."""

    one: str
    two: str
    output: str

    @classmethod
    def of(cls, equation: Any) -> _Letters | None:
        if not isinstance(equation, str) or "." in equation or "->" not in equation or equation.count(",") != 1:
            return None
        terms, output = equation.replace(" ", "").split("->")
        return cls(*terms.split(","), output)


@dataclass
class _Watch(TorchFunctionMode):
    cut: bool
    calls: list[Attended] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.scores: dict[int, Ends] = {}
        self.weighing: dict[int, Ends] = {}  # of weights
        self.inside = False  # the fused call, which is one operation
        self.kept: list[Any] = []  # whatever has its id in a table must not die

    def fused(self, *args, **kwargs):
        query = args[0] if args else kwargs["query"]
        self.inside = True
        weights, values = dense(*args, **kwargs)
        output = weights @ values
        self.inside = False
        return self.met(Attended(weights, query, values, output))

    def sampled(self, own: Callable, *args, **kwargs):
        self.inside = True
        call = restated(own, *args, **kwargs)
        self.inside = False
        return self.met(call)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if self.inside:
            return function(*args, **kwargs)
        name = getattr(function, "__name__", "")
        if function is F.multi_head_attention_forward:  # inside it then makes the fused call
            return function(*args, **{**kwargs, "need_weights": False})
        if name == "softmax" and kwargs.get("dtype") is torch.float32:
            kwargs["dtype"] = torch.float64  # eager attention is exact, then, where the model is
        result = function(*args, **kwargs)
        joined = args[0] if args and isinstance(args[0], (list, tuple)) else ()  # scores and a sink beside them
        given = [each for each in (*args, *joined, *kwargs.values()) if isinstance(each, Tensor)]
        if name == "einsum" and (letters := _Letters.of(args[0])) is not None:
            operands = args[1] if isinstance(args[1], (list, tuple)) else args[1:]
            return self.summed(letters, operands, result)
        if name in PRODUCTS:
            return self.product(given[1:] if name == "baddbmm" else given, result, name == "__rmatmul__")
        if name == "transpose" and id(given[0]) in self.scores and _last_two(given[0], args[1:]):
            return self.kept_as(self.scores, result, *self.scores[id(given[0])][::-1])
        if isinstance(result, Tensor) and result.ndim >= 2:
            self.follow(name, given, result)
        return result

    def follow(self, name: str, given: Sequence[Tensor], result: Tensor) -> None:
        """Scores stay scores and weights stay weights as long as they keep their rows."""
        for table in (self.weighing, self.scores):
            source = next((each for each in given if id(each) in table), None)
            if source is None or result.shape[-2] != source.shape[-2]:
                continue
            becomes = self.weighing if name == "softmax" else table
            if id(result) not in becomes:
                self.kept_as(becomes, result, *table[id(source)])
            return

    def kept_as(self, table: dict[int, Ends], result: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        table[id(result)] = rows, columns
        self.kept.append(result)
        return result

    def product(self, given: Sequence[Tensor], result: Tensor, turned: bool) -> Tensor:
        if len(given) != 2:
            return result
        left, right = given[::-1] if turned else given
        if id(left) in self.weighing and left.shape[-1] == right.shape[-2]:
            return self.met(Attended(left, self.weighing[id(left)][0], right, result))
        if left.ndim >= 3 and right.ndim >= 3:
            self.kept_as(self.scores, result, left, right.mT)
        return result

    def summed(self, letters: _Letters, operands: Sequence[Tensor], result: Tensor) -> Tensor:
        """An einsum may multiply queries with keys, or weights with values."""
        for a, b, left, right in (
            (letters.one, letters.two, *operands),
            (letters.two, letters.one, *operands[::-1]),
        ):
            query = [x for x in a if x not in b and x in letters.output]
            other = [x for x in b if x not in a and x in letters.output]
            summed = [x for x in a if x in b and x not in letters.output]
            if not len(query) == len(other) == len(summed) == 1:
                continue
            lead = [x for x in a if x not in (*query, *summed)]
            if id(left) in self.weighing:
                values = torch.einsum(f"{b}->{''.join(x for x in lead if x in b)}{summed[0]}{other[0]}", right)
                for axis in [axis for axis, x in enumerate(lead) if x not in b]:
                    values = values.unsqueeze(axis)
                order = [[a.index(x) for x in (*lead, *query, *summed)]]
                order.append([letters.output.index(x) for x in (*lead, *query, *other)])
                return self.met(Attended(left, self.weighing[id(left)][0], values, result, *order))
            if letters.output.endswith(query[0] + other[0]):
                rows = left.permute([a.index(x) for x in (*lead, *query, *summed)])
                columns = right.permute(
                    [b.index(x) for x in b if x not in (*other, *summed)] + [b.index(x) for x in (*other, *summed)]
                )
                self.kept_as(self.scores, result, rows, columns)
                break
        return result

    def met(self, call: Attended) -> Tensor:
        self.kept.append(call)
        self.calls.append(call)
        if not self.cut:
            return call.output
        call.output = call.output.detach().requires_grad_()
        return call.output.clone()


def _last_two(tensor: Tensor, axes: Sequence[int]) -> bool:
    return sorted(axis % tensor.ndim for axis in axes) == [tensor.ndim - 2, tensor.ndim - 1]
