"""The baselines that read attention and little else, restated slowly: whole matrices, forward, float64 numpy.

Nothing is taken from the package. Which stream reads which is declared by hand, one `Step` per call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from dense import Array, Step, beginning

FUSED = {"mean": np.mean, "max": np.max, "min": np.min}


def fused(weights: Array, how: str = "mean") -> Array:
    """batch x query x key."""
    return FUSED[how](weights, axis=1)


def thinned(maps: Array, weights: Array, queries: Array, discard: float) -> Array:
    """The lowest share of each example's entries is 0, of those that have weight and whose query is among `queries`."""
    maps = maps.copy()
    for example, heads, asking in zip(maps, weights, queries, strict=True):
        entries = np.argwhere((heads > 0).any(0) & asking[:, None])
        entries = sorted(map(tuple, entries), key=lambda entry: example[entry])
        for entry in entries[: int(len(entries) * discard)]:
            example[entry] = 0.0
    return maps


def rollout(maps: Sequence[Array], steps: Sequence[Step], tokens: Mapping[str, int], normalised: bool = True):
    """J of every stream and source after all steps, and what of each row stays at its own token."""
    j = beginning(len(maps[0]), tokens)
    stays = {stream: np.ones((len(maps[0]), n)) for stream, n in tokens.items()}
    for a, step in zip(maps, steps, strict=True):
        if not step.together:
            old = j
        total = 1 + a.sum(-1) if normalised else np.ones(a.shape[:-1])
        updated = {s: (j[step.reading][s] + a @ old[step.read][s]) / total[..., None] for s in tokens}
        stays[step.reading] = stays[step.reading] / total
        j = j | {step.reading: updated}
    return j, stays


def read(j, stays, readings: Sequence[tuple[str, Array]]) -> tuple[dict[str, Array], dict[str, Array]]:
    """The answer's rows (stream, weights) of J: whole, and the part that stayed where it began."""
    rows: dict[str, Array] = {}
    starts: dict[str, Array] = {}
    for stream, weights in readings:
        for source, matrix in j[stream].items():
            rows[source] = rows.get(source, 0) + np.einsum("bi,bij->bj", weights, matrix)
        starts[stream] = weights * stays[stream]
    return rows, starts


def last_steps(steps: Sequence[Step], stream: str) -> dict[str, int]:
    """Of each stream that a stream reads, the number of the last step in which it does."""
    return {step.read: index for index, step in enumerate(steps) if step.reading == stream}


def heard(weights: Sequence[Array], steps: Sequence[Step], readings: Sequence[tuple[str, Array]]) -> dict[str, Array]:
    """Which tokens of each stream the answer hears, batch x token, through any number of calls."""
    found = {stream: row != 0 for stream, row in readings}
    for a, step in reversed(list(zip(weights, steps, strict=True))):
        if step.reading in found:
            told = np.einsum("bq,bhqk->bk", found[step.reading].astype(float), (a > 0).astype(float)) > 0
            found[step.read] = told | found.get(step.read, np.zeros_like(told))
    return found


def gradcam_attention(weights: Array, gradients: Array, row: Array, queries: Array, own: bool, over: str) -> Array:
    """One example: head x query x key, the answer's row, the queries that count; NaN at keys that get no number."""
    heard = (weights > 0).any(0) & queries[:, None]
    keys = (weights > 0).any((0, 1))
    left_out = np.zeros_like(keys)
    if own and over == "others" and (keys & (row == 0)).any():
        left_out = keys & (row != 0)
    counted = heard & ~left_out
    importance = np.array([gradient[counted].mean() for gradient in gradients])
    map = np.maximum(np.mean(importance[:, None, None] * weights, axis=0), 0)
    return np.where(left_out, np.nan, row @ map)


def gmar(weights: Array, gradients: Array, norm: str) -> Array:
    """The heads of a call as one map; batch x query x key."""
    power = {"l1": 1, "l2": 2}[norm]
    sizes = (np.abs(np.where(weights > 0, gradients, 0)) ** power).sum((2, 3)) ** (1 / power)
    total = sizes.sum(1, keepdims=True)
    shares = np.where(total > 0, sizes / np.where(total > 0, total, 1), 1 / sizes.shape[1])
    return np.einsum("bh,bhqk->bqk", shares, weights)


def greatest_flow(capacities: Array, source: int, sink: int) -> float:
    """Edmonds and Karp on a dense matrix of capacities."""
    left = capacities.copy()
    total = 0.0
    while True:
        came = {source: source}
        waiting = [source]
        while waiting and sink not in came:
            node = waiting.pop(0)
            for nxt in np.flatnonzero(left[node] > 1e-15):
                if nxt not in came:
                    came[int(nxt)] = node
                    waiting.append(int(nxt))
        if sink not in came:
            return total
        path = [sink]
        while path[-1] != source:
            path.append(came[path[-1]])
        edges = list(zip(path[1:], path[:-1], strict=True))
        room = min(left[edge] for edge in edges)
        for a, b in edges:
            left[a, b] -= room
            left[b, a] += room
        total += room


def attention_flow(layers: Sequence[Array], row: Array) -> Array:
    """One example; At of each layer, first to last, and the answer's row. Not yet divided by the sum."""
    n, depth = len(row), len(layers)
    capacities = np.zeros((1 + (depth + 1) * n,) * 2)
    capacities[0, 1 + depth * n :] = row
    for index, layer in enumerate(layers):
        upper, lower = 1 + (index + 1) * n, 1 + index * n
        capacities[upper : upper + n, lower : lower + n] = layer
    return np.array([greatest_flow(capacities, 0, 1 + token) for token in range(n)])
