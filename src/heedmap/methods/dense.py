"""What a method needs that reads whole maps: weights and their gradients, dense, and the rows that the answer reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from heedmap.capture import Recording
from heedmap.checking import recorded, start_states
from heedmap.methods.asking import Question, questions
from heedmap.propagation import formed
from heedmap.records import Call, Heads, Readout, State, Wiring
from heedmap.streams import Declaration
from heedmap.walk import no_gradient, opening, refuse_detached

Taken = TypeVar("Taken")
Key = TypeVar("Key", State, str)
Take = Callable[[Heads, Tensor], Taken]  # what is kept of a call and the gradient of its output, as (batch, head, ...)
Rows = Mapping[State, Tensor]  # where the answer is read, (batch, token)
Streams = dict[str, Tensor]  # (batch, token) each


@dataclass(frozen=True)
class Met(Generic[Taken]):
    """What one backward pass brings: something of every call that the answer reads, and the rows of the answer."""

    asked: Question
    taken: Mapping[int, Taken]
    rows: Rows
    readout: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """The maps of one question, by call: those that the answer reads, through any number of others."""

    asked: Question
    weights: Mapping[int, Tensor]  # (batch, head, query, key); what a mask hides weighs 0
    gradients: Mapping[int, Tensor]  # of the target by these weights; none where they are not asked for
    rows: Rows
    readout: tuple[str, ...]


def seen(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    gradients: bool = True,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> Iterator[tuple[Wiring, Seen]]:
    """Each target's maps, from one forward pass for all of them; what is done with them needs no graph, and has none.

    The rows are read out as heed reads them. Without `gradients` there is no backward pass through attention.
    """

    def take(heads: Heads, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return formed(heads), changed(heads, gradient)

    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    if not gradients:
        yield from _looked_at(model, inputs, targets, **given)
        return
    for wired, one in met(model, inputs, targets, take, **given):
        weights, found = ({index: pair[k] for index, pair in one.taken.items()} for k in (0, 1))
        yield wired, Seen(one.asked, weights, found, one.rows, one.readout)


def met(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    take: Take[Taken],
    *,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> Iterator[tuple[Wiring, Met[Taken]]]:
    """As `seen`; but of each call only what `take` makes of it is kept."""
    with recorded(model, inputs, wiring, verify, edits) as (recording, wired):
        for asked in questions(model, inputs, targets, recording, wired, readout is not None, verify):
            starts = start_states(readout, asked.origin, wired, recording.marks)
            meeting = _Meeting(wired, starts, take, asked.value.device)
            recording.backward(asked.value, asked.sizes, meeting.step, keep=asked.more)
            meeting.check_arrived()
            with torch.no_grad(), torch.autocast(asked.value.device.type, enabled=False):
                yield wired, Met(asked, dict(sorted(meeting.taken.items())), meeting.rows, tuple(meeting.readout))


def changed(heads: Heads, gradient: Tensor) -> Tensor:
    """The gradient of the weights, (batch, head, query, key), from that of the call's output."""
    dtype = torch.promote_types(heads.values.dtype, torch.float32)
    return gradient.to(dtype) @ heads.values.detach().to(dtype).mT


def opened(
    recording: Recording, wiring: Wiring, asked: Question, starts: Mapping[State, Readout | None]
) -> tuple[Rows, tuple[str, ...]]:
    """The answer's rows and what they are called, from the gradient behind the last calls only."""
    at = [state.after for state in starts if state.after is not None]
    reached = recording.pull([asked.value], [torch.ones_like(asked.value)], at)
    rows: dict[State, Tensor] = {}
    readout = []
    for state in sorted(starts, key=lambda state: -1 if state.after is None else state.after, reverse=True):
        assert state.after is not None
        call, batch, declared = recording.calls[state.after], asked.sizes[state.after], starts[state]
        if state.after not in reached and declared is None:
            raise no_gradient(state, wiring)
        if state.after in reached:
            gradient = call.gradient(reached[state.after], batch)
        else:
            gradient = call.values.new_zeros(call.heads(batch).shape[0], 1, call.counts[0], 1)
        row, named = opening(state, declared, gradient)
        rows[state] = row.to(asked.value.device)
        readout.append(named)
    return rows, tuple(readout)


def last_calls(wiring: Wiring, state: State) -> dict[str, Call]:
    """Of each stream that the stream of a state has read, the last call in which it did."""
    found: dict[str, Call] = {}
    while state.after is not None:
        call = wiring.calls[state.after]
        found.setdefault(call.read.stream, call)
        state = call.reading
    return found


def heard(wiring: Wiring, weighs: Mapping[int, Tensor], rows: Rows) -> Streams:
    """The tokens of every stream that the answer hears, through any number of calls.

    `weighs`: whether there is any weight, (batch, query, key); a masked key has none.
    """
    found: Streams = {}
    for state, row in rows.items():
        found[state.stream] = found.get(state.stream, torch.zeros_like(row, dtype=torch.bool)) | (row != 0)
    for index in sorted(weighs, reverse=True):
        call, weighing = wiring.calls[index], weighs[index]
        told = (found[call.reading.stream][:, :, None] & weighing).any(1)
        found[call.read.stream] = told | found.get(call.read.stream, torch.zeros_like(told))
    return found


def rolled(
    wiring: Wiring, maps: Mapping[int, Tensor], rows: Rows, *, normalised: bool = False
) -> tuple[Streams, Streams]:
    """What flows from the answer's rows through maps (batch, query, key), and what of the rows stays where it began.

    Last call first, R[read] += R[reading] @ map, each state by itself; `normalised`: every row of I + map is first
    divided by its sum. Where the first calls are left out, the walk ends before them.
    """
    flow: dict[State, Tensor] = {}
    start = dict(rows)
    for index in sorted(maps, reverse=True):
        call, map = wiring.calls[index], maps[index]
        came, stayed = flow.pop(call.state, None), start.pop(call.state, None)
        if came is None and stayed is None:
            continue
        share = 1 / (1 + map.sum(-1)) if normalised else map.new_ones(map.shape[:-1])
        came, stayed = (None if row is None else row * share for row in (came, stayed))
        for held, row in ((flow, came), (start, stayed)):
            if row is not None:
                add(held, call.reading, row)
                add(flow, call.read, pulled(row, map))
    return aligned(wiring, _summed(flow), _summed(start))


def pulled(row: Tensor, map: Tensor) -> Tensor:
    """row @ map, example by example: (batch, query) and (batch, query, key) to (batch, key)."""
    return torch.einsum("bq,bqk->bk", row, map)


def aligned(wiring: Wiring, flow: Streams, start: Streams | None = None) -> tuple[Streams, Streams]:
    """What flowed from each stream, and what each began with: both of the same streams, zeros where only one is."""
    start = start or {}
    reached = [stream for stream in wiring.tokens if stream in flow or stream in start]
    return (
        {stream: flow[stream] if stream in flow else torch.zeros_like(start[stream]) for stream in reached},
        {stream: start[stream] if stream in start else torch.zeros_like(flow[stream]) for stream in reached},
    )


def add(held: dict[Key, Tensor], key: Key, row: Tensor) -> None:
    held[key] = held[key] + row if key in held else row


def _summed(rows: Rows) -> Streams:
    found: Streams = {}
    for state, row in rows.items():
        add(found, state.stream, row)
    return found


def _looked_at(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    wiring: Declaration | None,
    readout: Readout | Sequence[Readout] | None,
    verify: str | bool,
    edits: Mapping[int, Tensor] | None,
) -> Iterator[tuple[Wiring, Seen]]:
    with recorded(model, inputs, wiring, verify, edits) as (recording, wired):
        for asked in questions(model, inputs, targets, recording, wired, readout is not None, verify):
            starts = start_states(readout, asked.origin, wired, recording.marks)
            with torch.autocast(asked.value.device.type, enabled=False):
                rows, named = opened(recording, wired, asked, starts)
                with torch.no_grad():
                    upstream = wired.upstream(state.after for state in starts if state.after is not None)
                    calls = {index: recording.calls[index].heads(asked.sizes[index]) for index in sorted(upstream)}
                    weights = {index: formed(heads).to(asked.value.device) for index, heads in calls.items()}
                    yield wired, Seen(asked, weights, {}, rows, named)


class _Meeting(Generic[Taken]):
    """One backward pass, call by call, last first; all that is taken lies on one device."""

    def __init__(
        self, wiring: Wiring, starts: Mapping[State, Readout | None], take: Take[Taken], device: torch.device
    ) -> None:
        self._wiring = wiring
        self._starts = starts
        self._take = take
        self._device = device
        self._upstream = wiring.upstream(state.after for state in starts if state.after is not None)
        self.taken: dict[int, Taken] = {}
        self.rows: dict[State, Tensor] = {}
        self.readout: list[str] = []

    def step(self, index: int, heads: Heads, gradient: Tensor, wanted: Any = None) -> tuple[bool, None]:
        """Take one call; its tensors are no longer needed then."""
        call = self._wiring.calls[index]
        if index in self._upstream:
            refuse_detached(call, self.taken)
            self.taken[index] = self._here(self._take(heads, gradient))
        if call.state in self._starts:
            row, named = opening(call.state, self._starts[call.state], gradient)
            self.rows[call.state] = row.to(self._device)
            self.readout.append(named)
        return False, None

    def check_arrived(self) -> None:
        met = self._wiring.upstream(state.after for state in self.rows if state.after is not None)
        for index in sorted(met - self.taken.keys(), reverse=True):
            raise no_gradient(self._wiring.calls[index].state, self._wiring)

    def _here(self, taken: Any) -> Any:
        if isinstance(taken, tuple):
            return tuple(map(self._here, taken))
        return taken.to(self._device) if isinstance(taken, Tensor) else taken
