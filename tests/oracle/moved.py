"""Methods over tokens that are moved, restated with full matrices and with tokens that have names of their own.

A token keeps its number wherever it is put, so only reading changes anything, window by window. Which token stands
where is written down by hand, for each model. Where tokens become one, the new token's number gives what it has to
theirs, by the size of the target's gradient at what each of them took from its last call.

`walked` goes backward, from the answer's row; `gae` and `rolled` go forward, with a matrix of all tokens.
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


@dataclass(frozen=True)
class Run:
    """One run of one example: of each call the weights, their gradient, and the size of that of each row's output."""

    weights: list[Array]  # window x head x query x key
    gradients: list[Array]
    sizes: list[Array]  # window x query


def grid(rows: Array) -> Read:
    """Windows that read themselves."""
    return Read(rows, rows)


def ran(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], target: Callable[[object], torch.Tensor]) -> Run:
    model = copy.deepcopy(model).double().requires_grad_(True)
    with torch.enable_grad(), dense_calls() as calls:
        value = target(model(**inputs)).sum()
    weights = [call.weights for call in calls]
    gradients = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    outputs = torch.autograd.grad(value, [call.output for call in calls], allow_unused=True)
    return Run(
        [_numpy(w, w) for w in weights],
        [_numpy(g, w) for g, w in zip(gradients, weights, strict=True)],
        [np.sqrt((_numpy(g, c.output) ** 2).sum((1, 3))) for g, c in zip(outputs, calls, strict=True)],
    )


def walked(run: Run, steps: Sequence[Step], tokens: int, correction: str = "complete") -> tuple[Array, Array]:
    """What every token gave (flow), and what it started with."""
    maps = [(CORRECTIONS[correction](g) * w).mean(1) for g, w in zip(run.gradients, run.weights, strict=True)]
    reads = _reads(run, steps)
    flow, start = np.zeros(tokens), answer(run, steps, tokens)
    index = len(maps)
    for step in reversed(steps):
        if isinstance(step, Read):
            index -= 1
            read = np.einsum("gq,gqk->gk", (flow + start)[step.queries], maps[index])
            np.add.at(flow, step.keys, read)
        else:
            size = np.zeros(tokens)
            size[reads[step.at].queries] = run.sizes[step.at]
            for new, old in step.tokens.items():
                share = size[list(old)] / size[list(old)].sum()
                for row in (flow, start):
                    row[list(old)] += row[new] * share
                    row[new] = 0
    return flow, start


def answer(run: Run, steps: Sequence[Step], tokens: int) -> Array:
    """The rows of the last call that the answer reads, by the size of its gradient."""
    start = np.zeros(tokens)
    np.add.at(start, _reads(run, steps)[-1].queries, run.sizes[-1] / run.sizes[-1].sum())
    return start


def gae(run: Run, steps: Sequence[Step], tokens: int) -> tuple[Array, Array]:
    """Rules 5 to 11 of Chefer et al. (ICCV 2021): self-attention where queries and keys are the same tokens."""
    maps = [np.maximum(g * w, 0).mean(1) for g, w in zip(run.gradients, run.weights, strict=True)]

    def read(r: Array, step: Read, a: Array) -> Array:
        if np.array_equal(step.queries, step.keys):
            return r[step.queries] + a @ r[step.keys]  # 6, 7
        (s,), (q,), (a,) = step.queries, step.keys, a
        taken = a @ r[q]  # 11, of all others
        taken[:, q] = _normalised(r[np.ix_(s, s)]).T @ a @ _normalised(r[np.ix_(q, q)])  # 10
        return (r[s] + taken)[None]

    start = answer(run, steps, tokens)
    whole = _forward(run, steps, np.eye(tokens), maps, read)
    stays = _forward(run, steps, np.eye(tokens), maps, lambda r, step, a: r[step.queries])
    return start @ (whole - stays), start @ stays


def rollout(run: Run, steps: Sequence[Step], tokens: int, maps: Sequence[Array] | None = None) -> tuple[Array, Array]:
    """Rows of I + A divided by their sum, multiplied up; A is the mean over heads where no maps are given."""
    maps = [w.mean(1) for w in run.weights] if maps is None else maps

    def share(a: Array) -> Array:
        return 1 / (1 + a.sum(-1, keepdims=True))

    start = answer(run, steps, tokens)
    whole = _forward(run, steps, np.eye(tokens), maps, lambda j, s, a: (j[s.queries] + a @ j[s.keys]) * share(a))
    stays = _forward(run, steps, np.eye(tokens), maps, lambda j, s, a: j[s.queries] * share(a))
    return start @ (whole - stays), start @ stays


def gmar(run: Run, steps: Sequence[Step], tokens: int) -> tuple[Array, Array]:
    """Rollout in which a head weighs by the l1 norm of its gradient, over all windows of the call."""
    maps = []
    for weights, gradients in zip(run.weights, run.gradients, strict=True):
        norms = np.abs(gradients).sum((0, 2, 3), where=weights > 0)
        total = norms.sum()
        shares = norms / total if total else np.full(len(norms), 1 / len(norms))
        maps.append(np.einsum("h,ghqk->gqk", shares, weights))
    return rollout(run, steps, tokens, maps)


def raw(run: Run, steps: Sequence[Step], tokens: int) -> tuple[Array, Array]:
    """The answer's row of the last weights, averaged over heads."""
    return _of_the_last(run, steps, tokens, run.weights[-1].mean(1))


def gradcam_attention(run: Run, steps: Sequence[Step], tokens: int) -> tuple[Array, Array]:
    """Heads of the last call weigh by their mean gradient, over all windows; every query is heard in these models."""
    weights, gradients = run.weights[-1], run.gradients[-1]
    importance = gradients.mean((0, 2, 3), where=weights > 0)
    map = np.maximum((importance[None, :, None, None] * weights).mean(1), 0)
    return _of_the_last(run, steps, tokens, map)


def _of_the_last(run: Run, steps: Sequence[Step], tokens: int, map: Array) -> tuple[Array, Array]:
    last, found = _reads(run, steps)[-1], np.zeros(tokens)
    np.add.at(found, last.keys, np.einsum("gq,gqk->gk", answer(run, steps, tokens)[last.queries], map))
    merged = _forward(run, steps, np.eye(tokens), run.weights, lambda r, step, a: r[step.queries])
    return found @ merged, np.zeros(tokens)


def _forward(
    run: Run,
    steps: Sequence[Step],
    matrix: Array,
    maps: Sequence[Array],
    read: Callable[[Array, Read, Array], Array],
) -> Array:
    """A row for every token, of what it holds of every token: as `read` changes it, and as tokens become one."""
    reads = _reads(run, steps)
    index = 0
    for step in steps:
        matrix = matrix.copy()
        if isinstance(step, Read):
            matrix[step.queries] = read(matrix, step, maps[index])
            index += 1
        else:
            size = np.zeros(len(matrix))
            size[reads[step.at].queries] = run.sizes[step.at]
            for new, old in step.tokens.items():
                matrix[new] = size[list(old)] / size[list(old)].sum() @ matrix[list(old)]
    return matrix


def _reads(run: Run, steps: Sequence[Step]) -> list[Read]:
    reads = [step for step in steps if isinstance(step, Read)]
    assert len(reads) == len(run.weights), f"{len(run.weights)} calls were met, {len(reads)} are declared"
    return reads


def _normalised(r: Array) -> Array:
    """(R - I) / S + I, S the sum of each row of R - I (8, 9); a row that sums to 0 stays that of I."""
    eye = np.eye(len(r))
    total = (r - eye).sum(-1, keepdims=True)
    return np.divide(r - eye, total, out=np.zeros_like(r), where=total != 0) + eye


def _numpy(gradient: torch.Tensor | None, like: torch.Tensor) -> Array:
    tensor = torch.zeros_like(like) if gradient is None else gradient
    return tensor.detach().numpy().reshape(-1, *tensor.shape[-3:]) if tensor.ndim > 3 else tensor.detach().numpy()[None]
