"""The calls a user makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from heedmap.capture import record
from heedmap.checking import followed
from heedmap.errors import InputError, WiringError
from heedmap.methods import OURS
from heedmap.methods import method as method_named
from heedmap.moves import follow
from heedmap.propagation import formed
from heedmap.records import Explanation, Readout, Wiring
from heedmap.storage import load
from heedmap.streams import Declaration, infer

GIVEN = ("model", "inputs", "targets", "verify")  # to every method


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
    edits: Mapping[int, Tensor] | None = None,
    **options: Any,
) -> Explanation:
    """What speaks for a target and against it, token by token, in the model as it stands.

    `target=None` explains the prediction. `wiring` and `readout` declare what inference otherwise finds; `verify` is
    "once" per signature of shapes, "always" or False. `edits` puts weights (batch, head, query, key) in place of a
    call's own, by the number of the call, and explains the model so edited; `weights` gives its own. `options` are the
    method's, such as `batch_size` of one that runs the model many times.
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
        edits=edits,
        **options,
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
    edits: Mapping[int, Tensor] | None = None,
    **options: Any,
) -> list[Explanation]:
    """Many targets of one input, with one forward pass for all."""
    _check_module(model)
    if isinstance(targets, str) or not isinstance(targets, Sequence):
        raise InputError(f"targets is {targets!r}. heedmap expected a list; for one target call explain.")
    _, chosen, named = method_named(method)
    if not targets:
        return []
    told = named.get("correction")
    if correction is not None and told not in (None, correction):
        raise InputError(f"method={method!r} says {told}, correction={correction!r} says another: give one of them.")
    given = {"correction": correction, "readout": readout, "noise": noise, "edits": edits or None, "wiring": wiring}
    options |= {name: value for name, value in given.items() if value is not None}
    taken = signature(chosen.run).parameters
    foreign = [name for name in options if name not in taken]
    if foreign:
        raise InputError(_foreign(method, foreign[0], [name for name in taken if name not in GIVEN]))
    # a variant says noise=True, and options may say where
    if twice := [name for name in options if name in named and named[name] not in (options[name], bool(options[name]))]:
        raise InputError(f"method={method!r} says {twice[0]}={named[twice[0]]!r}. Leave {twice[0]} out.")
    if "verify" in taken:
        options["verify"] = verify

    def explained(declared: Declaration | None) -> list[Explanation]:
        told = {} if declared is None else {"wiring": declared}
        return chosen.run(model, inputs, targets, **{**named, **options, **told})

    if chosen.follows:
        return followed(model, wiring, explained)
    try:
        return explained(wiring)
    except WiringError as error:
        if wiring is not None:
            raise
        able = ", ".join(name for name, each in OURS.items() if each.follows)
        raise type(error)(
            f"{error} {method!r} does not follow tokens that are moved between calls; these methods do: {able}."
        ) from error


def _foreign(method: str, name: str, taken: list[str]) -> str:
    near = get_close_matches(name, taken, n=1)
    hint = f" Did you mean {near[0]}?" if near else f" It takes {', '.join(taken)}." if taken else ""
    return f"Method {method!r} takes no {name}. Leave it out, or ask another method.{hint}"


def weights(model: nn.Module, inputs: Any) -> tuple[Tensor, ...]:
    """The attention weights of every call, (batch, head, query, key), as the softmax of one forward pass gives them."""
    _check_module(model)
    with record(model, inputs) as recording:
        batch = max((size[0] for size in recording.sizes.values() if size), default=1)
        return tuple(formed(call.heads(call.batch or batch)) for call in recording.calls)


def wiring(model: nn.Module, inputs: Any, *, wiring: Declaration | None = None) -> Wiring:
    """Which stream reads which in every attention call of a model; print it for a table."""
    _check_module(model)
    with record(model, inputs) as recording:
        seen = recording.calls, recording.names, recording.bases, recording.marks
        try:
            return infer(*seen, wiring)
        except WiringError:
            return follow(*seen, wiring)  # tokens are moved, as it seems; explain finds out where each went, or refuses


def open(path: str | Path) -> Explanation:
    """The explanation that `e.save("x.heed")` wrote."""
    return load(path)


def _check_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"The model is a {type(model).__name__}. heedmap expected a torch.nn.Module.")
