"""The calls a user makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from heedmap.capture import record
from heedmap.errors import InputError
from heedmap.methods import method as method_named
from heedmap.records import Explanation, Readout, Wiring
from heedmap.storage import load
from heedmap.streams import Declaration, infer


def explain(
    model: nn.Module,
    inputs: Any,
    target: Any = None,
    *,
    correction: str | None = None,
    method: str = "heed",
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    noise: str | bool | None = None,
    verify: str | bool = "once",
) -> Explanation:
    """What speaks for a target and against it, token by token, in the model as it stands.

    `target=None` explains the prediction. `wiring` and `readout` declare what inference otherwise finds; `verify` is
    "once" per signature of shapes, "always" or False.
    """
    return explain_each(
        model,
        inputs,
        [target],
        correction=correction,
        method=method,
        wiring=wiring,
        readout=readout,
        noise=noise,
        verify=verify,
    )[0]


def explain_each(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    correction: str | None = None,
    method: str = "heed",
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    noise: str | bool | None = None,
    verify: str | bool = "once",
) -> list[Explanation]:
    """Many targets of one input, with one forward pass for all."""
    _check_module(model)
    if isinstance(targets, str) or not isinstance(targets, Sequence):
        raise InputError(f"targets is {targets!r}. heedmap expected a list; for one target call explain.")
    _, chosen, options = method_named(method)
    if not targets:
        return []
    told = options.get("correction")
    if correction is not None and told not in (None, correction):
        raise InputError(f"method={method!r} says {told}, correction={correction!r} says another: give one of them.")
    options["correction"] = correction or told or "complete"
    options["noise"] = options.get("noise") if noise is None else noise
    return chosen.run(model, inputs, targets, wiring=wiring, readout=readout, verify=verify, **options)


def wiring(model: nn.Module, inputs: Any, *, wiring: Declaration | None = None) -> Wiring:
    """Which stream reads which in every attention call of a model; print it for a table."""
    _check_module(model)
    with record(model, inputs) as recording:
        return infer(recording.calls, recording.names, recording.bases, recording.marks, wiring)


def open(path: str | Path) -> Explanation:
    """The explanation that `e.save("x.heed")` wrote."""
    return load(path)


def _check_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"The model is a {type(model).__name__}. heedmap expected a torch.nn.Module.")
