"""How much memory a device has left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

MEMINFO, GROUPS, MOUNT = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# of a control group: what it may take, what it has taken, and what of that is files that would make way
NEW = ("memory.max", "memory.current", "inactive_file")
OLD = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device; None where it does not say.

    On an accelerator what its allocator holds in reserve is free too; in a container its own limit counts.
    """
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    if device.type != "cpu":
        return None
    with suppress(OSError, KeyError, ValueError):
        return max(0, min([1024 * _figure(MEMINFO, "MemAvailable:"), *_left_in_groups()]))
    return None


def _left_in_groups() -> Iterator[int]:
    """What each control group that this process is in may still take: its own, and those around it."""
    for line in GROUPS.read_text().splitlines() if GROUPS.exists() else ():
        _, kind, path = line.split(":", 2)
        if kind not in ("", "memory"):
            continue
        root, (limit, taken, files) = (MOUNT / kind, OLD if kind else NEW)
        place = root / path.lstrip("/")
        for group in (place, *place.parents):
            with suppress(OSError, KeyError, ValueError):  # no such file, or "max": no limit of its own
                most, now = int((group / limit).read_text()), int((group / taken).read_text())
                yield most - now + _figure(group / "memory.stat", files)
            if group == root:
                break


def _figure(path: Path, name: str) -> int:
    """One figure of a file with one on each line."""
    for line in path.read_text().splitlines():
        words = line.split()
        if words and words[0] == name:
            return int(words[1])
    raise KeyError(f"{path} has no line {name!r}.")
