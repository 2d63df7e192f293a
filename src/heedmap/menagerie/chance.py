"""Random draws that are the same on every platform: integers made from the raw words of PCG64.

numpy promises that the words of a bit generator stay the same; what its Generator makes of them may change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
WORDS = 64  # drawn at once


class Draws:
    """A stream of integers that its seed and salt decide, and nothing else."""

    def __init__(self, *entropy: int) -> None:
        self._words = np.random.PCG64(np.random.SeedSequence(entropy))
        self._left: list[int] = []

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both ends included."""
        if not self._left:
            self._left = self._words.random_raw(WORDS).tolist()
        return low + self._left.pop() % (high - low + 1)

    def choice(self, values: Sequence[T]) -> T:
        return values[self.integer(0, len(values) - 1)]

    def chance(self, percent: int) -> bool:
        return self.integer(1, 100) <= percent

    def shuffled(self, values: Sequence[T]) -> list[T]:
        mixed = list(values)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.integer(0, last)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed


def draws(seed: int, *salt: int | str) -> Draws:
    """Draws for one purpose: the same seed with another salt is another, unrelated stream."""
    if not isinstance(seed, int | np.integer):
        raise ValueError(f"seed {seed!r} is no whole number. Seeds are whole numbers from 0 upwards.")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative. Seeds are whole numbers from 0 upwards.")
    return Draws(seed, *(int.from_bytes(part.encode(), "big") if isinstance(part, str) else part for part in salt))
