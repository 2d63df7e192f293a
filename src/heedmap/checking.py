"""What is made sure of before a walk: examples, the rows it starts from, and that inference is right."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from heedmap.capture import Recording
from heedmap.errors import DisconnectedError, InputError
from heedmap.probe import check_between_calls, check_examples
from heedmap.records import Mark, Origin, Readout, State, Wiring
from heedmap.streams import ends

_trusted: weakref.WeakKeyDictionary[nn.Module, set[Any]] = weakref.WeakKeyDictionary()


def batches(recording: Recording, wiring: Wiring, batch: int) -> list[int]:
    """How many examples each call holds: the target's, or its stream's own where the target is a single number."""
    sizes = []
    for call, seen in zip(wiring.calls, recording.calls, strict=True):
        met = seen.batch
        if met is None or met == batch:
            seen.fold_count(batch)
            sizes.append(batch)
            continue
        own = {recording.sizes[name][0] for name in call.reading.stream.split("+") if recording.sizes.get(name)}
        if batch != 1 or own != {met}:
            raise InputError(
                f"Call {call.index} ({call.module}) attends over a batch of {met}, the target gives {batch} numbers. "
                "heedmap expected one number per example of every stream: windows folded into the batch are not "
                "followed, and pairs (an image and several texts) are explained one number at a time."
            )
        sizes.append(met)
    return sizes


def start_states(
    readout: Readout | Sequence[Readout] | None, origin: Origin | None, wiring: Wiring, marks: Sequence[Mark]
) -> dict[State, Readout | None]:
    """Where the walk starts: the states the target reads, or the ones declared."""
    if readout is None:
        return {wiring.calls[index].state: None for index in ends(origin, wiring, marks)}
    declared = [readout] if isinstance(readout, Readout) else list(readout)
    if origin is None or not origin.calls:
        raise DisconnectedError("The target does not depend on any attention call, so no gradient reaches the readout.")
    return {
        wiring.state(item.stream if item.after is None else f"{item.stream}@{item.after}"): item for item in declared
    }


def check(
    model: nn.Module,
    recording: Recording,
    wiring: Wiring,
    sizes: Sequence[int],
    value: Tensor,
    starts: Mapping[State, Readout | None],
    verify: str | bool,
) -> None:
    """Probe the wiring the first time a model meets a signature of shapes, and the target's examples every time."""
    if verify not in ("once", "always", True, False):
        raise InputError(f"verify is {verify!r}. heedmap expected 'once', 'always' or False.")
    if verify is False:
        return
    if not value.requires_grad:
        raise DisconnectedError(
            "The target's value carries no gradient: it was detached, or computed under no_grad. heedmap expected a "
            "differentiable number per example."
        )
    signature = (wiring.calls, tuple(wiring.tokens.items()), tuple(sizes))
    trusted = _trusted.setdefault(model, set())
    if verify != "once" or signature not in trusted:
        check_between_calls(wiring, recording.calls, sizes, recording.pull)
        trusted.add(signature)
    if len(value) > 1:
        read = {state.after: recording.calls[state.after] for state in starts if state.after is not None}
        check_examples(value, read, sizes, recording.pull)


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
