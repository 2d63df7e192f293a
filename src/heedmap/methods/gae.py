"""GAE, the baseline: Generic Attention-model Explainability (Chefer, Gur and Wolf, ICCV 2021), rules 5 to 11.

Relevance R is a matrix for each pair of streams, from the identity for a stream with itself. A call in which stream s
reads s, or another stream q, with the positive map A = mean over heads of max(gradient * weights, 0) (5), does

    self-attention      R_sx += A R_sx                                for every stream x         (6, 7)
    cross-attention     R_sq += N(R_ss)^T A N(R_qq)                                                 (10)
                        R_ss += A R_qs                                                              (11)
    with                N(R) = (R - I) / S + I,   S the sum of each row of R - I                    (8, 9)

each from the states that the call read, so LXMERT's two directions use the same old ones, and DETR has no rule 11
because its picture never reads the queries. What a third stream gave to q is passed on as in 11.

Tokens that are moved between calls begin a matrix of their own, whose row is then read on where they were: the same as
one matrix throughout, where they read one another alone. Where another stream reads them rule 10 is not defined.

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

from heedmap.errors import UnsupportedError
from heedmap.methods import dense
from heedmap.methods.ways import Ways
from heedmap.propagation import formed
from heedmap.records import Call, Explanation, Heads, Readout, State, Wiring
from heedmap.streams import Declaration

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
    given = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    for wired, met in dense.met(model, inputs, targets, _map, **given):
        maps, weighs = ({index: pair[k] for index, pair in met.taken.items()} for k in (0, 1))
        heard = dense.heard(wired, weighs, met.rows, met.ways) if official else None
        flow, start = _read(_relevance(wired, maps, heard), met.rows, wired, met.ways)
        name = "gae:official" if official else "gae:clean"
        explanations.append(met.asked.answered(name, "positive", flow, start, wired, met.readout))
    return explanations


def _map(heads: Heads, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Rule 5, dense; and whether a key has any weight: a masked one has none."""
    weights = formed(heads)
    return (dense.changed(heads, gradient) * weights).clamp(min=0).mean(1), (weights > 0).any(1)


def _relevance(wiring: Wiring, maps: Mapping[int, Tensor], heard: Heard | None) -> dict[State, Sources]:
    """What every state holds of every stream, call by call."""
    held: dict[State, Sources] = {}
    for index in sorted(maps):
        call = wiring.calls[index]
        reading, read = held.get(call.reading, {}), held.get(call.read, {})
        if call.kind == "B" and {call.reading.stream, call.read.stream} & wiring.moved.keys():
            raise UnsupportedError(
                f"Call {index} ({call.module}): {call.reading} reads {call.read}, and tokens of one were moved before. "
                "gae takes models in which tokens that are moved read one another alone: its rule 10 divides by all "
                "that a stream has read of itself. Use heed or rollout here."
            )
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


def _read(
    held: Mapping[State, Sources], rows: dense.Rows, wiring: Wiring, ways: Ways
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The answer's rows of what was added, and where they stand; rows of moved tokens are read on where they were."""
    flow: dict[State, Tensor] = {}
    start = dict(rows)
    for call in reversed(wiring.calls):
        ways.arrive(call.state, flow, start)
        for at in (flow, start):
            if call.state in at:
                row = at.pop(call.state)
                dense.add(at, State(call.state.stream), row)
                for source, matrix in held[call.state].items():
                    dense.add(flow, State(source), dense.pulled(row, matrix))
    for stream in wiring.entered:
        ways.arrive(State(stream), flow, start)
    streams = ({state.stream: row for state, row in at.items()} for at in (flow, start))
    return dense.aligned(wiring, *streams)


def _sum(a: Sources, b: Sources) -> Sources:
    return {**a, **{source: a[source] + each if source in a else each for source, each in b.items()}}
