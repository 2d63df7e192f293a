"""Attention rollout, the baseline (Abnar and Zuidema, ACL 2020): attention alone, multiplied up through the calls.

    A      = fused over heads: their mean, greatest or least weight
    J[s]  <- rows of (I J[s] + A J[q]) divided by their sum          where stream s reads q; s = q: (A + I) / 2 J
    map    = the answer's row of J

J is the identity before the first call. Of one stream with the mean over heads this is the paper's rollout; where
streams read one another, which the paper does not know, every state is rolled up from those that its call read, as
heed does. What of the row stays where it began, through all the I, is kept apart: `e.row` is the paper's row.

    plain      without division, J <- (I + A) J: where rows of A sum to 1, 2 to the number of calls times the other
    discard    the lowest 9 of 10 entries of each fused map are 0 first, as in the code known as vit-explain. What
               deviates: rows are divided by their own sums, each example is by itself, the first entry may go too,
               and what a mask hides, or the answer cannot hear, is no entry
    official   what the code of Chefer et al. (ICCV 2021) does for DETR and LXMERT: each stream is rolled up by its
               self-attention alone, and joined once, by the last map A in which s reads q, as J[s]^T A J[q]; tokens
               that the answer cannot hear do not count in J[s]^T, as that code knows one example without padding

Not offered: to leave out the first layer, and to roll up each head by itself, as some evaluation scripts do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.errors import InputError, UnsupportedError
from heedmap.methods import dense
from heedmap.records import Explanation, Readout, State, Wiring
from heedmap.streams import Declaration

FUSED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda weights: weights.mean(1),
    "max": lambda weights: weights.amax(1),
    "min": lambda weights: weights.amin(1),
}


def rollout(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    heads: str = "mean",
    normalised: bool = True,
    discard: float = 0.0,
    official: bool = False,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them; rows are read out as heed reads them."""
    if heads not in FUSED or not 0 <= discard < 1:
        raise InputError(f"heads is {heads!r}, discard {discard!r}: choose {', '.join(FUSED)}, and a share below 1.")
    named = [heads, *([] if normalised else ["plain"]), *(["discard"] if discard else [])]
    name = "official" if official else "+".join(named)
    told = {"discard": f"{discard:g}"} if discard else {}
    explanations = []
    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    for wired, one in dense.seen(model, inputs, targets, gradients=False, **given):
        weighs = {index: (weights > 0).any(1) for index, weights in one.weights.items()}
        if official and wired.moved:
            raise UnsupportedError(
                f"Tokens of {', '.join(wired.moved)} were moved between calls. rollout:official takes models in which "
                "each stream is rolled up as it stands, such as DETR and LXMERT. Use rollout:mean here."
            )
        heard = dense.heard(wired, weighs, one.rows, one.ways)
        counts = {index: each & heard[wired.calls[index].reading.stream][:, :, None] for index, each in weighs.items()}
        maps = {index: FUSED[heads](each) for index, each in one.weights.items()}
        maps = {
            index: kept(one.ways.whole(map), one.ways.whole(counts[index]), discard).view_as(map)
            for index, map in maps.items()
        }
        if official:
            flow, start = joined_once(wired, maps, one.rows, heard)
        else:
            flow, start = dense.rolled(wired, maps, one.rows, normalised=normalised, ways=one.ways)
        explanations.append(one.asked.answered(f"rollout:{name}", "", flow, start, wired, one.readout, told))
    return explanations


def kept(map: Tensor, counts: Tensor, discard: float) -> Tensor:
    """A fused map without the lowest share of the entries that count."""
    if not discard:
        return map
    ranks = map.masked_fill(~counts, float("inf")).flatten(1).argsort(1).argsort(1)
    few = (counts.flatten(1).sum(1, keepdim=True) * discard).long()
    return map.masked_fill((ranks < few).view_as(map), 0.0)


def joined_once(
    wiring: Wiring, maps: Mapping[int, Tensor], rows: dense.Rows, heard: dense.Streams
) -> tuple[dense.Streams, dense.Streams]:
    """The official form; its rows of a stream's own tokens are those of its self-attention alone."""
    flow: dense.Streams = {}
    start: dense.Streams = {}
    for state, row in rows.items():
        own, stays = _own(wiring, maps, state)
        dense.add(flow, state.stream, dense.pulled(row, own) - row * stays)
        dense.add(start, state.stream, row * stays)
        for stream, call in dense.last_calls(wiring, state).items():
            if stream != state.stream:
                (reading, _), (read, _) = (_own(wiring, maps, each) for each in (call.reading, call.read))
                mixed = dense.pulled(row, reading.mT) * heard[state.stream]
                dense.add(flow, stream, dense.pulled(dense.pulled(mixed, maps[call.index]), read))
    return dense.aligned(wiring, flow, start)


def _own(wiring: Wiring, maps: Mapping[int, Tensor], state: State) -> tuple[Tensor, Tensor]:
    """J of a stream by its self-attention alone; and what of each row stays where it began."""
    like = next(iter(maps.values()))
    eye = torch.eye(wiring.tokens[state.stream], dtype=like.dtype, device=like.device)
    rolled, stays = eye.expand(len(like), -1, -1), like.new_ones(len(like), len(eye))
    while state.after is not None:
        call = wiring.calls[state.after]
        if call.read.stream == call.reading.stream:
            share = 1 / (1 + maps[call.index].sum(-1))
            rolled, stays = rolled @ ((maps[call.index] + eye) * share[:, :, None]), stays * share
        state = call.reading
    return rolled, stays
