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
from heedmap.methods.ways import STAY, Ways, ways, ways_of
from heedmap.propagation import formed
from heedmap.records import Call, Heads, Readout, State, Wiring
from heedmap.routes import size_of
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
    ways: Ways


@dataclass(frozen=True)
class Seen:
    """The maps of one question, by call: those that the answer reads, through any number of others."""

    asked: Question
    weights: Mapping[int, Tensor]  # (batch, head, query, key); what a mask hides weighs 0
    gradients: Mapping[int, Tensor]  # of the target by these weights; none where they are not asked for
    rows: Rows
    readout: tuple[str, ...]
    ways: Ways


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
        yield wired, Seen(one.asked, weights, found, one.rows, one.readout, one.ways)


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
            starts = start_states(readout, asked.origin, wired, recording.marks, asked.alone)
            meeting = _Meeting(wired, starts, take, asked)
            recording.backward(asked.value, asked.sizes, meeting.step, keep=asked.more)
            meeting.check_arrived()
            with torch.no_grad(), torch.autocast(asked.value.device.type, enabled=False):
                taken = dict(sorted(meeting.taken.items()))
                yield wired, Met(asked, taken, meeting.rows, tuple(meeting.readout), meeting.ways)


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
        row, named = opening(state, declared, gradient, wiring, len(asked.value))
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


def heard(wiring: Wiring, weighs: Mapping[int, Tensor], rows: Rows, ways: Ways) -> Streams:
    """The tokens of every stream that a call reads, as far as the answer hears them, through any number of calls.

    `weighs`: whether there is any weight, (batch, query, key); a masked key has none.
    """
    found: Streams = {}

    def hear(stream: str, told: Tensor) -> None:
        found[stream] = told | found.get(stream, torch.zeros_like(told))

    for state, row in rows.items():
        hear(state.stream, row != 0)
    for index in sorted(weighs, reverse=True):
        call = wiring.calls[index]
        for route in ways.routes:
            if route.source == call.state and route.into.stream in found:
                hear(call.reading.stream, route.back(found[route.into.stream].to(torch.float32), None) > 0)
        if call.reading.stream in found:
            hear(call.read.stream, (found[call.reading.stream][:, :, None] & weighs[index]).any(1))
    return found


def rolled(
    wiring: Wiring, maps: Mapping[int, Tensor], rows: Rows, *, normalised: bool = False, ways: Ways = STAY
) -> tuple[Streams, Streams]:
    """What flows from the answer's rows through maps (batch, query, key), and what of the rows stays where it began.

    Last call first, R[read] += R[reading] @ map, each state by itself; `normalised`: every row of I + map is first
    divided by its sum. Calls that are left out are not read through.
    """
    flow: dict[State, Tensor] = {}
    start = dict(rows)
    for call in reversed(wiring.calls):
        ways.arrive(call.state, flow, start)
        came, stayed = flow.pop(call.state, None), start.pop(call.state, None)
        if came is None and stayed is None:
            continue
        map = maps.get(call.index)
        if map is None:
            for held, row in ((flow, came), (start, stayed)):
                if row is not None:
                    add(held, call.reading, row)
            continue
        share = 1 / (1 + map.sum(-1)) if normalised else map.new_ones(map.shape[:-1])
        came, stayed = (None if row is None else row * share for row in (came, stayed))
        for held, row in ((flow, came), (start, stayed)):
            if row is not None:
                add(held, call.reading, row)
                add(flow, call.read, pulled(row, map))
    for stream in wiring.entered:
        ways.arrive(State(stream), flow, start)
    return aligned(wiring, _summed(flow), _summed(start))


def pulled(row: Tensor, map: Tensor) -> Tensor:
    """row @ map, example by example: (batch, query) and (batch, query, key) to (batch, key)."""
    return torch.einsum("bq,bqk->bk", row, map)


def aligned(wiring: Wiring, flow: Streams, start: Streams | None = None) -> tuple[Streams, Streams]:
    """What flowed from each stream that entered, and what each began with: zeros where only one is."""
    start = start or {}
    reached = [stream for stream in wiring.entered if stream in flow or stream in start]
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
            starts = start_states(readout, asked.origin, wired, recording.marks, asked.alone)
            with torch.autocast(asked.value.device.type, enabled=False):
                back = ways_of(recording, wired, asked)
                rows, named = opened(recording, wired, asked, starts)
                with torch.no_grad():
                    upstream = sorted(asked.upstream(wired, starts))
                    calls = {index: recording.calls[index].heads(asked.sizes[index]) for index in upstream}
                    weights = {index: formed(heads).to(asked.value.device) for index, heads in calls.items()}
                    yield wired, Seen(asked, weights, {}, rows, named, back)


class _Meeting(Generic[Taken]):
    """One backward pass, call by call, last first; all that is taken lies on one device."""

    def __init__(
        self, wiring: Wiring, starts: Mapping[State, Readout | None], take: Take[Taken], asked: Question
    ) -> None:
        self._wiring = wiring
        self._starts = starts
        self._take = take
        self._asked = asked
        self._sizes: dict[State, Tensor] = {}
        self._upstream = asked.upstream(wiring, starts)
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
            row, named = opening(call.state, self._starts[call.state], gradient, self._wiring, len(self._asked.value))
            self.rows[call.state] = row.to(self._asked.value.device)
            self.readout.append(named)
        if any(route.source == call.state for route in self._asked.routes):
            self._sizes[call.state] = size_of(gradient)
        return False, None

    @property
    def ways(self) -> Ways:
        return ways(self._asked, self._sizes)

    def check_arrived(self) -> None:
        met = self._asked.upstream(self._wiring, self.rows)
        for index in sorted(met - self.taken.keys(), reverse=True):
            raise no_gradient(self._wiring.calls[index].state, self._wiring)

    def _here(self, taken: Any) -> Any:
        if isinstance(taken, tuple):
            return tuple(map(self._here, taken))
        return taken.to(self._asked.value.device) if isinstance(taken, Tensor) else taken
