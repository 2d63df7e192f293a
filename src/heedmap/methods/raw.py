"""Raw attention, the baseline: the answer's own row of the last maps, averaged over heads.

    m_j = mean over heads of A[answer, j]        A: the last call in which the answer's stream reads j's stream

It asks nothing of the target but where it is read. Each stream that the answer's stream has read has a last call of its
own: DETR's object queries last read the picture, and one another; LXMERT's text last reads the boxes, and itself. The
row sums to 1, the answer's own token included. That official code sets [CLS] of LXMERT's text to 0 is display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from heedmap.methods import dense
from heedmap.records import Explanation, Readout
from heedmap.streams import Declaration


def raw(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them."""
    explanations = []
    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    for wired, one in dense.seen(model, inputs, targets, gradients=False, **given):
        flow: dense.Streams = {}
        for state, row in one.rows.items():
            for stream, call in dense.last_calls(wired, state).items():
                dense.add(flow, stream, dense.pulled(row, one.weights[call.index].mean(1)))
        relevance, starts = dense.aligned(wired, one.ways.home(flow))
        explanations.append(one.asked.answered("raw:mean", "", relevance, starts, wired, one.readout))
    return explanations
