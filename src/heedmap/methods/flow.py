"""Attention flow, the baseline (Abnar and Zuidema, ACL 2020): how much could flow from a token to the answer.

Each token of each layer is a node, and At = (mean over heads of A + I) / 2 of a layer are the capacities of the edges
from its tokens to those of the layer before; the number of an input token is the greatest flow from the answer's token
to it, each by itself, and all of them are then divided by their sum. Where the answer is read at several tokens, they
are fed from one source by their share of it.

It says little of many tokens: the only bottleneck is then what enters the input token, so the map turns into the column
sums of the first layer. One problem of flow for each token makes it slow, and it runs on the processor; it takes models
in which every stream reads itself alone, and needs scipy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heedmap.installs import extra
from heedmap.methods import dense
from heedmap.methods.again import own_calls
from heedmap.records import Explanation, Readout
from heedmap.streams import Declaration

WHOLE = 2**30  # what stands for a capacity of 1: scipy's are whole numbers
INSTEAD = "use rollout"
TAKES = "flow takes models in which every stream reads itself alone: ViT, BERT, CLIP. Use rollout here."


def flow(
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
    extra("scipy.sparse.csgraph", INSTEAD)
    explanations = []
    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    for wired, one in dense.seen(model, inputs, targets, gradients=False, **given):
        found: dense.Streams = {}
        for state, row in one.rows.items():
            layers = [one.weights[call.index].mean(1) for call in reversed(own_calls(wired, one.asked, state, TAKES))]
            flows = [greatest([layer[i] for layer in layers], row[i]) for i in range(len(row))]
            dense.add(found, state.stream, torch.stack(flows).to(row))
        relevance, starts = dense.aligned(wired, found)
        relevance = {stream: each / each.sum(-1, keepdim=True) for stream, each in relevance.items()}
        explanations.append(one.asked.answered("flow:mean", "", relevance, starts, wired, one.readout))
    return explanations


def greatest(layers: Sequence[Tensor], row: Tensor) -> Tensor:
    """The greatest flow to each token, from the answer's row, through layers (query, key), last first."""
    sparse, maximum_flow = extra("scipy.sparse", INSTEAD), extra("scipy.sparse.csgraph", INSTEAD).maximum_flow
    n = len(row)
    blocks: list[list[Any]] = [[None] * (len(layers) + 2) for _ in range(len(layers) + 2)]
    blocks[0][1] = sparse.csr_array(_whole(row[None]))
    for depth, layer in enumerate(layers, start=1):
        kept = (layer + torch.eye(n, dtype=layer.dtype, device=layer.device)) / (1 + layer.sum(-1, keepdim=True))
        blocks[depth][depth + 1] = sparse.csr_array(_whole(kept))
    blocks[0][0], blocks[-1][-1] = sparse.csr_array((1, 1), dtype=np.int32), sparse.csr_array((n, n), dtype=np.int32)
    graph = sparse.csr_array(sparse.bmat(blocks, format="csr", dtype=np.int32))
    last = graph.shape[0] - n
    found = [maximum_flow(graph, 0, last + token, method="dinic").flow_value for token in range(n)]
    return torch.tensor(found, dtype=torch.float64) / WHOLE


def _whole(capacities: Tensor) -> Any:
    return (capacities.double() * WHOLE).round().to(torch.int32).cpu().numpy()
