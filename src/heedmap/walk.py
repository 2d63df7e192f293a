"""The walk of a row of relevance from the answer to the inputs, last call first.

Relevance belongs to a state, a stream as it stands after a call. A call hands the relevance of its result on,
unchanged, to the state its queries came from, and adds `@ map` to the state its values came from. What the walk starts
with is carried apart from what flowed, so that neither drowns the other.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import torch
from torch import Tensor

from heedmap.errors import DisconnectedError, GradientError, InputError, UnsupportedError, WiringError
from heedmap.propagation import Correct, Gradients, pull, pull_and_differentiate, push
from heedmap.records import Call, Heads, Readout, State, Wiring
from heedmap.routes import Route, size_of

Wanted = tuple[bool, bool, bool]


class Walk:
    """Give it every call with its gradient, last first; then `finish`."""

    def __init__(
        self,
        wiring: Wiring,
        correct: Correct,
        ends: Mapping[State, Readout | None],
        noise: State | None = None,
        routes: Sequence[Route] = (),
        examples: int | None = None,
    ) -> None:
        self._wiring = wiring
        self._correct = correct
        self._ends = ends  # where the walk starts; None: at the rows that the target's gradient names
        self._flow: dict[State, Tensor] = {}
        self._start: dict[State, Tensor] = {}
        self._passed: set[int] = set()
        self._noise = noise
        self._behind = _behind(noise, wiring) if noise else set()
        self._held: list[tuple[Call, Heads, Tensor]] = []
        self._routes = list(routes)  # that nothing has come by yet
        self._examples = examples
        self.readout: list[str] = []

    def step(
        self, index: int, heads: Heads, gradient: Tensor, wanted: Wanted | None = None
    ) -> tuple[bool, Gradients | None]:
        """Take one call. True if its tensors are still needed; and its own gradients, where they came on the way."""
        call = self._wiring.calls[index]
        if call.state in self._ends:
            self._begin(call.state, gradient)
        self._arrive(call.state, gradient)
        if index in self._behind:
            self._held.append((call, heads, gradient))
            return True, None
        return False, self._cross(call, heads, gradient, wanted)

    def finish(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What flowed from each stream that was reached, and what each began with."""
        if self._noise is not None:
            self._add_noise(self._noise)
        self._release()
        for state in [route.source for route in self._routes if route.source.after is None]:
            self._arrive(state, None)
        for stream in self._wiring.moved:
            for rows in (self._flow, self._start):
                left = rows.pop(State(stream), None)
                stuck = next((route.source for route in self._routes if route.into == State(stream)), None)
                if stuck is not None and left is not None and bool(left.any()):
                    raise no_gradient(stuck, self._wiring)
        self._check_arrived()
        flow, start = ({state.stream: row for state, row in rows.items()} for rows in (self._flow, self._start))
        reached = [stream for stream in self._wiring.tokens if stream in flow or stream in start]
        return (
            {stream: flow[stream] if stream in flow else torch.zeros_like(start[stream]) for stream in reached},
            {stream: start[stream] if stream in start else torch.zeros_like(flow[stream]) for stream in reached},
        )

    def _release(self) -> None:
        """Walk through the calls that were held back."""
        held, self._held = self._held, []
        for call, heads, gradient in held:
            self._cross(call, heads, gradient)

    def _check_arrived(self) -> None:
        stuck = next((state for state in (*self._flow, *self._start) if state.after is not None), None)
        if stuck is not None:
            raise no_gradient(stuck, self._wiring)

    def _begin(self, state: State, gradient: Tensor) -> None:
        row, named = opening(state, self._ends[state], gradient, self._wiring, self._examples)
        self.readout.append(named)
        _add(self._start, state, row)

    def _arrive(self, state: State, gradient: Tensor | None) -> None:
        """Take in what reached tokens that were this state's before they were moved."""
        for route in [each for each in self._routes if each.source == state]:
            self._routes.remove(route)
            size = None if gradient is None else size_of(gradient)
            for rows in (self._flow, self._start):
                route.carry(rows, size)

    def _cross(self, call: Call, heads: Heads, gradient: Tensor, wanted: Wanted | None = None) -> Gradients | None:
        self._passed.add(call.index)
        flow, start = self._flow.pop(call.state, None), self._start.pop(call.state, None)
        total = _sum(flow, start)
        if total is None:
            return None
        refuse_detached(call, self._passed)
        if flow is not None:
            _add(self._flow, call.reading, flow)
        if start is not None:
            _add(self._start, call.reading, start)
        total = total.to(gradient.device)
        if wanted is None or not any(wanted):
            flowed, found = pull(heads, gradient, total, self._correct), None
        else:
            flowed, found = pull_and_differentiate(heads, gradient, total, self._correct, wanted)
        _add(self._flow, call.read, flowed)
        return found

    def _add_noise(self, state: State) -> None:
        """The noise link, E <- (E - I) / S + I with S the row sums of E - I (heterogenous-attention, 8 to 10).

        No matrix is needed: r E_noised = walk(r / S) - r / S + r, and S is one forward walk of a column of ones.
        What is walked here as a start is r / S, so what flows from it is all but the last term, r itself.
        """
        flow, start = self._flow.pop(state, None), self._start.pop(state, None)
        if flow is None and start is None:
            raise InputError(f"The noise link is asked for at {state}, where no relevance arrives.")
        total = _sum(flow, start)
        assert total is not None
        sums = self._row_sums(state)
        self._start[state] = (total.to(sums.device) / sums).where(sums != 0, sums.new_zeros(()))
        self._release()
        root = _root(state, self._wiring)
        self._start.pop(root)
        if flow is not None:
            _add(self._flow, root, flow)
        if start is not None:
            _add(self._start, root, start)

    def _row_sums(self, state: State) -> Tensor:
        columns: dict[State, Tensor] = {}
        for call, heads, gradient in reversed(self._held):
            batch, _, queries, keys = heads.shape
            dtype = torch.promote_types(gradient.dtype, torch.float32)
            zeros = gradient.new_zeros(batch, queries, dtype=dtype)
            ones = gradient.new_ones(batch, keys, dtype=dtype)
            read, reading = (columns.get(at, zeros).to(zeros.device) for at in (call.read, call.reading))
            columns[call.state] = reading + push(heads, gradient, ones + read, self._correct)
        return columns[state]


def _sum(flow: Tensor | None, start: Tensor | None) -> Tensor | None:
    """What flowed to a state and what the walk began with there; calls may lie on several devices."""
    return flow if start is None else start if flow is None else flow + start.to(flow.device)


def _add(relevance: dict[State, Tensor], state: State, row: Tensor) -> None:
    held = relevance.get(state)
    relevance[state] = row if held is None else held + row.to(held.device)


def opening(
    state: State, readout: Readout | None, gradient: Tensor, wiring: Wiring, examples: int | None = None
) -> tuple[Tensor, str]:
    """The row that a state starts with, and what it is called; the windows of an example share its start."""
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    if readout is None:
        weight = size_of(gradient)
        windows = examples if state.stream in wiring.moved else None
        total = weight.view(windows or len(weight), -1).sum(-1)
        total = total.repeat_interleave(len(weight) // len(total))[:, None]
        if not bool(total.any()):
            raise DisconnectedError(
                f"The target's gradient is zero at every row of {state}: nothing there moves it. heedmap expected "
                "a target that hangs on the model's input; choose another logit."
            )
        row = weight / total.where(total > 0, total.new_ones(()))
        rows = (row != 0).any(0).nonzero()[:, 0].tolist()
    else:
        batch, _, tokens, _ = gradient.shape
        rows = _declared_rows(readout, tokens)
        row = gradient.new_zeros(batch, tokens, dtype=dtype)
        row[:, rows] = 1.0 if readout.rows == "all" else 1.0 / len(rows)
    named = f"rows {rows[0]} to {rows[-1]}" if len(rows) > 3 else f"row {', '.join(map(str, rows))}"
    return row, f"{state}, {named}"


def refuse_detached(call: Call, passed: Container[int]) -> None:
    """Refuse a call whose gradient arrives after that of a state it is made from."""
    for state in (call.reading, call.read):
        if state.after is not None and state.after in passed:
            raise WiringError(
                f"Call {call.index} ({call.module}) reads {state}, but its gradient arrived after that state's: "
                "what it reads is cut off by detach. heedmap expected the read tokens to carry gradient."
            )


def no_gradient(stuck: State, wiring: Wiring) -> GradientError:
    """The error of relevance at the result of a call that no gradient has reached."""
    assert stuck.after is not None
    call = wiring.calls[stuck.after]
    return GradientError(
        f"Relevance arrives at {stuck}, the result of call {call.index} ({call.module}), but the target has no "
        "gradient there: the call runs under no_grad, or its result passes through detach. heedmap expected a "
        "gradient at every call the target reads; remove the no_grad, or end the walk before that call with "
        f'wiring={{{_reader(wiring, stuck)}: {{"reading": "a new name", "read": "a new name"}}}}.'
    )


def _declared_rows(readout: Readout, tokens: int) -> list[int]:
    if readout.rows == "all":
        return list(range(tokens))
    rows = [readout.rows] if isinstance(readout.rows, int) else readout.rows
    if not isinstance(rows, (list, tuple)) or not rows or not all(isinstance(row, int) for row in rows):
        raise InputError(f"readout rows are {readout.rows!r}. heedmap expected an index, a list of them, or 'all'.")
    for row in rows:
        if not -tokens <= row < tokens:
            raise InputError(f"readout names row {row} of {readout.stream!r}, which has {tokens} tokens.")
    if len({row % tokens for row in rows}) < len(rows):
        raise InputError(f"readout rows {readout.rows!r} name a row twice. heedmap expected each row once.")
    return [row % tokens for row in rows]


def _root(state: State, wiring: Wiring) -> State:
    while state.after is not None:
        state = wiring.calls[state.after].reading
    return state


def _reader(wiring: Wiring, state: State) -> int:
    return next((call.index for call in wiring.calls if state in (call.reading, call.read)), len(wiring.calls) - 1)


def _behind(state: State, wiring: Wiring) -> set[int]:
    """The calls a state is made of, if all of them read one stream: elsewhere the noise link is not defined."""
    found: set[int] = set()
    while state.after is not None:
        call = wiring.calls[state.after]
        if call.read != call.reading:
            raise UnsupportedError(
                f"The noise link at {state} lies behind call {call.index} ({call.module}), which reads {call.read}. "
                "It is defined where one stream reads itself: name the state before that call."
            )
        found.add(call.index)
        state = call.reading
    return found
