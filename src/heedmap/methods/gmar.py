"""GMAR, the baseline: Gradient-driven Multi-head Attention Rollout (Jo et al., ICIP 2025).

Rollout in which a head counts by the size of its gradient:

    w_h    = |G_h| / sum over heads of |G_h|         |.| the l1 or l2 norm, G the gradient of the target by the weights
    A      = sum over heads of w_h A_h
    J[s]  <- rows of (I J[s] + A J[q]) divided by their sum, as in rollout

A call's heads are weighed by the call's own gradient, over the entries that no mask hides; where it has none, all heads
count the same. This is the idea as the paper's summary states it. The authors' code is something else, and is not
offered: it takes the gradient by the features of the last layer, cut into 16 groups of channels for the heads of ViT-L,
multiplies in the reverse order with next to no identity, and reads no row of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from heedmap.errors import InputError
from heedmap.methods import dense
from heedmap.methods.ways import STAY, Ways
from heedmap.records import Explanation, Readout
from heedmap.streams import Declaration

NORMS = {"l1": 1, "l2": 2}


def gmar(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    norm: str = "l1",
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them; rows are read out as heed reads them."""
    if norm not in NORMS:
        raise InputError(f"norm is {norm!r}. heedmap expected {' or '.join(NORMS)}.")
    explanations = []
    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    for wired, one in dense.seen(model, inputs, targets, **given):
        seen = {index: (weights, one.gradients[index]) for index, weights in one.weights.items()}
        maps = {index: weighed(*pair, norm, one.ways) for index, pair in seen.items()}
        flow, start = dense.rolled(wired, maps, one.rows, normalised=True, ways=one.ways)
        explanations.append(one.asked.answered(f"gmar:{norm}", "", flow, start, wired, one.readout))
    return explanations


def weighed(weights: Tensor, gradient: Tensor, norm: str, ways: Ways = STAY) -> Tensor:
    """The heads of a call as one map, (batch, query, key)."""
    p = NORMS[norm]
    sizes = ways.together((gradient * (weights > 0)).flatten(2).norm(p=p, dim=-1) ** p) ** (1 / p)
    total = sizes.sum(1, keepdim=True)
    shares = (sizes / total).where(total > 0, sizes.new_tensor(1 / sizes.shape[1]))
    return (shares[:, :, None, None] * weights).sum(1)
