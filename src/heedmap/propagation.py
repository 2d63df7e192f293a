"""The rule, blockwise: how a row of relevance passes through the map of one call.

    map = mean over heads of correct(gradient) * weights       (heterogenous-attention, equations 1 to 3)
    relevance[read] += relevance[reading] @ map                (equations 6 and 7, read from the answer's side)

With out = A V the gradient of the weights is dA = dOut V^T, and A = softmax(q k^T * scale + mask), so neither has to be
kept: a block of a few heads or a few query rows is formed, corrected, multiplied into the row and forgotten. A backward
pass of attention forms the same two blocks, so the gradients of q, k and v can be taken on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from heedmap import sampling
from heedmap.memory import free
from heedmap.records import Heads

Correct = Callable[[Tensor], Tensor]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

# of one block of weights: what stays in a processor's cache, what keeps an accelerator busy
CACHED, BUSY = 5 * 2**19, 2**28
ROWS = 64  # of a block, however many keys there are: with 10 the products take 2.6 times as long, with 128 no less
SHARE = 8  # of the free memory a block takes no more than this part: four of its size are held at once


def pull(heads: Heads, gradient: Tensor, row: Tensor, correct: Correct) -> Tensor:
    """`row @ map`: what of (batch, queries) relevance came from each key, (batch, keys)."""
    if heads.points is not None:
        return sampling.pull(heads, gradient, row, correct)
    flowed = row.new_zeros(len(row), heads.shape[3])
    share = (row / heads.shape[1])[:, None, None]
    for block in blocks(heads, gradient, (row != 0).any(0)):
        corrected = correct(block.change).mul_(block.weights).to(row.dtype)
        _pour(flowed, share, block, corrected)
    return flowed


def push(heads: Heads, gradient: Tensor, column: Tensor, correct: Correct) -> Tensor:
    """`map @ column`: the forward direction, (batch, keys) to (batch, queries)."""
    if heads.points is not None:
        return sampling.push(heads, gradient, column, correct)
    batch, count, queries, _ = heads.shape
    sums = column.new_zeros(batch, queries)
    for block in blocks(heads, gradient, None):
        corrected = correct(block.change).mul_(block.weights).to(column.dtype)
        told = corrected @ column[block.examples, None, : block.width, None]
        sums[block.examples, block.rows] += told.sum((1, 3)) / count
    return sums


def pull_and_differentiate(
    heads: Heads, gradient: Tensor, row: Tensor, correct: Correct, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Gradients]:
    """`row @ map`, and the gradients of the call's queries, keys and values, from the same blocks.

    Softmax weights are never negative, so correcting gradient * weights is correcting the gradient.
    """
    assert heads.queries is not None
    assert heads.keys is not None
    flowed = row.new_zeros(len(row), heads.shape[3])
    share = (row / heads.shape[1])[:, None, None]
    queries, keys = (heads.queries * heads.scale).detach(), heads.keys.detach()
    of_queries, of_keys, of_values = (torch.zeros_like(t, dtype=row.dtype) for t in (queries, keys, heads.values))
    for block in blocks(heads, gradient, (gradient != 0).any(-1).any(1).any(0)):
        at, width = (block.examples, block.heads), block.width
        product = block.change.mul_(block.weights)
        _pour(flowed, share, block, correct(product).to(row.dtype))
        if wanted[2]:
            of_values[(*at, slice(width))] += block.weights.mT @ block.gradient
        if wanted[0] or wanted[1]:
            total = product.sum(-1, keepdim=True)
            scores = product.addcmul_(block.weights, total, value=-1)
            of_queries[(*at, block.rows)] = scores @ keys[(*at, slice(width))].to(scores.dtype)
            of_keys[(*at, slice(width))] += scores.mT @ queries[(*at, block.rows)].to(scores.dtype)
    found = (of_queries.mul_(heads.scale), of_keys, of_values)
    of = tuple(part.to(gradient.dtype) if want else None for part, want in zip(found, wanted, strict=True))
    return flowed, (of[0], of[1], of[2])


class Block(NamedTuple):
    """Some heads, some query rows: their weights, and the gradient of the weights."""

    examples: slice
    heads: slice
    rows: slice | Tensor
    width: int  # how many keys: causal rows hear no later ones
    weights: Tensor
    change: Tensor
    gradient: Tensor


def blocks(heads: Heads, gradient: Tensor, active: Tensor | None) -> Iterator[Block]:
    """The maps of the active query rows, a block at a time."""
    batch, count, queries, keys = heads.shape
    dtype = torch.promote_types(heads.values.dtype, torch.float32)
    rows = None if active is None or 2 * int(active.sum()) >= queries else active.nonzero()[:, 0]
    few = queries if rows is None else len(rows)
    values = heads.values.detach().to(dtype).mT
    gradient = gradient.to(dtype)
    row_bytes = keys * dtype.itemsize
    budget = block_bytes(batch * count * few * row_bytes, row_bytes, gradient.device) // row_bytes
    for examples, some, part in _cuts(batch, count, few, max(1, budget)):
        chosen: slice | Tensor = part if rows is None else rows[part]
        width = min(keys, int(chosen.stop if isinstance(chosen, slice) else chosen[-1] + 1)) if heads.causal else keys
        at = (examples, some, chosen)
        weights = _weights(heads, at, width, dtype)
        here = gradient[at]
        yield Block(examples, some, chosen, width, weights, here @ values[examples, some, :, :width], here)


def formed(heads: Heads) -> Tensor:
    """The weights of a whole call, (batch, head, query, key)."""
    dtype = torch.promote_types(heads.values.dtype, torch.float32)
    return _weights(heads, (slice(None), slice(None), slice(None)), heads.shape[3], dtype)


def _pour(flowed: Tensor, share: Tensor, block: Block, corrected: Tensor) -> None:
    given = share[block.examples, :, :, block.rows] @ corrected
    flowed[block.examples, : block.width] += given.sum((1, 2))


def block_bytes(whole: int, row: int, device: torch.device) -> int:
    """How large a block of weights may be: as large as serves, where the device has that much free.

    Of what is free a power of two is taken, so that little more or less of it cuts the same blocks. What stays in a
    cache is never too much: an explanation holds larger things.
    """
    wanted = min(whole, max(CACHED if device.type == "cpu" else BUSY, ROWS * row))
    if wanted <= CACHED:
        return wanted
    spare = free(device)
    return wanted if spare is None else min(wanted, max(CACHED, 2 ** max(0, (spare // SHARE).bit_length() - 1)))


def _cuts(batch: int, heads: int, rows: int, budget: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut (batch, head, row) so that `budget` rows make a block: whole heads where they fit, else rows of one head."""
    several = max(1, budget // max(1, rows))
    by_head = min(heads, several)
    by_example = max(1, several // heads)
    by_row = max(1, min(rows, budget))
    for example in range(0, batch, by_example):
        for head in range(0, heads, by_head):
            for row in range(0, rows, by_row):
                yield (
                    slice(example, min(example + by_example, batch)),
                    slice(head, min(head + by_head, heads)),
                    slice(row, min(row + by_row, rows)),
                )


def _weights(heads: Heads, at: tuple[slice, slice, slice | Tensor], width: int, dtype: torch.dtype) -> Tensor:
    """Softmax weights of some query rows over the first `width` keys; a fully masked row weighs nothing."""
    examples, some, rows = at
    if heads.weights is not None:
        return heads.weights[at][..., :width].detach().to(dtype)
    if heads.points is not None:
        return sampling.rows(heads, at).to(dtype)
    assert heads.queries is not None
    assert heads.keys is not None
    queries = heads.queries[at].detach().to(dtype) * heads.scale
    scores = queries @ heads.keys[examples, some, :width].detach().to(dtype).mT
    if heads.causal:
        asking = torch.arange(heads.shape[2], device=scores.device)[rows]
        scores.masked_fill_(torch.arange(width, device=scores.device) > asking[:, None], float("-inf"))
    if heads.mask is None:
        return scores.softmax(-1)
    mask = _part(heads.mask.detach(), (examples, some, rows), width)
    scores = scores.masked_fill_(~mask, float("-inf")) if mask.dtype == torch.bool else scores.add_(mask)
    return scores.softmax(-1).nan_to_num_(0.0)


def _part(mask: Tensor, at: tuple[slice, slice, slice | Tensor], width: int) -> Tensor:
    """The part of a mask that belongs to a block; axes of one broadcast."""
    for axis, which in enumerate((*at, slice(width))):
        if mask.shape[axis] > 1:
            mask = mask[(slice(None),) * axis + (which,)]
    return mask
