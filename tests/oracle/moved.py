"""The walk over tokens that are moved, restated with full matrices and with tokens that have names of their own.

A token keeps its number wherever it is put, so only reading changes anything: r[keys] += r[queries] @ A_bar, window by
window. Which token stands where is written down by hand, for each model. Where tokens become one, the new token's
number gives its relevance to theirs, by the size of the target's gradient at what each of them took from its last call.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from dense import CORRECTIONS, dense_calls

Array = np.ndarray


@dataclass(frozen=True)
class Read:
    """A call: which tokens stand at its query rows and at its key rows, window by window."""

    queries: Array  # window x row
    keys: Array


@dataclass(frozen=True)
class Merge:
    """Tokens that became one before the next call; the size of each is met at call `at`, at `place` (window, row)."""

    tokens: Mapping[int, Sequence[int]]  # the new one: those that it was
    at: int


Step = Read | Merge


def grid(rows: Array) -> Read:
    """Windows that read themselves."""
    return Read(rows, rows)


def walked(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    target: Callable[[object], torch.Tensor],
    steps: Sequence[Step],
    tokens: int,
    correction: str = "complete",
) -> tuple[Array, Array]:
    """What every token gave (flow), and what it started with, for one example."""
    model = copy.deepcopy(model).double().requires_grad_(True)
    with torch.enable_grad(), dense_calls() as calls:
        value = target(model(**inputs)).sum()
    weights = [call.weights for call in calls]
    gradients = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    outputs = torch.autograd.grad(value, [call.output for call in calls], allow_unused=True)
    maps = [
        (CORRECTIONS[correction](_numpy(g, w)) * _numpy(w, w)).mean(1) for g, w in zip(gradients, weights, strict=True)
    ]
    sizes = [np.sqrt((_numpy(g, c.output) ** 2).sum((1, 3))) for g, c in zip(outputs, calls, strict=True)]
    reads = [step for step in steps if isinstance(step, Read)]
    assert len(reads) == len(calls), f"{len(calls)} calls were met, {len(reads)} are declared"
    flow, start = np.zeros(tokens), np.zeros(tokens)
    np.add.at(start, reads[-1].queries, sizes[-1] / sizes[-1].sum())
    index = len(calls)
    for step in reversed(steps):
        if isinstance(step, Read):
            index -= 1
            read = np.einsum("gq,gqk->gk", (flow + start)[step.queries], maps[index])
            np.add.at(flow, step.keys, read)
        else:
            size = np.zeros(tokens)
            size[reads[step.at].queries] = sizes[step.at]
            for new, old in step.tokens.items():
                share = size[list(old)] / size[list(old)].sum()
                for row in (flow, start):
                    row[list(old)] += row[new] * share
                    row[new] = 0
    return flow, start


def _numpy(gradient: torch.Tensor | None, like: torch.Tensor) -> Array:
    tensor = torch.zeros_like(like) if gradient is None else gradient
    return tensor.detach().numpy().reshape(-1, *tensor.shape[-3:]) if tensor.ndim > 3 else tensor.detach().numpy()[None]
