"""The rule where attention weighs points between tokens (deformable attention).

A query takes from a few points of each grid of tokens, and what lies at a point is read off the four tokens around it.
The gradient of a point's weight is what was found there, times the gradient of the call's output. So a map has an
entry for every query and point; it is corrected there, and then shared out among the four tokens by how near they are.
Tokens outside the grid do not exist: those inside share all that the point gives, so that rows keep their sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from heedmap.records import Heads, Level, Points

Correct = Callable[[Tensor], Tensor]


def pull(heads: Heads, gradient: Tensor, row: Tensor, correct: Correct) -> Tensor:
    """`row @ map`: what of (batch, queries) relevance came from each token, (batch, keys)."""
    assert heads.points is not None
    batch, count, queries, _ = heads.shape
    share = (row / count)[:, None, :, None].expand(-1, count, -1, 1).reshape(-1, queries, 1)
    given = _map(heads.points, gradient, correct, row.dtype).mul_(share)
    parts = [
        _shared(_over(part, _inside(level)), level).view(batch, count, -1).sum(1)
        for level, part in _by_level(heads.points, given)
    ]
    return torch.cat(parts, -1)


def push(heads: Heads, gradient: Tensor, column: Tensor, correct: Correct) -> Tensor:
    """`map @ column`: the forward direction, (batch, keys) to (batch, queries)."""
    assert heads.points is not None
    batch, count, queries, _ = heads.shape
    told = _map(heads.points, gradient, correct, column.dtype)
    sums = column.new_zeros(batch * count, queries)
    sizes = [level.size[0] * level.size[1] for level in heads.points.levels]
    for (level, part), own in zip(_by_level(heads.points, told), column.split(sizes, -1), strict=True):
        grid = own.view(batch, 1, 1, *level.size).expand(-1, count, -1, -1, -1).flatten(0, 1)
        sums += (part * _over(_sampled(grid, level)[:, 0], _inside(level))).sum(-1)
    return sums.view(batch, count, queries).mean(1)


def rows(heads: Heads, at: tuple[slice, slice, slice | Tensor]) -> Tensor:
    """The weights of some query rows over all tokens: how much of each the call takes, which needs no sharing out."""
    assert heads.points is not None
    batch, count, queries, _ = heads.shape

    def chosen(tensor: Tensor) -> Tensor:
        return tensor.detach().view(batch, count, queries, *tensor.shape[2:])[at]

    found = []
    for level, part in _by_level(heads.points, heads.points.weights):
        weights, places = chosen(part), chosen(level.places)
        alone = Level(level.size, places.flatten(0, 2)[:, None], level.options)
        found.append(_shared(weights.flatten(0, 2)[:, None], alone).view(*weights.shape[:3], -1))
    return torch.cat(found, -1)


def _map(points: Points, gradient: Tensor, correct: Correct, dtype: torch.dtype) -> Tensor:
    """What every point says: its weight times its corrected gradient, (batch * head, query, point)."""
    weights = points.weights.detach().to(dtype)
    told = torch.empty_like(weights)
    flat = gradient.flatten(0, 1).to(dtype)
    for index, taken in enumerate(points.taken.detach()):  # head by head: a copy of all in float32 may be too much
        told[index] = (taken.to(dtype) * flat[index].mT[..., None]).sum(0)
    return correct(told) * weights


def _by_level(points: Points, tensor: Tensor) -> Iterator[tuple[Level, Tensor]]:
    sizes = [level.places.shape[2] for level in points.levels]
    yield from zip(points.levels, tensor.split(sizes, -1), strict=True)


def _shared(given: Tensor, level: Level) -> Tensor:
    """What (lead, query, point) gives to each token of a grid, (lead, tokens): sampling, transposed."""
    with torch.enable_grad():
        grid = given.new_zeros(len(given), 1, *level.size, requires_grad=True)
        (found,) = torch.autograd.grad(_sampled(grid, level), grid, given[:, None])
    return found.flatten(1)


def _inside(level: Level) -> Tensor:
    """How much of what lies around each point are tokens: 1, or less at the border."""
    return _sampled(level.places.new_ones(len(level.places), 1, *level.size), level)[:, 0]


def _over(given: Tensor, inside: Tensor) -> Tensor:
    return torch.where(inside > 0, given / inside.clamp(min=torch.finfo(inside.dtype).tiny), 0)


def _sampled(grid: Tensor, level: Level) -> Tensor:
    return F.grid_sample(grid, level.places.detach().to(grid), **level.options)
