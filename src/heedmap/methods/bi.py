"""Beyond Intuition, the baseline (Chen, Li, Yu, Dou and Xiong, TMLR 2023): what was perceived, times what was felt.

    R  = product of (I + P) over calls, last on the left            perception
    W  = E(max(mean over the path of G of the last call, 0))        feedback
    map = the answer's row of W * R                   E: mean over heads, G: dY / dA at alpha * x, A: the weights

    head-wise    P = sum over heads of I_h A_h,   I_h = mean of |A_h' G_h|, made to sum to 1 over the heads
    token-wise   P = E(A) Theta,                  Theta_j = |v_j W_O| / |z_j|, in the 2-norm

v_j are the values of token j, heads side by side, W_O is the output projection without its bias, z_j the residual
stream that the projected heads are added to. They are found along the graph; where the block is not built so,
token-wise is refused. The path leads from nothing to the inputs in `steps` points, both ends included.

`first` is the first call that counts. The authors begin at call 4 of 12 head-wise and at 7 token-wise (counted from 1),
which for other depths is taken as a fourth and a half of the calls. Their code norms heads over a whole batch, and
takes the number of CLIP's blocks for that of its heads; here every example is by itself. Where the answer is read at
several tokens they weigh as heed weighs them. The token that is read keeps its number, which the authors cut off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.capture import record
from heedmap.errors import InputError
from heedmap.methods import dense
from heedmap.methods.again import Again, Progress, beginning, felt, own_calls
from heedmap.methods.blocks import Parts, refused, side_by_side
from heedmap.records import Call, Explanation, Readout
from heedmap.streams import Declaration

BY = {"head": 4, "token": 2}  # and which part of the calls is left out
TAKES = "bi takes models in which every stream reads itself alone: ViT, BERT, CLIP. Use heed or gae here."
BLOCKS = "bi:token-wise takes blocks that add projected heads to the stream their values come from. Use bi:head-wise."


def bi(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    by: str = "head",
    first: int | None = None,
    steps: int = 20,
    batch_size: int = 8,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
    progress: Progress | None = None,
) -> list[Explanation]:
    """Explain each target of one input: a forward and a backward pass, and `steps` forward passes for each target."""
    if by not in BY:
        raise InputError(f"by is {by!r}. heedmap expected {' or '.join(BY)}.")
    explanations = []
    thetas: dict[int, Tensor] = {}
    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    for wired, one in dense.seen(model, inputs, targets, gradients=by == "head", **given):
        chains = {state: own_calls(wired, one.asked, state, TAKES) for state in one.rows}
        counted = {state: chain[beginning(first, len(chain), BY[by]) :] for state, chain in chains.items()}
        calls = [call for chain in counted.values() for call in chain]
        if by == "token" and not thetas:
            thetas = shares(model, inputs, calls, one.asked.sizes, edits)
        again = Again.of(model, inputs, one.asked, batch_size)
        feedback = felt(again, [chain[-1].index for chain in chains.values()], steps, edits, progress)
        flow: dense.Streams = {}
        start: dense.Streams = {}
        for state, chain in counted.items():
            maps = []
            for call in chain:
                weights = one.weights[call.index]
                if by == "head":
                    maps.append(by_head(weights, one.gradients[call.index]))
                else:
                    maps.append(weights.mean(1) * thetas[call.index][:, None].to(weights))
            weight = feedback[chain[-1].index].clamp(min=0).mean(1)
            flowed, began = perceived(maps, weight, one.rows[state])
            dense.add(flow, state.stream, flowed)
            dense.add(start, state.stream, began)
        relevance, starts = dense.aligned(wired, flow, start)
        explanations.append(one.asked.answered(f"bi:{by}-wise", "", relevance, starts, wired, one.readout))
    return explanations


def by_head(weights: Tensor, gradient: Tensor) -> Tensor:
    """P, head-wise: heads weigh by how much the answer moves with them. All-zero gradients weigh nothing."""
    gradient = gradient.where(weights > 0, gradient.new_zeros(()))  # what a mask hides moves nothing
    moved = (weights.mT @ gradient).abs().mean((2, 3))
    total = moved.sum(1, keepdim=True)
    share = moved / total.where(total > 0, total.new_ones(()))
    return torch.einsum("bh,bhij->bij", share, weights)


def perceived(maps: Sequence[Tensor], weight: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """The answer's rows of W * (R - I), and of W * I."""
    some = (row != 0).any(0).nonzero()[:, 0]
    eye = torch.eye(row.shape[1], dtype=row.dtype, device=row.device)[some].expand(len(row), -1, -1)
    rolled = eye
    for map in reversed(maps):
        rolled = rolled + rolled @ map
    shares = row[:, some, None] * weight[:, some]
    return (shares * (rolled - eye)).sum(1), (shares * eye).sum(1)


def shares(
    model: nn.Module, inputs: Any, calls: Sequence[Call], sizes: Sequence[int], edits: Mapping[int, Tensor] | None
) -> dict[int, Tensor]:
    """Theta of each call, (batch, token)."""
    parts, found = Parts(), {}
    with parts, record(model, inputs, stems=True, edits=edits) as recording:
        for call in calls:
            batch = sizes[call.index]
            linear = parts.projection(call, recording, batch)
            if linear is None:
                raise refused("no linear map takes the heads alone", call, BLOCKS)
            stream = parts.residual(linear, call, recording)
            if stream is None:
                raise refused("the projected heads are not added to what its values come from", call, BLOCKS)
            values = side_by_side(recording.calls[call.index].heads(batch).values.detach())
            values = values.to(torch.promote_types(values.dtype, torch.float32))
            size = stream.to(values).norm(dim=-1)
            given = linear(values).norm(dim=-1)
            found[call.index] = (given / size).where(size > 0, given.new_zeros(()))
    return found
