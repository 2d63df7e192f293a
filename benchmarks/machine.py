"""The machine: what it is, what memory it has left, and a ceiling on what a contestant may take."""

from __future__ import annotations

import gc
import os
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

SHARE = 0.9  # of the available memory: the rest keeps the machine alive


def describe(device: str) -> dict[str, str | int | float]:
    """What a reader needs to place the figures."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = {
        "device": device,
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "memory_gb": round(total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    facts |= {name: _version(name) for name in ("torch", "transformers", "heedmap")}
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        facts |= {"gpu": gpu.name, "gpu_memory_gb": round(gpu.total_memory / 1e9, 1)}
    return facts


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def tidy(device: str) -> None:
    """Let go of what the last call left behind, so that the next does not pay for it."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def available(device: str) -> int:
    """Bytes that can still be taken."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    free = [1024 * from_proc("/proc/meminfo", "MemAvailable")]
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no such file, or "max": no limit of its own
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(free)


@contextmanager
def ceiling(device: str) -> Iterator[None]:
    """Inside, an allocation beyond the available memory fails instead of bringing the machine down.

    A GPU does this by itself, and its address space says nothing about memory.
    """
    if device == "cuda":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = 1024 * from_proc("/proc/self/status", "VmSize") + int(SHARE * available(device))
    finite = [bound for bound in (wanted, soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(finite), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def is_out_of_memory(error: BaseException) -> bool:
    """torch raises its own error on a GPU and a plain RuntimeError on a CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and ("allocate memory" in str(error) or "bad_alloc" in str(error))


def from_proc(path: str, key: str) -> int:
    """One figure of a /proc file, in its own unit (kB)."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(f"{path} has no line {key!r}.")


def _cpu_model() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":", 1)[1].strip() if names else platform.processor()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
