"""Grad-CAM on attention, the baseline as Chefer et al. have it (CVPR 2021, ICCV 2021).

    w_h  = mean of G_h over queries and keys          G: the gradient of the target by the weights A of one call
    M    = max(mean over heads of w_h A_h, 0)
    map  = the answer's row of M

for the last call in which the answer's stream reads a stream, as in raw attention. No mean counts what a mask hides,
nor queries that the answer cannot hear.

    others    as in their code for ViT: keys that the answer itself is read at (CLS) count in no mean and get no number;
              where it is read at all of them, all count
    all       as in their code for DETR and LXMERT: all keys, the answer's own too

Queries beside the answer's have a gradient only where a later call reads them, so in the last call of all it is the
same whether the mean is over the answer's row or all of them, up to a factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from heedmap.errors import InputError
from heedmap.methods import dense
from heedmap.methods.features import counted, silenced
from heedmap.methods.ways import STAY, Ways
from heedmap.records import Explanation, Readout
from heedmap.streams import Declaration

OVER = ("others", "all")


def gradcam_attention(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    over: str = OVER[0],
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them; rows are read out as heed reads them."""
    if over not in OVER:
        raise InputError(f"over is {over!r}. heedmap expected {' or '.join(OVER)}.")
    explanations = []
    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    for wired, one in dense.seen(model, inputs, targets, **given):
        weighs = {index: (each > 0).any(1) for index, each in one.weights.items()}
        heard = dense.heard(wired, weighs, one.rows, one.ways)
        flow: dense.Streams = {}
        for state, row in one.rows.items():
            for stream, call in dense.last_calls(wired, state).items():
                weights, gradient = one.weights[call.index], one.gradients[call.index]
                keys = counted(weights, row if stream == state.stream and over == "others" else None)
                counts = weighs[call.index] & keys[:, None] & heard[state.stream][:, :, None]
                dense.add(flow, stream, silenced(_row(weights, gradient, row, counts, one.ways), weights, keys))
        relevance, starts = dense.aligned(wired, one.ways.home(flow))
        name = f"gradcam-attention:{over}"
        explanations.append(one.asked.answered(name, "", relevance, starts, wired, one.readout))
    return explanations


def _row(weights: Tensor, gradient: Tensor, row: Tensor, counts: Tensor, ways: Ways = STAY) -> Tensor:
    """The answer's row of M; `counts`: which pairs (batch, query, key) the mean is over."""
    total = ways.together((gradient * counts[:, None]).sum((2, 3)))
    importance = total / ways.together(counts.sum((1, 2))).clamp(min=1)[:, None]
    map = (importance[:, :, None, None] * weights).mean(1).clamp(min=0)
    return dense.pulled(row, map)
