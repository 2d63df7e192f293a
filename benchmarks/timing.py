"""Time: all contestants in one process, in turns (A B C A B C ...), after a warm-up."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from .cases import Case
from .contestants import Contestant, Run, set_up
from .machine import ceiling, is_out_of_memory, synchronise, tidy

WARM_UPS = 2


def measure_time(
    case: Case, contestants: Sequence[Contestant], device: str, dtype: torch.dtype, rounds: int
) -> dict[str, list[float] | None]:
    """Seconds of every round by contestant; None where it does not fit."""
    models = {}
    runs = {c.name: set_up(c, case, device, dtype, models) for c in contestants}
    with ceiling(device):
        slow = {c.name for c in contestants if c.slow}
        seconds = {name: [] if name in slow or _warm_up(run, device) else None for name, run in runs.items()}
        for done in range(rounds):
            for name, run in runs.items():
                if seconds[name] is not None and not (done and name in slow):
                    seconds[name].append(_clock(run, device))
    return seconds


def _warm_up(run: Run, device: str) -> bool:
    """Whether it fits at all."""
    try:
        for _ in range(WARM_UPS):
            _clock(run, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _clock(run: Run, device: str) -> float:
    """The map itself is dropped after the clock has stopped."""
    tidy(device)
    start = time.perf_counter()
    result = run()
    synchronise(device)
    seconds = time.perf_counter() - start
    del result
    return seconds
