"""Means of many scenes, with how far they may be off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS = 2000
AT_ONCE = 4_000_000  # numbers resampled together: it bounds the memory


@dataclass(frozen=True)
class Mean:
    """A mean, and the middle 95 % of the means of resampled scenes (percentile bootstrap); NaN of a single scene."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f}" + (f" [{self.low:.3f}, {self.high:.3f}]" if self.count > 1 else "")


def mean(values: Sequence[float] | np.ndarray, seed: int = 0, rounds: int = ROUNDS) -> Mean:
    """The mean of one number per scene, with its 95 % interval; NaN stands for scenes that say nothing."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if len(numbers) < 2:  # one scene does not say how far another may be
        return Mean(float(numbers.sum()) if len(numbers) else float("nan"), float("nan"), float("nan"), len(numbers))
    rng = np.random.default_rng(seed)
    n = len(numbers)
    few = max(1, AT_ONCE // n)
    drawn = (rng.integers(0, n, (min(few, rounds - done), n)) for done in range(0, rounds, few))
    means = np.concatenate([numbers[picks].mean(1) for picks in drawn])
    low, high = np.quantile(means, (0.025, 0.975))
    return Mean(float(numbers.mean()), float(low), float(high), len(numbers))


def difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, seed: int = 0, rounds: int = ROUNDS
) -> Mean:
    """By how much `a` exceeds `b`, scene by scene."""
    return mean(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64), seed, rounds)


def outranks(a: np.ndarray, b: np.ndarray) -> float:
    """How often a number of the first exceeds one of the second, ties half (the area under the ROC); 0.5 is chance."""
    if not a.size or not b.size:
        return float("nan")
    _, place, counts = np.unique(np.concatenate([a.ravel(), b.ravel()]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # those that are equal share the middle of their ranks
    return float((ranks[: a.size].sum() - a.size * (a.size + 1) / 2) / (a.size * b.size))
