"""Transition Attention Maps, the baseline (Yuan et al., NeurIPS workshops 2021): a chain, felt by the answer.

    s  = the answer's row of E(A of the last call);  s <- s (E(A) + I)  through the calls before it, last first
    W  = E(max(mean over the path of G of the last call, 0))
    map = s * W                                         E: mean over heads, G: dY / dA at alpha * x

The path leads from nothing to the inputs in `steps` points, both ends included: the authors divide by their number. The
target is settled on the inputs themselves. `first` is the first call that counts: their scripts leave out 4 of 12 in
most places, which for other depths is taken as a third of them (`upper`), and none in others (`all`). No row is
normalised. Where the answer is read at several tokens, each has its own chain, and they weigh as heed weighs them. The
token that is read keeps its number, which the authors cut off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.methods import dense
from heedmap.methods.again import Again, Progress, beginning, felt, own_calls
from heedmap.records import Explanation, Readout
from heedmap.streams import Declaration

TAKES = "tam takes models in which every stream reads itself alone: ViT, BERT, CLIP. Use heed or gae here."


def tam(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    first: int | None = None,
    steps: int = 20,
    batch_size: int = 8,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
    progress: Progress | None = None,
) -> list[Explanation]:
    """Explain each target of one input: one forward pass, and `steps` forward passes for each target."""
    explanations = []
    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    for wired, one in dense.seen(model, inputs, targets, gradients=False, **given):
        chains = {state: own_calls(wired, one.asked, state, TAKES) for state in one.rows}
        again = Again.of(model, inputs, one.asked, batch_size)
        felt_by = felt(again, [chain[-1].index for chain in chains.values()], steps, edits, progress)
        flow: dense.Streams = {}
        for state, chain in chains.items():
            last = chain[-1].index
            start = beginning(first, len(chain), 3)
            maps = [one.weights[call.index].mean(1) for call in chain[start:]]
            weight = felt_by[last].clamp(min=0).mean(1)
            dense.add(flow, state.stream, felt_chain(maps, weight, one.rows[state]))
        relevance, starts = dense.aligned(wired, flow)
        name = "tam:upper" if first is None else "tam:all" if first == 0 else f"tam:from {first}"
        explanations.append(one.asked.answered(name, "", relevance, starts, wired, one.readout))
    return explanations


def felt_chain(maps: Sequence[Tensor], weight: Tensor, row: Tensor) -> Tensor:
    """The rows that are read, each through maps (batch, query, key) first to last, times its row of the weight."""
    some = (row != 0).any(0).nonzero()[:, 0]
    chain = maps[-1][:, some]
    for map in reversed(maps[:-1]):
        chain = chain @ map + chain
    return torch.einsum("bi,bij,bij->bj", row[:, some], chain, weight[:, some])
