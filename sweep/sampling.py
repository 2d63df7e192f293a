"""Attention that weighs points between tokens (deformable attention), from its definition.

    output[q] = sum over levels and points p of  w[q, p] * sum over the tokens t of that level  near[p, t] * v[t]

`near` is bilinear: 1 less the distance in columns, times 1 less the distance in rows, and never less than 0. The middle
of token (j, i) of a grid of H x W lies at ((i + 1/2) / W, (j + 1/2) / H). The map is, with the gradient by each w,

    A_bar[q, t] = mean over heads of  sum over p of  (grad w * w)[q, p] * near[p, t] / sum over t' of near[p, t']

so that the tokens there are share all that a point near the border gives; a point beyond all of them gives nothing.

A model's own function for it is known by the names of what it takes.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from .calls import Attended

TAKES = {"value", "sampling_locations", "attention_weights"}


@dataclass
class Sampled(Attended):
    """A call over points: `weights` are (batch, query, head, point), `near` (batch, query, head, point, token)."""

    near: Sequence[Tensor] = ()  # of each level

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.weights.shape[0], self.weights.shape[1], sum(level.shape[-1] for level in self.near)

    def map(self, gradient: Tensor) -> Tensor:
        points = (gradient * self.weights).detach()
        whole = [level / level.sum(-1, keepdim=True).where(level.any(-1, keepdim=True), 1) for level in self.near]
        return shared(points, whole).mean(2)


def shared(points: Tensor, near: Sequence[Tensor]) -> Tensor:
    """What each token has of each query's points, (batch, query, head, token)."""
    each = points.split([level.shape[-2] for level in near], -1)
    return torch.cat([torch.einsum("bqhp,bqhpt->bqht", *pair) for pair in zip(each, near, strict=True)], -1)


def restated(own: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Sampled:
    """A call of a model's own function, by the definition; it must say the same."""
    taken = inspect.signature(own).bind(*args, **kwargs).arguments
    values, weights = taken["value"].transpose(1, 2), taken["attention_weights"]
    sizes = [(int(h), int(w)) for h, w in taken.get("value_spatial_shapes_list", taken["value_spatial_shapes"])]
    places = by_level(taken["sampling_locations"], len(sizes), taken.get("num_points_list"))
    near = [nearness(each, *size) for each, size in zip(places, sizes, strict=True)]
    weights = weights.flatten(3)
    output = torch.einsum("bqht,bhtc->bqhc", shared(weights, near), values).flatten(2)
    true = own(*args, **kwargs)
    if not torch.allclose(output, true, rtol=1e-4, atol=1e-5 * float(true.detach().abs().max())):
        raise ValueError(f"{own.__qualname__} does not sample between tokens by how near they are")
    near = [level.detach() for level in near]
    return Sampled(weights, weights.flatten(2)[:, None], values, output, near=near)


def by_level(places: Tensor, levels: int, points: Sequence[int] | None) -> Sequence[Tensor]:
    """The places of each level's points, (batch, query, head, point, 2); some models put all levels on one axis."""
    if places.ndim == 6:
        return places.unbind(3)
    return places.split(points or places.shape[3] // levels, 3)


def nearness(places: Tensor, height: int, width: int) -> Tensor:
    """How near each token of a grid is to each place, (..., token); places are between 0 and 1."""
    right, down = (
        (1 - (places[..., axis, None] * size - 0.5 - torch.arange(size)).abs()).clamp(min=0)
        for axis, size in enumerate((width, height))
    )
    return (down[..., :, None] * right[..., None, :]).flatten(-2)


@contextlib.contextmanager
def between(model: nn.Module, met: Callable[..., Tensor]) -> Iterator[None]:
    """Inside, `met` is called instead of whatever a model samples with: with that function, and what it is given."""
    files = {sys.modules[type(part).__module__] for part in model.modules()}
    with contextlib.ExitStack() as stack:
        for owner in (*files, *model.modules()):
            for name, each in list(vars(owner).items()):
                inner: Any = vars(each).get("forward") if isinstance(each, type) else None
                if _samples(each):
                    stack.enter_context(mock.patch.object(owner, name, _instead(each, met)))
                elif _samples(inner):
                    stack.enter_context(mock.patch.object(each, "forward", _instead(inner, met)))
        yield


def _instead(own: Callable[..., Tensor], met: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: met(own, *args, **kwargs)


def _samples(each: Any) -> bool:
    return inspect.isfunction(each) and set(inspect.signature(each).parameters) >= TAKES
