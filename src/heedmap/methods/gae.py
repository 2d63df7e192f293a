"""GAE, the baseline: Generic Attention-model Explainability (Chefer, Gur and Wolf, ICCV 2021), rules 5 to 11.

Relevance R is a matrix for each pair of streams, from the identity for a stream with itself. A call in which stream s
reads s, or another stream q, with the positive map A = mean over heads of max(gradient * weights, 0) (5), does

    self-attention      R_sx += A R_sx                                for every stream x         (6, 7)
    cross-attention     R_sq += N(R_ss)^T A N(R_qq)                                                 (10)
                        R_ss += A R_qs                                                              (11)
    with                N(R) = (R - I) / S + I,   S the sum of each row of R - I                    (8, 9)

each from the states that the call read, so LXMERT's two directions use the same old ones, and DETR has no rule 11
because its picture never reads the queries. What a third stream gave to q is passed on as in 11.

The rules need whole matrices, forward: maps are dense here, and so is R. Matrices below hold R - I, so that the 1 of
the identity does not drown what was added. Where S is 0 the row stays 0.

`official` is what the authors' code does there: 0 / 0 is NaN, the product spreads it over the whole addition of rule
10, and NaNs are set to 0, so one such row drops all that the call gave. Tokens that the answer cannot hear (padding,
what comes after it) do not count as rows: that code knows one example without padding. Its LXMERT has no such guard
and would give NaN. That it sets the CLS entry of LXMERT's text to 0 is display; here special tokens keep their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.checking import recorded, start_states
from heedmap.methods.asking import questions
from heedmap.propagation import formed
from heedmap.records import Call, Explanation, Heads, Readout, State, Wiring
from heedmap.streams import Declaration
from heedmap.walk import no_gradient, opening, refuse_detached

Sources = dict[str, Tensor]  # R - I of one state, by source: (batch, token, token of the source); absent is 0
Heard = Mapping[str, Tensor]  # of each stream the tokens that the answer hears, (batch, token)


def gae(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    official: bool = False,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them; rows are read out as heed reads them."""
    explanations = []
    with recorded(model, inputs, wiring, verify, edits) as (recording, wired):
        for asked in questions(model, inputs, targets, recording, wired, readout is not None, verify):
            starts = start_states(readout, asked.origin, wired, recording.marks)
            met = _Met(wired, starts, asked.value.device)
            recording.backward(asked.value, asked.sizes, met.step, keep=asked.more)
            met.check_arrived()
            with torch.no_grad(), torch.autocast(asked.value.device.type, enabled=False):
                heard = _heard(wired, met) if official else None
                flow, start = _read(_relevance(wired, met.maps, heard), met.rows, wired)
            name = "gae:official" if official else "gae:clean"
            explanations.append(asked.answered(name, "positive", flow, start, wired, met.readout))
    return explanations


class _Met:
    """What the backward pass brings, on one device: the map of each call, and the rows that the answer reads."""

    def __init__(self, wiring: Wiring, starts: Mapping[State, Readout | None], device: torch.device) -> None:
        self._wiring = wiring
        self._device = device
        self._starts = starts
        self._upstream = wiring.upstream(state.after for state in starts if state.after is not None)
        self.maps: dict[int, Tensor] = {}
        self.weighs: dict[int, Tensor] = {}  # whether a key has any weight: a masked one has none
        self.rows: dict[State, Tensor] = {}
        self.readout: list[str] = []

    def step(self, index: int, heads: Heads, gradient: Tensor, wanted: Any = None) -> tuple[bool, None]:
        """Take one call; its tensors are no longer needed then."""
        call = self._wiring.calls[index]
        if index in self._upstream:
            refuse_detached(call, self.maps)
            map, weighs = _map(heads, gradient)
            self.maps[index], self.weighs[index] = map.to(self._device), weighs.to(self._device)
        if call.state in self._starts:
            row, named = opening(call.state, self._starts[call.state], gradient)
            self.rows[call.state] = row.to(self._device)
            self.readout.append(named)
        return False, None

    def check_arrived(self) -> None:
        met = self._wiring.upstream(state.after for state in self.rows if state.after is not None)
        for index in sorted(met - self.maps.keys(), reverse=True):
            raise no_gradient(self._wiring.calls[index].state, self._wiring)


def _map(heads: Heads, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Rule 5, dense; and where there is any weight."""
    weights = formed(heads)
    change = gradient.to(weights.dtype) @ heads.values.detach().to(weights.dtype).mT
    return (change * weights).clamp(min=0).mean(1), (weights > 0).any(1)


def _relevance(wiring: Wiring, maps: Mapping[int, Tensor], heard: Heard | None) -> dict[State, Sources]:
    """What every state holds of every stream, call by call."""
    held: dict[State, Sources] = {}
    for index in sorted(maps):
        call = wiring.calls[index]
        reading, read = held.get(call.reading, {}), held.get(call.read, {})
        held[call.state] = _sum(reading, _taken(call, maps[index], reading, read, heard))
    return held


def _taken(call: Call, map: Tensor, reading: Sources, read: Sources, heard: Heard | None) -> Sources:
    """What a call adds to the stream that reads."""
    s, q = call.reading.stream, call.read.stream
    taken = {source: map @ matrix for source, matrix in read.items()}
    if s == q:
        return _sum(taken, {s: map})  # 6, 7: A R = A (R - I) + A
    own, others = reading.get(s), read.get(q)
    crossed = map if own is None else map + _shared(own).mT @ map
    crossed = crossed if others is None else crossed + crossed @ _shared(others)
    if heard is not None:
        crossed = crossed * (_whole(own, heard[s]) & _whole(others, heard[q]))[:, None, None]
    return {**taken, q: crossed}  # 10 for what q began as, 11 for what q had taken from others


def _shared(added: Tensor) -> Tensor:
    """N(R) - I: every row of R - I divided by its sum (8, 9)."""
    sums = added.sum(-1, keepdim=True)
    return (added / sums).where(sums != 0, sums.new_zeros(()))


def _whole(added: Tensor | None, heard: Tensor) -> Tensor:
    """Of which examples rule 9 divides no row by 0."""
    if added is None:
        return torch.zeros(len(heard), dtype=torch.bool, device=heard.device)
    return ((added.sum(-1) != 0) | ~heard).all(-1)


def _heard(wiring: Wiring, met: _Met) -> Heard:
    """The tokens of every stream that the answer hears, through any number of calls."""
    heard: dict[str, Tensor] = {}
    for state, row in met.rows.items():
        heard[state.stream] = heard.get(state.stream, torch.zeros_like(row, dtype=torch.bool)) | (row != 0)
    for index in sorted(met.weighs, reverse=True):
        call, weighs = wiring.calls[index], met.weighs[index]
        told = (heard[call.reading.stream][:, :, None] & weighs).any(1)
        heard[call.read.stream] = told | heard.get(call.read.stream, torch.zeros_like(told))
    return heard


def _read(
    held: Mapping[State, Sources], rows: Mapping[State, Tensor], wiring: Wiring
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The answer's rows of what was added, and where they stand."""
    flow: Sources = {}
    start: Sources = {}
    for state, row in rows.items():
        start = _sum(start, {state.stream: row})
        flow = _sum(flow, {source: (row[:, :, None] * matrix).sum(1) for source, matrix in held[state].items()})
    reached = [stream for stream in wiring.tokens if stream in flow or stream in start]
    return (
        {stream: flow[stream] if stream in flow else torch.zeros_like(start[stream]) for stream in reached},
        {stream: start[stream] if stream in start else torch.zeros_like(flow[stream]) for stream in reached},
    )


def _sum(a: Sources, b: Sources) -> Sources:
    return {**a, **{source: a[source] + each if source in a else each for source, each in b.items()}}
