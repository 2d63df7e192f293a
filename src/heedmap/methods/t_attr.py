"""T-Attr, the baseline: Transformer attribution (Chefer, Gur and Wolf, CVPR 2021).

With C the relevance of a call's weights, by the rules of `lrp`, and G the gradient of the target by them:

    map of a call    mean over heads of max(G * C, 0)
    R[reading]  <-   R[reading] + map @ R[read]          of one stream (I + map) R, rows not divided by their sums

walked as heed walks: the only difference from heed:positive is C in place of the weights. Relevance begins as 1 at the
logit, the gradient is that of the logit.

    ours        the rules that keep the total, all calls: the paper's equation
    orig        the rules of the LRP that they compare with
    official    from the second layer on (`start=1`): the first call of every stream is left out, as the authors'
                evaluation of ViT does; their notebooks leave out none

What deviates: for BERT their code divides rows by their sums, begins at the last layer, and puts the least number in
place of that of CLS; for DETR it takes the last cross-attention only, for LXMERT a product of self-attentions, and for
the picture the last cross-attention only. Here states that read one another are walked, stream by stream.

Licence: LRP is patented in part, see `lrp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.checking import start_states
from heedmap.errors import InputError
from heedmap.methods import dense
from heedmap.methods.asking import questions
from heedmap.methods.relevance import taped
from heedmap.methods.ways import ways_of
from heedmap.records import Explanation, Heads, Readout, State, Wiring
from heedmap.streams import Declaration
from heedmap.walk import no_gradient


def t_attr(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    rules: str = "ours",
    start: int = 0,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them; rows are read out as heed reads them.

    `start` is how many of the first calls of every stream are left out.
    """
    if not isinstance(start, int) or start < 0:
        raise InputError(f"start is {start!r}. heedmap expected how many first calls to leave out: 0, 1, 2 ...")
    explanations = []
    with taped(model, inputs, rules, wiring, verify, edits) as (recording, wired, relevance):
        for asked in questions(model, inputs, targets, recording, wired, readout is not None, verify):
            starts = start_states(readout, asked.origin, wired, recording.marks, asked.alone)
            rows, named = dense.opened(recording, wired, asked, starts)
            upstream = asked.upstream(wired, rows)
            ways = ways_of(recording, wired, asked)
            maps = _Maps(relevance.arrived(asked, only=upstream).weights)
            recording.backward(asked.value, asked.sizes, maps.step, keep=asked.more)
            for index in sorted(upstream - maps.found.keys(), reverse=True):
                raise no_gradient(wired.calls[index].state, wired)
            behind = [index for index in upstream if _before(wired, wired.calls[index].reading) >= start]
            walked = {index: maps.found[index] for index in behind}
            with torch.no_grad(), torch.autocast(asked.value.device.type, enabled=False):
                flow, begun = dense.rolled(wired, walked, rows, ways=ways)
            name = "official" if start == 1 and rules == "ours" else rules
            told = {"start": str(start)} if start else {}
            explanations.append(asked.answered(f"t-attr:{name}", "positive", flow, begun, wired, named, told))
    return explanations


class _Maps:
    """The map of every call, from the relevance of its weights and their gradient."""

    def __init__(self, weights: Mapping[int, Tensor]) -> None:
        self._weights = weights
        self.found: dict[int, Tensor] = {}

    def step(self, index: int, heads: Heads, gradient: Tensor, wanted: Any = None) -> tuple[bool, None]:
        change = dense.changed(heads, gradient)
        relevance = self._weights.get(index)
        share = torch.zeros_like(change) if relevance is None else change * relevance.to(change)
        self.found[index] = share.clamp(min=0).mean(1)
        return False, None


def _before(wiring: Wiring, state: State) -> int:
    """How many calls have written a stream before; of tokens that were moved the most that any of them met."""
    if state.after is not None:
        return 1 + _before(wiring, wiring.calls[state.after].reading)
    sources = wiring.moved[state.stream].sources if state.stream in wiring.moved else ()
    return max((_before(wiring, source) for source in sources), default=0)
