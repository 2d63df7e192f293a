"""Memory: each measurement in its own process, `python -m benchmarks.memory CASE CONTESTANT DEVICE DTYPE`.

The process loads, notes what is resident, runs once to warm up, resets the peak, runs again, and prints the
peak of that second run minus what was resident after loading.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

from .cases import ALL, Case
from .contestants import CONTESTANTS, Contestant, Run, set_up
from .machine import available, ceiling, from_proc, is_out_of_memory, synchronise, tidy

ROOT = Path(__file__).parents[1]
# The same for everyone: hand freed memory back at once, so that the peak is what was in use and not the
# allocator's reserve. Values of glibc; other allocators ignore them.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def measure_memory(case: Case, contestant: Contestant, device: str, dtype: torch.dtype) -> int | None:
    """Peak bytes over what was resident after loading; None where it does not fit."""
    if contestant.dense and least_dense_bytes(case, contestant, dtype) > available(device):
        return None
    command = [sys.executable, "-m", "benchmarks.memory", case.name, contestant.name, device, _name(dtype)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, **MALLOC, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGKILL:  # the kernel ended it for want of memory
        return None
    if done.returncode != 0:
        raise RuntimeError(f"Measuring {contestant.name!r} on {case.name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["bytes"]


def least_dense_bytes(case: Case, contestant: Contestant, dtype: torch.dtype) -> int:
    """What the dense way needs at the very least: all weights and all their gradients."""
    examples = 1 if contestant.batches_only else case.batch
    return 2 * examples * case.layers * case.heads * case.tokens**2 * dtype.itemsize


def run_alone(case: Case, contestant: Contestant, device: str, dtype: torch.dtype) -> int | None:
    """The measurement itself, in this process."""
    run = set_up(contestant, case, device, dtype)
    tidy(device)
    trim()
    loaded = resident(device)
    try:
        with ceiling(device):
            if not contestant.slow:
                _once(run, device)  # as a user meets it from the second time on
            reset_peak(device)
            _once(run, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return peak(device) - loaded


def _once(run: Run, device: str) -> None:
    run()
    synchronise(device)


def resident(device: str) -> int:
    if device == "cuda":
        return torch.cuda.memory_allocated()
    return 1024 * from_proc("/proc/self/status", "VmRSS")


def reset_peak(device: str) -> None:
    tidy(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    trim()
    with suppress(OSError):  # where it is not allowed, the peak includes the warm-up, for all alike
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        return 1024 * from_proc("/proc/self/status", "VmHWM")
    except (OSError, KeyError):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def trim() -> None:
    """Ask the C library to hand free memory back, where it can."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    case_name, contestant_name, device_name, dtype_name = sys.argv[1:]
    result = run_alone(ALL[case_name], CONTESTANTS[contestant_name], device_name, getattr(torch, dtype_name))
    print(json.dumps({"bytes": result}))
