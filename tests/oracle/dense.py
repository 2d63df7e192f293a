"""The papers' equations, restated slowly: full matrices, float64, nothing taken from the package.

Two halves. `record` runs a model once with every attention call dense, and keeps what the equations need: the
weights A of each call, their gradient, and the norm of the gradient of each row of A @ v. `walk` is the equations
themselves, in numpy: one relevance matrix per stream and source, updated forward, call by call.

    A_bar = E_heads(correct(grad A) * A)                                     equations 1, 2, 3
    R[reading][source] <- R[reading][source] + A_bar @ R[read][source]       equations 4 to 7
    E <- (E - I) / rowsum(E - I) + I                                         equations 8, 9, 10: the noise link

Which stream reads which is never found out here: it is declared by hand, one `Step` per call.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch

Array = np.ndarray

# --------------------------------------------------------------------------------------------------------------
# Recording: every attention call of one run, dense
# --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One attention call as it ran: the weights tensor A and the tensor A @ v."""

    weights: torch.Tensor
    output: torch.Tensor


@dataclass(frozen=True)
class Record:
    """All calls of one run, in call order, as float64 numpy."""

    weights: list[Array]  # per call: batch x head x query x key
    gradients: list[Array]  # d target / d weights, the same shapes
    row_norms: list[Array]  # per call: batch x query, the norm of d target / d (A @ v) over heads and channels
    value: Array  # batch
    returned: tuple[torch.Tensor, ...] = ()  # the attention weights that the model itself returned
    calls: tuple[Call, ...] = ()


def dense_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(q k^T * scale + mask) and its product with v. A row with every key masked has weights 0."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, dim=-3), value.repeat_interleave(repeats, dim=-3)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~allowed, float("-inf"))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    dead = (scores == float("-inf")).all(dim=-1, keepdim=True)
    scores = scores.masked_fill(dead, 0.0)
    weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True).detach())
    weights = (weights / weights.sum(dim=-1, keepdim=True)).masked_fill(dead, 0.0)
    return _connected(weights), _product(weights, value)


@contextlib.contextmanager
def dense_calls(replace_fused: bool = True) -> Iterator[list[Call]]:
    """Collect the attention calls made inside, and leave torch as it was.

    `scaled_dot_product_attention` is replaced by its dense definition (or must not be met, with
    replace_fused=False); a product whose left operand is a softmax is the other form of the same thing.
    """
    calls: list[Call] = []

    def fused(*args, **kwargs):
        if not replace_fused:
            raise AssertionError("a fused attention call was met in an eager run")
        weights, output = dense_attention(*args, **kwargs)
        calls.append(Call(weights, output))
        return output

    def observed(product: Callable) -> Callable:
        def wrapper(left, right, *args, **kwargs):
            if not _is_weights(left):
                return product(left, right, *args, **kwargs)
            left = _connected(left)
            output = product(left, right, *args, **kwargs)
            calls.append(Call(left, output))
            return output

        return wrapper

    fastpath = torch.backends.mha.get_fastpath_enabled()
    with contextlib.ExitStack() as stack:
        replace = lambda owner, name, new: stack.enter_context(mock.patch.object(owner, name, new))  # noqa: E731
        replace(torch.nn.functional, "scaled_dot_product_attention", fused)
        replace(torch, "matmul", observed(torch.matmul))
        replace(torch, "bmm", observed(torch.bmm))
        for name in ("matmul", "__matmul__", "bmm"):
            replace(torch.Tensor, name, observed(getattr(torch.Tensor, name)))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield calls
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)


@contextlib.contextmanager
def weights_wanted() -> Iterator[None]:
    """nn.MultiheadAttention on its own eager form: torch's explicit softmax and bmm instead of the fused call."""
    forward = torch.nn.MultiheadAttention.forward

    def eager(self, *args, **kwargs):
        kwargs |= {"need_weights": True, "average_attn_weights": False}
        return forward(self, *args, **kwargs)

    with mock.patch.object(torch.nn.MultiheadAttention, "forward", eager):
        yield


def record(
    model: torch.nn.Module,
    inputs: Mapping[str, object],
    target: Callable[[object], torch.Tensor],
    dtype: torch.dtype = torch.float64,
    *,
    eager: bool = False,
) -> Record:
    """One run of a copy of the model in `dtype`, its attention dense, and the gradients of `target(output).sum()`.

    Examples do not see each other, so the gradient of the sum holds every example's own gradient.
    With eager=True nothing is replaced: the model must be on an attention of explicit softmax and matmul, and its own
    weights are what is recorded.
    """
    model = copy.deepcopy(model).to(dtype).requires_grad_(True)
    inputs = {name: _cast(value, dtype) for name, value in inputs.items()}
    with torch.enable_grad(), contextlib.ExitStack() as stack:
        if eager:
            stack.enter_context(weights_wanted())
        calls = stack.enter_context(dense_calls(replace_fused=not eager))
        output = model(**inputs)
        value = target(output)
    gradients = _gradients(value, [call.weights for call in calls])
    outputs = _gradients(value, [call.output for call in calls])
    batch = value.shape[0]
    return Record(
        weights=[_numpy(_by_example(call.weights, batch)) for call in calls],
        gradients=[_numpy(_by_example(gradient, batch)) for gradient in gradients],
        row_norms=[np.sqrt((_numpy(_by_example(g, batch)) ** 2).sum(axis=(1, 3))) for g in outputs],
        value=_numpy(value),
        returned=tuple(_returned_attentions(output)),
        calls=tuple(calls),
    )


def _gradients(value: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    found = torch.autograd.grad(value.sum(), tensors, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]


def _connected(weights: torch.Tensor) -> torch.Tensor:
    return weights if weights.requires_grad else weights.requires_grad_(True)


def _product(weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.einsum("...qk,...kd->...qd", weights, value)


def _is_weights(left: object) -> bool:
    if not torch.is_tensor(left) or left.dim() not in (3, 4) or not left.is_floating_point():
        return False
    return _sums_to_one(left) if left.grad_fn is None else _is_softmax(left.grad_fn)


def _is_softmax(node, depth: int = 6) -> bool:
    """Is this the result of a softmax, perhaps after a cast or a view?"""
    for _ in range(depth):
        if node is None:
            return False
        name = type(node).__name__
        if name.startswith("SoftmaxBackward"):
            return True
        if not name.startswith(("View", "UnsafeView", "Reshape", "Clone", "ToCopy", "Alias")):
            return False
        node = node.next_functions[0][0]
    return False


def _sums_to_one(tensor: torch.Tensor) -> bool:
    total = tensor.sum(dim=-1)
    return bool((tensor >= 0).all()) and torch.allclose(total, torch.ones_like(total))


def _by_example(tensor: torch.Tensor, batch: int) -> torch.Tensor:
    """batch x head x query x (key or channel), from 4-D or from 3-D with the heads folded into the batch."""
    return tensor.reshape(batch, -1, *tensor.shape[-2:])


def _numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().to(torch.float64).numpy()


def _cast(value: object, dtype: torch.dtype) -> object:
    return value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value


def _returned_attentions(output: object) -> Iterator[torch.Tensor]:
    """Every tensor in a field whose name ends in `attentions`, nested outputs included."""
    if not isinstance(output, Mapping):
        return
    for name, value in output.items():
        if name.endswith("attentions"):
            yield from (a for a in value or () if a is not None)
        elif isinstance(value, Mapping):
            yield from _returned_attentions(value)


# --------------------------------------------------------------------------------------------------------------
# The equations, forward, with full matrices
# --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One attention call as a person reads the model: `reading` takes from `read`.

    together=True: this step reads the same old states as the step before it, not that step's result.
    """

    reading: str
    read: str
    together: bool = False


@dataclass(frozen=True)
class Rows:
    """One stream's part of the answer's row: the papers' row as written, and the row the walk started with."""

    row: Array  # batch x token
    start: Array

    @property
    def flowed(self) -> Array:
        return self.row - self.start


Relevance = dict[str, dict[str, Array]]  # relevance[stream][source]: batch x token of stream x token of source

CORRECTIONS: dict[str, Callable[[Array], Array]] = {
    "complete": lambda gradient: gradient,
    "positive": lambda gradient: np.maximum(gradient, 0.0),
    "absolute": lambda gradient: np.abs(gradient),
}


def attention_map(weights: Array, gradients: Array, correction: str) -> Array:
    """A_bar, equations 1 to 3: batch x query x key."""
    return (CORRECTIONS[correction](gradients) * weights).mean(axis=1)


def beginning(batch: int, tokens: Mapping[str, int]) -> Relevance:
    """Every stream is its own source: identity for itself, zero for the others."""
    return {
        stream: {
            source: np.stack([np.eye(n, m) if stream == source else np.zeros((n, m))] * batch)
            for source, m in tokens.items()
        }
        for stream, n in tokens.items()
    }


def noised(relevance: dict[str, Array], stream: str) -> dict[str, Array]:
    """Equations 8 to 10 at one state: the added part, each row divided by its sum (a zero sum stays zero)."""
    if any(matrix.any() for source, matrix in relevance.items() if source != stream):
        raise ValueError(f"the noise link is defined where {stream!r} holds nothing but itself")
    identity = np.eye(relevance[stream].shape[-1])
    added = relevance[stream] - identity
    total = added.sum(axis=-1, keepdims=True)
    share = np.divide(added, total, out=np.zeros_like(added), where=total != 0)
    return relevance | {stream: share + identity}


def forward(
    maps: Sequence[Array],
    steps: Sequence[Step],
    tokens: Mapping[str, int],
    noise: tuple[str, int] | None = None,
) -> list[Relevance]:
    """The relevance after every step. `noise` = (stream, step) puts the noise link on the state after that step."""
    if len(maps) != len(steps):
        raise ValueError(f"{len(maps)} calls were recorded, {len(steps)} steps are declared")
    current = beginning(len(maps[0]), tokens)
    after = []
    for index, (a_bar, step) in enumerate(zip(maps, steps, strict=True)):
        if not step.together:
            old = current
        updated = {s: current[step.reading][s] + a_bar @ old[step.read][s] for s in tokens}
        if noise == (step.reading, index):
            updated = noised(updated, step.reading)
        current = current | {step.reading: updated}
        after.append(current)
    return after


def share_of_rows(norms: Array) -> Array:
    """The answer's rows: those with a gradient, weighted by its norm, summing to 1 per example."""
    return norms / norms.sum(axis=-1, keepdims=True)


def walk(
    record: Record,
    steps: Sequence[Step],
    tokens: Mapping[str, int],
    ends: Sequence[int] = (-1,),
    correction: str = "complete",
    *,
    noise: tuple[str, int] | None = None,
    start: tuple[str, int, Array] | None = None,
) -> dict[str, Rows]:
    """What every stream contributed to the answer.

    `ends` are the steps whose result the target reads, each in a stream of its own. `start` = (stream, step, row)
    reads a state half way instead: `row` (per token) of `stream` as it stands after `step`.
    """
    maps = [attention_map(a, g, correction) for a, g in zip(record.weights, record.gradients, strict=True)]
    after = forward(maps, steps, tokens, noise)
    batch = len(record.value)
    if start is None:
        readings = [(steps[end].reading, after[-1], share_of_rows(record.row_norms[end])) for end in ends]
    else:
        stream, step, row = start
        readings = [(stream, after[step], np.broadcast_to(row, (batch, tokens[stream])))]
    result = {}
    for source, n in tokens.items():
        row, first = np.zeros((batch, n)), np.zeros((batch, n))
        for stream, relevance, weights in readings:
            row = row + np.einsum("bi,bij->bj", weights, relevance[stream][source])
            first = first + (weights if stream == source else 0.0)
        result[source] = Rows(row, first)
    return result
