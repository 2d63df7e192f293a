"""Deformable attention restated with full matrices: a query weighs points, a point lies between four tokens.

    out[q] = sum over levels and points of  w[q, p] * sum over the four tokens c around p of  near[p, c] * v[c]

The map has an entry for each query and point, correct(d target / d w) * w, and hands it to the tokens around the point
in proportion to `near`; tokens beyond the grid do not exist, and those that do share all of it.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from dense import CORRECTIONS, Array, Call, attention_map, dense_calls, noised


@dataclass(frozen=True)
class Sampled:
    """One deformable call as it ran: (batch, query, head, level, point), and the places of points between 0 and 1.

    Some models have one axis for the points of all levels.
    """

    weights: torch.Tensor
    places: torch.Tensor
    sizes: Sequence[tuple[int, int]]

    def near(self) -> tuple[Array, Array]:
        """(batch, query, head, level, point, 4): the tokens around each point, and how near each is; 0 beyond."""
        places = _by_level(self.places.detach().numpy(), len(self.sizes), 6)
        index, share = np.zeros((*places.shape[:-1], 4), dtype=int), np.zeros((*places.shape[:-1], 4))
        first = 0
        for level, (height, width) in enumerate(self.sizes):
            x = places[..., level, :, 0] * width - 0.5  # the middle of the first token lies at 0
            y = places[..., level, :, 1] * height - 0.5
            for corner, (right, down) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
                i, j = np.floor(x).astype(int) + right, np.floor(y).astype(int) + down
                near = (1 - np.abs(x - i)) * (1 - np.abs(y - j))
                there = (i >= 0) & (i < width) & (j >= 0) & (j < height)
                index[..., level, :, corner] = np.where(there, first + j * width + i, 0)
                share[..., level, :, corner] = np.where(there, near, 0.0)
            first += height * width
        return index, share

    def weighed(self, amounts: Array, whole: bool) -> Array:
        """(batch, head, query, token): amounts of (batch, query, head, level, point), handed to the tokens around.

        `whole`: the tokens that exist share all of it.
        """
        index, share = self.near()
        if whole:
            total = share.sum(-1, keepdims=True)
            share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
        batch, queries, heads = amounts.shape[:3]
        full = np.zeros((batch, heads, queries, sum(h * w for h, w in self.sizes)))
        for b, q, h in np.ndindex(batch, queries, heads):
            np.add.at(full[b, h, q], index[b, q, h].ravel(), (amounts[b, q, h][..., None] * share[b, q, h]).ravel())
        return full

    def map(self, gradient: Array, correction: str) -> Array:
        """A_bar: batch x query x token."""
        amounts = CORRECTIONS[correction](gradient) * self.weights.detach().numpy()
        amounts = _by_level(amounts, len(self.sizes), 5)
        return self.weighed(amounts, whole=True).mean(1)


def _by_level(array: Array, levels: int, axes: int) -> Array:
    """With an axis of levels before that of points, where a model has them in one."""
    return array if array.ndim == axes else array.reshape(*array.shape[:3], levels, -1, *array.shape[4:])


class Read(NamedTuple):
    """One call as a person reads the model: `reading` takes from `read`, or from a part of its tokens.

    together=True: this call reads the same old states as the one before it, not that one's result.
    """

    reading: str
    read: str
    part: slice = slice(None)
    together: bool = False


@contextlib.contextmanager
def all_calls(model: torch.nn.Module) -> Iterator[list[Call | Sampled]]:
    """The attention calls made inside, dense and deformable, in call order."""
    modeling = sys.modules[type(model).__module__]
    with contextlib.ExitStack() as stack:
        calls: list[Call | Sampled] = stack.enter_context(dense_calls())

        def observed(function: Callable) -> Callable:
            def wrapper(*args, **kwargs):
                given = [*args, *kwargs.values()]
                floats = [each for each in given if isinstance(each, torch.Tensor) and each.is_floating_point()]
                sizes = next(each for each in given if isinstance(each, (list, tuple)))
                calls.append(Sampled(floats[2], floats[1], [(int(h), int(w)) for h, w in sizes]))
                return function(*args, **kwargs)

            return wrapper

        names = [name for name in vars(modeling) if name.lower().replace("_", "").startswith("multiscaledeformable")]
        for name in names:
            own = getattr(modeling, name)
            if isinstance(own, type):
                stack.enter_context(mock.patch.object(own, "forward", observed(own.forward)))
            else:
                stack.enter_context(mock.patch.object(modeling, name, observed(own)))
        assert names, f"{modeling.__name__} has no deformable attention"
        yield calls


def walked(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    target: Callable[[object], torch.Tensor],
    steps: Sequence[Read | None],
    tokens: Mapping[str, int],
    starts: Mapping[str, int],
    correction: str = "complete",
    noise: int | None = None,
) -> dict[str, Array]:
    """What flowed to each stream when the walk starts at one row of some streams, batch x token.

    Where a step is None the call lies before the beginning that is declared. `noise` is the step after which the noise
    link stands.
    """
    model = copy.deepcopy(model).double().requires_grad_(True)
    with torch.enable_grad(), all_calls(model) as calls:
        value = target(model(**inputs)).sum()
    assert len(calls) == len(steps), f"{len(calls)} calls were met, {len(steps)} are declared"
    gradients = torch.autograd.grad(value, [call.weights for call in calls], allow_unused=True)
    batch = len(next(iter(inputs.values())))
    state = {
        stream: {
            source: np.stack([np.eye(n) if stream == source else np.zeros((n, tokens[source]))] * batch)
            for source in tokens
        }
        for stream, n in tokens.items()
    }
    for index, (call, gradient, step) in enumerate(zip(calls, gradients, steps, strict=True)):
        of = (torch.zeros_like(call.weights) if gradient is None else gradient).detach().numpy()
        if step is None:
            continue
        if not step.together:
            old = state
        if isinstance(call, Sampled):
            a_bar = call.map(of, correction)
        else:
            weights = call.weights.detach().numpy()
            of, weights = (each.reshape(batch, -1, *each.shape[-2:]) for each in (of, weights))
            a_bar = attention_map(weights, of, correction)
        read = {source: state[step.reading][source] + a_bar @ old[step.read][source][:, step.part] for source in tokens}
        state = state | {step.reading: noised(read, step.reading) if noise == index else read}
    return {
        source: sum(
            state[stream][source][:, row] - np.eye(n)[row] * (stream == source) for stream, row in starts.items()
        )
        for source, n in tokens.items()
    }
