"""Grad-ECLIP, the baseline (Zhao et al., ICML 2024): the last attention's values, weighed by channel and by place.

    o     = softmax(q k' / sqrt(D)) v          the last call as ONE head of all D channels
    g     = dY / do at the token that is read
    L_j   = cos(q of that token, k_j), its least made 0 and its greatest 1
    map_j = max(L_j * sum over channels of g * v_j, 0)

It changes the model: Y is computed with one head where there were several (for a model of one head, the same). `value`
is the model's own Y. Every other number is computed on the changed model, by putting the one head's weights in place of
each head's. What is read are the end of a ViT, and the ends of both towers of CLIP; each stream must read itself alone
in its last call. Tokens that the one that is read does not hear get 0, and it itself is not scored.

    one-head     the paper's: q and k as they are
    official     as the CLIP code has it: the cosine is that of q and k behind the output projection, bias and all
    multi-head   ours, the model as it stands: g of its own heads, and L the mean of each head's

Deviations. The least and the greatest of L are taken over all tokens that are heard but the one that is read, so a
text's first token counts, and a second special token of an image. Only the last call counts; their code can add up
several for texts, and divides these by their sum. Their adaptation to ViT divides by the square root of 64, not of D.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.capture import record
from heedmap.errors import InputError, UnsupportedError
from heedmap.methods import dense
from heedmap.methods.again import Again
from heedmap.methods.blocks import Parts, refused, side_by_side
from heedmap.propagation import formed
from heedmap.records import Call, Explanation, Heads, Readout, State, Wiring
from heedmap.streams import Declaration

FORMS = ("one-head", "official", "multi-head")
TAKES = "grad-eclip takes models whose last attention is torch's fused one, of a stream that reads itself: CLIP, ViT."

Kept = tuple[Heads, Tensor]  # a call's tensors, and the gradient of what it gave


def grad_eclip(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    form: str = FORMS[0],
    similarity: bool = True,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input: a forward pass, and one more with a backward pass. No `similarity`: L is 1."""
    if form not in FORMS:
        raise InputError(f"form is {form!r}. heedmap expected one of {', '.join(FORMS)}.")
    explanations = []
    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    for wired, one in dense.met(model, inputs, targets, _kept, **given):
        calls = {state: _last(wired, state, one.taken) for state in one.rows}
        again = Again.of(model, inputs, one.asked, 1)
        projections = _projected(again, calls, edits) if form == "official" else {}
        changed = one.taken if form == "multi-head" else _one_headed(again, one, calls, wiring, edits)
        flow: dense.Streams = {}
        for state, call in calls.items():
            (heads, _), (_, gradient) = one.taken[call.index], changed[call.index]
            alike = _alike(heads, projections.get(call.index), form) if similarity else None
            dense.add(flow, state.stream, heat(heads, gradient, alike, one.rows[state]))
        relevance, starts = dense.aligned(wired, one.ways.home(flow))
        explanations.append(one.asked.answered(f"grad-eclip:{form}", "", relevance, starts, wired, one.readout))
    return explanations


def heat(heads: Heads, gradient: Tensor, alike: Tensor | None, row: Tensor) -> Tensor:
    """The map of one stream, (batch, token); `alike` are cosines (batch, head, query, key)."""
    weights = formed(heads)
    told = dense.changed(heads, gradient).sum(1)
    heard, reads = (weights > 0).any(1), row != 0
    own = torch.eye(row.shape[1], dtype=torch.bool, device=row.device) & reads[:, :, None]
    if alike is not None:
        told = told * _stretched(alike.to(weights), (heard & ~own)[:, None]).mean(1)
    found = (told.where(heard, told.new_zeros(())) * reads[:, :, None]).sum(1).clamp(min=0)
    alone = reads & (reads.sum(1, keepdim=True) == 1)
    return found.where(~alone, found.new_full((), torch.nan))


def one_head(heads: Heads) -> Tensor:
    """The weights of a call whose heads are put side by side as one; each keeps a mask or bias of its own."""
    assert heads.queries is not None
    assert heads.keys is not None
    queries, keys = (
        side_by_side(each)[:, None].expand(-1, heads.shape[1], -1, -1) for each in (heads.queries, heads.keys)
    )
    return formed(replace(heads, queries=queries, keys=keys, scale=1 / math.sqrt(queries.shape[-1])))


def _last(wired: Wiring, state: State, taken: Mapping[int, Kept]) -> Call:
    """The call that a state stands after, with queries and keys as it takes them."""
    assert state.after is not None
    call = wired.calls[state.after]
    if call.read != call.reading:
        raise UnsupportedError(f"Call {call.index} ({call.module}): {call.reading} reads {call.read}. {TAKES}")
    if taken[call.index][0].queries is None:
        raise refused("the weights are known, and neither queries nor keys (it is eager, or edited)", call, TAKES)
    return call


def _one_headed(
    again: Again,
    one: dense.Met[Kept],
    calls: Mapping[State, Call],
    wiring: Declaration | None,
    edits: Mapping[int, Tensor] | None,
) -> Mapping[int, Kept]:
    """The last calls of the model with one head in each."""
    heads = {call.index: one_head(one.taken[call.index][0]) for call in calls.values()}
    ends = [Readout(state.stream, state.after) for state in calls]
    given: dict[str, Any] = {"wiring": wiring, "readout": ends, "verify": False, "edits": {**(edits or {}), **heads}}
    ((_, changed),) = dense.met(again.model, again.given(1), [lambda output: again.value(output, 1)], _kept, **given)
    return changed.taken


def _kept(heads: Heads, gradient: Tensor) -> Kept:
    queries, keys = (None if each is None else each.detach() for each in (heads.queries, heads.keys))
    return replace(heads, values=heads.values.detach(), queries=queries, keys=keys), gradient


def _projected(
    again: Again, calls: Mapping[State, Call], edits: Mapping[int, Tensor] | None
) -> dict[int, tuple[Tensor, Tensor]]:
    """Queries and keys of each last call behind its output projection, (batch, token, channel)."""
    parts, found = Parts(), {}
    with parts, record(again.model, again.given(1), stems=True, edits=edits) as recording:
        for call in calls.values():
            batch = again.asked.sizes[call.index]
            linear = parts.projection(call, recording, batch)
            if linear is None:
                raise refused("no linear map takes the heads alone", call, "Use grad-eclip:one-head here.")
            heads = recording.calls[call.index].heads(batch)
            assert heads.queries is not None
            assert heads.keys is not None
            found[call.index] = tuple(
                linear(side_by_side(each.detach()), bias=True) for each in (heads.queries, heads.keys)
            )
    return found


def _alike(heads: Heads, projected: tuple[Tensor, Tensor] | None, form: str) -> Tensor:
    """The cosine of every query with every key, (batch, head, query, key)."""
    assert heads.queries is not None
    assert heads.keys is not None
    queries, keys = heads.queries, heads.keys
    if projected is not None:
        queries, keys = (each[:, None] for each in projected)
    elif form != "multi-head":
        queries, keys = side_by_side(queries)[:, None], side_by_side(keys)[:, None]
    dtype = torch.promote_types(queries.dtype, torch.float32)
    queries, keys = (nn.functional.normalize(each.to(dtype), dim=-1) for each in (queries, keys))
    return queries @ keys.mT


def _stretched(alike: Tensor, over: Tensor) -> Tensor:
    """Rows from 0 to 1, their least and greatest taken where `over`; a row of one number is all 0."""
    low = alike.masked_fill(~over, torch.inf).amin(-1, keepdim=True)
    wide = alike.masked_fill(~over, -torch.inf).amax(-1, keepdim=True) - low
    return ((alike - low) / wide).where(over & (wide > 0), alike.new_zeros(()))
