"""Partial LRP, the baseline: relevance of the last attention only (after Voita et al., ACL 2019).

Relevance is handed backward by the rules of `lrp` as far as the weights A of the last call. With C the relevance of A,
(head, query, key), and r the answer's row:

    map = mean over heads of max(C, 0), row r          where one stream reads itself: as Chefer et al. (CVPR 2021) do
    map = mean over heads of C, row r                  where streams read one another: as their code of DETR, LXMERT

for each stream that the answer's stream reads, the last call in which it does: DETR's last cross-attention gives the
picture, its last self-attention the queries.

    ours      the rules that keep the total
    orig      the rules of the LRP that Chefer et al. compare with, which they take for this baseline
    signed    without max anywhere

What deviates: Voita et al. rank heads, by the relevance of a head's whole output, and make no map of tokens; theirs
are other rules too. Official code stretches whole matrices to 0 .. 1 where it takes no max, and sets the entry of CLS
for itself to 0 in text; here numbers stay as they are.

Licence: LRP is patented in part, see `lrp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.checking import start_states
from heedmap.methods import dense
from heedmap.methods.asking import questions
from heedmap.methods.relevance import taped
from heedmap.methods.ways import ways_of
from heedmap.records import Call, Explanation, Readout, State
from heedmap.streams import Declaration


def partial_lrp(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    rules: str = "ours",
    signed: bool | None = None,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them; rows are read out as heed reads them."""
    explanations = []
    with taped(model, inputs, rules, wiring, verify, edits) as (recording, wired, relevance):
        for asked in questions(model, inputs, targets, recording, wired, readout is not None, verify):
            starts = start_states(readout, asked.origin, wired, recording.marks, asked.alone)
            rows, named = dense.opened(recording, wired, asked, starts)
            last = {state: dense.last_calls(wired, state) for state in rows}
            came = relevance.arrived(asked, only={call.index for calls in last.values() for call in calls.values()})
            ways = ways_of(recording, wired, asked)
            with torch.no_grad(), torch.autocast(asked.value.device.type, enabled=False):
                flow, begun = dense.aligned(wired, ways.home(_read(rows, last, came.weights, signed)))
            name = rules if signed is None else "signed"
            told = {} if signed is None else {"rules": rules}
            explanations.append(asked.answered(f"partial-lrp:{name}", "", flow, begun, wired, named, told))
    return explanations


def _read(
    rows: dense.Rows, last: Mapping[State, Mapping[str, Call]], weights: Mapping[int, Tensor], signed: bool | None
) -> dense.Streams:
    """The answer's rows of the relevance of the last weights."""
    flow: dense.Streams = {}
    for state, row in rows.items():
        for stream, call in last[state].items():
            if call.index not in weights:  # none came there
                dense.add(flow, stream, row.new_zeros(len(row), call.keys))
                continue
            kept = len(last[state]) > 1 if signed is None else signed
            map = weights[call.index] if kept else weights[call.index].clamp(min=0)
            dense.add(flow, stream, (row[:, :, None] * map.mean(1).to(row)).sum(1))
    return flow
