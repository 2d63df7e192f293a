"""A process for each class, forked from one that has everything imported; none of them can end the sweep."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.machine import from_proc

from .finding import Found
from .trying import Tried, attempt

GIGABYTES = 4  # that a process may take beyond what its parent has


@dataclass
class _Running:
    found: Found
    process: Any
    pipe: Connection
    began: float


def results(
    todo: Sequence[Found], workers: int, seconds: float, attempted: Callable[[Found], Tried] = attempt
) -> Iterator[Tried]:
    """What became of each class, in the order in which they end."""
    preload()
    waiting = list(reversed(todo))
    running: dict[Any, _Running] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            each = _start(waiting.pop(), attempted)
            running[each.pipe] = each
        ready = wait(list(running), timeout=0.5)
        late = [pipe for pipe, each in running.items() if time.monotonic() - each.began > seconds]
        for pipe in {*ready, *late}:
            yield _ended(running.pop(pipe), seconds, pipe in ready)


def _start(found: Found, attempted: Callable[[Found], Tried]) -> _Running:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_alone, args=(found, theirs, attempted), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads, if there are any, hold no lock of ours
        process.start()
    theirs.close()
    return _Running(found, process, ours, time.monotonic())


def _alone(found: Found, pipe: Connection, attempted: Callable[[Found], Tried]) -> None:
    with contextlib.suppress(OSError):  # no /proc: no limit
        most = 1024 * from_proc("/proc/self/status", "VmSize") + GIGABYTES * 10**9
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with (
        Path("/dev/null").open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        pipe.send(attempted(found))


def _ended(each: _Running, seconds: float, ready: bool) -> Tried:
    took = round(time.monotonic() - each.began, 2)
    result = None
    if ready:
        with contextlib.suppress(EOFError):
            result = each.pipe.recv()
    each.process.kill() if result is None else each.process.join(5)
    each.process.join()
    each.pipe.close()
    if result is not None:
        return result
    code = each.process.exitcode
    ended = signal.Signals(-code).name if code and code < 0 else f"exit {code}"
    why = f"ended by {ended}" if ready else f"not done in {seconds:.0f} seconds"
    return Tried(each.found.name, each.found.model_type, "not built", why, seconds=took)


def preload() -> None:
    """Import once what every class needs."""
    import torch
    import transformers
    from transformers.models.bert import modeling_bert  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401
    from transformers.models.vit import modeling_vit  # noqa: F401

    import heedmap.methods.heed  # noqa: F401

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
