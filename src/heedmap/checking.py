"""What is made sure of before a walk: examples, the rows it starts from, and that inference is right."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from heedmap.beside import check_residuals
from heedmap.capture import Recording, check_parameters, record
from heedmap.claims import check_claims, check_skips, closes
from heedmap.endings import ends
from heedmap.errors import (
    DisconnectedError,
    HeedmapError,
    InputError,
    ModelError,
    TargetError,
    WindowsError,
    WiringError,
)
from heedmap.moves import Following, follow
from heedmap.probe import check_calls, check_tail, own_examples, reads_one_row
from heedmap.records import Mark, Origin, Readout, State, Wiring
from heedmap.routes import Apart
from heedmap.streams import Declaration, frontier, infer

Result = TypeVar("Result")

# models whose tokens are moved between calls, and the calls whose queries are of other tokens than their values
_moving: weakref.WeakKeyDictionary[nn.Module, frozenset[int]] = weakref.WeakKeyDictionary()
_trusted: weakref.WeakKeyDictionary[nn.Module, set[Any]] = weakref.WeakKeyDictionary()
WHOLE = "whole"  # among what is trusted: several targets are asked of this model, and each is probed to the roots


def recorded(
    model: nn.Module,
    inputs: Any,
    declared: Declaration | None,
    verify: str | bool,
    edits: Mapping[int, Tensor] | None = None,
    stems: bool = False,
) -> contextlib.AbstractContextManager[tuple[Recording, Wiring]]:
    """Run and wire a model; where this signature of shapes has not been probed yet, with all that a probe needs.

    With `stems`, or where tokens are followed, the graph always begins where they are laid out, not at the first calls.
    """
    if verify not in ("once", "always", True, False):
        raise InputError(f"verify is {verify!r}. heedmap expected 'once', 'always' or False.")
    check_parameters(model)
    known = _trusted.setdefault(model, set()) if verify == "once" else set()
    whole = stems or isinstance(declared, Following)
    return _recorded(model, inputs, declared, known, verify is not False, edits, whole)


@contextlib.contextmanager
def _recorded(
    model: nn.Module,
    inputs: Any,
    declared: Declaration | None,
    known: set[Any],
    probe: bool,
    edits: Mapping[int, Tensor] | None,
    whole: bool,
) -> Iterator[tuple[Recording, Wiring]]:
    before = torch.get_rng_state()
    for stems in (whole or (probe and (not known or WHOLE in known)), True):
        torch.set_rng_state(before)  # a model that draws numbers draws the same ones again
        with record(model, inputs, stems, edits) as recording:
            wired = _wired(recording, declared)
            if stems or not probe or signature(model, recording, wired) in known:
                yield recording, wired
                return
            recording.forget()


def _wired(recording: Recording, declared: Declaration | None) -> Wiring:
    seen = recording.calls, recording.names, recording.bases, recording.marks
    if isinstance(declared, Following):
        return follow(*seen, declared, declared.apart)
    return infer(*seen, declared)


def followed(
    model: nn.Module, declared: Declaration | None, explained: Callable[[Declaration | None], Result]
) -> Result:
    """A result by the wiring as it stands; where tokens are moved between calls, by following them.

    What cannot be followed is refused as it would be without; a mistake in what was asked is told, or a method that is
    not for it.
    """
    refused, before = None, torch.get_rng_state()
    if model not in _moving:
        try:
            return explained(declared)
        except WiringError as error:
            refused = error
    apart = set(_moving.get(model, ()))
    while True:
        torch.set_rng_state(before)  # it is still the same run, of a model that draws numbers
        try:
            found = explained(Following(apart, declared))
        except Apart as found_out:
            apart.add(found_out.call)
        except HeedmapError as error:
            if isinstance(error, (TargetError, ModelError, InputError)) and not isinstance(error, WiringError):
                raise
            if refused is None:
                return explained(declared)
            raise refused from error
        else:
            _moving[model] = frozenset(apart)
            return found


def signature(model: nn.Module, recording: Recording, wiring: Wiring) -> tuple[Any, ...]:
    """What an explanation's correctness hangs on: shapes, operations, wiring, and the parameters as they stand."""
    return wiring.calls, tuple(wiring.tokens.items()), tuple(recording.sizes.items()), recording.digest, _weights(model)


def _weights(model: nn.Module) -> int:
    """A digest of parameters and buffers: their versions, and a few of their numbers, which some write unseen."""
    tensors = [part.detach() for tensor in (*model.parameters(), *model.buffers()) for part in _parts(tensor)]
    tensors = [tensor for tensor in tensors if tensor.numel() and not tensor.is_meta]
    some = [tensor.reshape(-1)[:: max(1, tensor.numel() // 8)].sum(dtype=torch.float64) for tensor in tensors]
    by_device: dict[torch.device, list[Tensor]] = {}
    for number in some:
        by_device.setdefault(number.device, []).append(number)
    numbers = [tuple(torch.stack(several).tolist()) for several in by_device.values()]
    return hash((tuple(tensor._version for tensor in tensors), tuple(numbers)))


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors that one with a class of its own, such as a quantised weight, is made of."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        return
    for name in flatten()[0]:
        yield from _parts(getattr(tensor, name))


def batches(recording: Recording, wiring: Wiring, batch: int) -> list[int]:
    """How many examples each call holds: the target's, or its stream's own where the target is a single number."""
    sizes = []
    sources = {state.stream for moved in wiring.moved.values() for state in moved.sources}
    for call, seen in zip(wiring.calls, recording.calls, strict=True):
        met = seen.batch
        if met is not None and call.reading.stream in sources | wiring.moved.keys() and met % batch == 0:
            sizes.append(met)  # windows, or several pictures of one example
            continue
        if met is None or met == batch:
            seen.fold_count(batch)
            sizes.append(batch)
            continue
        own = {recording.sizes[name][0] for name in call.reading.stream.split("+") if recording.sizes.get(name)}
        if batch != 1 or own != {met}:
            raise WindowsError(
                f"Call {call.index} ({call.module}) attends over a batch of {met}, the target gives {batch} numbers. "
                "heedmap expected one number per example of every stream: windows folded into the batch are not "
                "followed, and pairs (an image and several texts) are explained one number at a time."
            )
        sizes.append(met)
    if 1 not in sizes and batch == 1 and not wiring.moved:  # windows are no examples
        raise InputError(
            f"The target gives one number for {sizes[0]} examples. heedmap expected one number per example; "
            "leave the sum over examples out of the target."
        )
    return sizes


def start_states(
    readout: Readout | Sequence[Readout] | None,
    origin: Origin,
    wiring: Wiring,
    marks: Sequence[Mark],
    alone: Callable[[], bool] = lambda: False,
) -> dict[State, Readout | None]:
    """Where the walk starts: the states the target reads, or the ones declared; `alone` as in `ends`."""
    if readout is None:
        return {wiring.calls[index].state: None for index in ends(origin, wiring, marks, alone)}
    declared = [readout] if isinstance(readout, Readout) else readout
    if not isinstance(declared, (list, tuple)) or not declared or not all(isinstance(x, Readout) for x in declared):
        raise InputError(
            f"readout is {readout!r}. heedmap expected heedmap.Readout(stream, after=None, rows=0), or a list of them."
        )
    states: dict[State, Readout | None] = {}
    for item in declared:
        state = wiring.state(item.stream if item.after is None else f"{item.stream}@{item.after}")
        if state in states:
            raise InputError(f"readout names {state} twice. heedmap expected one Readout for a state; join their rows.")
        states[state] = item
    return states


def reader(
    value: Tensor, recording: Recording, wiring: Wiring, sizes: Sequence[int], origin: Origin
) -> Callable[[], bool]:
    """Whether a target reads one row alone: asked only where it matters, and looked up once."""

    @cache
    def alone() -> bool:
        last = frontier(origin.calls, wiring.calls)
        return reads_one_row(value, wiring, recording.calls, sizes, last, recording.pull)

    return alone


def connected(value: Tensor, origin: Origin | None) -> Origin:
    """What a target's value was computed from; refused where that is no attention, or where no gradient leads."""
    if origin is None or not origin.calls:
        raise DisconnectedError(
            "The target does not depend on any attention call. heedmap expected a number computed from the model's "
            "output; choose a logit, or a callable that takes the output and keeps its graph."
        )
    if not value.requires_grad:
        raise DisconnectedError(
            "The target's value carries no gradient: it was detached, or computed under no_grad. heedmap expected a "
            "differentiable number per example."
        )
    return origin


def trust(
    model: nn.Module, recording: Recording, wiring: Wiring, verify: str | bool
) -> tuple[set[Any], tuple[Any, ...]] | None:
    """What is trusted of a model so far, and the signature that it is looked up by; None where nothing is checked."""
    if verify is False:
        return None
    trusted = _trusted.setdefault(model, set()) if verify == "once" and not recording.unsteady else set()
    return trusted, signature(model, recording, wiring)


def check(
    known: tuple[set[Any], tuple[Any, ...]] | None,
    recording: Recording,
    wiring: Wiring,
    sizes: Sequence[int],
    target: Hashable | None,
    value: Tensor,
    logits: Tensor | None,
    origin: Origin,
    declared: bool,
    evaluate: Callable[[Recording], Tensor],
) -> None:
    """Probe the wiring and the target the first time a model meets a signature; what was found right is trusted.

    `evaluate` puts the target to another run. `target` is None for a callable, probed every time. Where rows are
    declared, what else a target reads is no matter.
    """
    if known is None:
        return
    trusted, sign = known
    last = frontier(origin.calls, wiring.calls)
    if (sign, tuple(last)) not in trusted:
        movers = sum(1 << bit for bit, mark in enumerate(recording.marks) if mark.kind != "join")
        check_calls(wiring, recording.calls, sizes, last, recording.pull, movers)
        check_residuals(wiring, recording, sizes, last)
        if check_claims(wiring, recording, sizes, last):
            trusted |= {sign, (sign, tuple(last))}
    if not declared and (target is None or (sign, tuple(last), target) not in trusted):
        if not recording.stemmed:
            trusted.add(WHOLE)
        with contextlib.nullcontext(recording) if recording.stemmed else recording.rooted() as whole:
            read = value if whole is recording else evaluate(whole)
            check_tail(read, wiring, whole.calls, sizes, last, whole.pull)
            check_skips(read, wiring, whole, sizes, last)
            if not closes([read], whole):
                trusted.add((sign, tuple(last), target))
    if len(value) == 1 or (logits is not None and (sign, tuple(last), "examples") in trusted):
        return
    read = {index: recording.calls[index] for index in last}
    if logits is not None and len(logits) == len(value) and own_examples(logits, read, sizes, recording.pull):
        trusted.add((sign, tuple(last), "examples"))
    elif not own_examples(value, read, sizes, recording.pull):
        raise InputError(
            f"The target's {len(value)} numbers read one another's examples: what flowed from one example cannot be "
            "told from what flowed from another. heedmap expected each number to read its own example; explain one "
            "number at a time, with batch 1."
        )


def noised(noise: str | bool | None, correction: str, wiring: Wiring) -> State | None:
    """The state at which the noise link is asked for; `True` is the one that cross-attention reads."""
    if not noise:
        return None
    if correction != "positive":
        raise InputError(
            f"The noise link divides by sums that may vanish under {correction!r}; use correction='positive'."
        )
    if isinstance(noise, str):
        return wiring.state(noise)
    read = {call.read for call in wiring.calls if call.kind == "B" and call.read.after is not None}
    if len(read) != 1:
        found = ", ".join(sorted(map(str, read))) or "none"
        raise InputError(
            f"The noise link stands at the one state that cross-attention reads; this model has {found}. "
            "Name the state: noise='stream@call'."
        )
    return read.pop()
