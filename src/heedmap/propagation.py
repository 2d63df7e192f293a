"""The rule, blockwise: how a row of relevance passes through the map of one call.

    map = mean over heads of correct(gradient) * weights       (heterogenous-attention, equations 1 to 3)
    relevance[read] += relevance[reading] @ map                (equations 6 and 7, read from the answer's side)

With out = A V the gradient of the weights is dA = dOut V^T, and A = softmax(q k^T * scale + mask), so neither has to be
kept: a few query rows at a time are formed, corrected, multiplied into the row and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from heedmap.records import Heads

Correct = Callable[[Tensor], Tensor]
BLOCK_BYTES = 2**21  # of one block of weights: small enough to stay in a processor's cache


def pull(heads: Heads, gradient: Tensor, row: Tensor, correct: Correct) -> Tensor:
    """`row @ map`: what of (batch, queries) relevance came from each key, (batch, keys)."""
    batch, count, _, keys = heads.shape
    flowed = row.new_zeros(batch, keys)
    for rows, width, block in blocks(heads, gradient, _rows(row), correct):
        share = (row[:, rows] / count)[:, None, None, :].expand(-1, count, 1, -1)
        flowed[:, :width] += (share @ block.to(row.dtype)).sum((1, 2))
    return flowed


def push(heads: Heads, gradient: Tensor, column: Tensor, correct: Correct) -> Tensor:
    """`map @ column`: the forward direction, (batch, keys) to (batch, queries)."""
    batch, count, queries, _ = heads.shape
    sums = column.new_zeros(batch, queries)
    for rows, width, block in blocks(heads, gradient, torch.arange(queries, device=column.device), correct):
        sums[:, rows] = (block.to(column.dtype) @ column[:, None, :width, None]).sum((1, 3)) / count
    return sums


def blocks(heads: Heads, gradient: Tensor, rows: Tensor, correct: Correct) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Corrected maps of a few query rows at a time: (rows, number of keys, (batch, head, row, key))."""
    batch, count, queries, keys = heads.shape
    dtype = torch.promote_types(heads.values.dtype, torch.float32)
    step = max(1, BLOCK_BYTES // (batch * count * keys * dtype.itemsize))
    values = heads.values.detach().to(dtype).transpose(-2, -1)
    for some in rows.split(step):
        dense = len(some) == queries
        width = min(keys, int(some[-1]) + 1) if heads.causal else keys
        weights = _weights(heads, some, width, dtype, dense)
        change = gradient if dense else gradient[:, :, some]
        block = correct(change.to(dtype) @ values[..., :width])
        yield some, width, block.mul_(weights)


def _rows(row: Tensor) -> Tensor:
    """The rows that carry relevance in any example: no other costs anything."""
    return (row != 0).any(0).nonzero()[:, 0]


def _weights(heads: Heads, rows: Tensor, width: int, dtype: torch.dtype, dense: bool) -> Tensor:
    """Softmax weights of some query rows over the first `width` keys; a fully masked row weighs nothing."""
    if heads.weights is not None:
        return heads.weights[:, :, rows, :width].detach().to(dtype)
    assert heads.queries is not None
    assert heads.keys is not None
    queries = (heads.queries if dense else heads.queries[:, :, rows]).detach().to(dtype)
    scores = (queries * heads.scale) @ heads.keys[:, :, :width].detach().to(dtype).transpose(-2, -1)
    masked = _mask(heads, scores, rows, width)
    weights = scores.softmax(-1)
    return weights.nan_to_num_(0.0) if masked else weights


def _mask(heads: Heads, scores: Tensor, rows: Tensor, width: int) -> bool:
    """Apply the call's masks to a block of scores, in place; whether there were any that can empty a row."""
    if heads.causal:
        later = torch.arange(width, device=rows.device) > rows[:, None]
        scores.masked_fill_(later, float("-inf"))
    if heads.mask is None:
        return False
    mask = heads.mask.detach()
    mask = mask if mask.shape[-2] == 1 else mask[:, :, rows]
    mask = mask if mask.shape[-1] == 1 else mask[..., :width]
    if mask.dtype == torch.bool:
        scores.masked_fill_(~mask, float("-inf"))
    else:
        scores.add_(mask)
    return True
