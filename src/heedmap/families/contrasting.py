"""What was written against another continuation, as a whole: why this answer and not that one.

    log p(written | given) - log p(other | given)

is a sum over the tokens of both, each given those before it: what was written counts for, the other against. Up to
where the two part the summands are the same and cancel. There two tokens stand after the same ones, and their
difference is that of their logits. Behind that place each continuation has tokens before it that the other has not, so
each takes a forward pass of its own, and every summand is explained as a target in its own right. What flowed adds up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from heedmap.errors import InputError
from heedmap.families import words
from heedmap.families.adding import added
from heedmap.layouts import Shown, Words
from heedmap.records import Explanation
from heedmap.targets import Context, Target
from heedmap.targets.expressions import Custom
from heedmap.targets.fields import logits_of

AGAINST = " (against)"  # behind the name of a stream: the other's tokens, where they differ


@dataclass(frozen=True)
class Other:
    """A continuation that was not written: its tokens, and the place of the first that differs."""

    phrase: str
    indices: tuple[int, ...]
    parted: int


def other(tokenizer: Any, phrase: str, written: Sequence[int], ended: bool, target: bool) -> Other:
    """The phrase as the model would have written it; `ended` has it end as what was written does.

    `target`: in what a decoder writes, which may have pieces of its own.
    """
    before = " " if tokenizer.decode(list(written)).startswith(" ") else ""
    ids = words.pieces(tokenizer, before + phrase.strip(), target)
    if getattr(tokenizer, "unk_token_id", None) in ids:
        raise InputError(f"against={phrase!r} holds what is not in this model's vocabulary. Choose other words.")
    ids += written[-1:] if ended else []
    parted = next((i for i, (ours, theirs) in enumerate(zip(written, ids, strict=False)) if ours != theirs), None)
    if parted is None:
        raise InputError(
            f"against={phrase!r} is what the model wrote, or how the one begins the other: {len(written)} tokens, "
            f"{tokenizer.decode(list(written))!r}. Name another continuation, from its first word on."
        )
    return Other(phrase, tuple(ids), parted)


def probability(index: int, place: int, name: str, context: Context, sign: int = 1) -> Target:
    """log p of a token at a place, or less it."""

    def log_probability(output: Any) -> Tensor:
        logits = logits_of(output, context)[:, place]
        return sign * logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)[:, index]

    log_probability.__name__ = f"{'-' if sign < 0 else ''}log p({name!r}, position={place})"
    return Custom(log_probability)


def contrast(
    ours: Sequence[Explanation],
    theirs: Sequence[Explanation],
    stream: str,
    shared: int,
    told: Sequence[str],
    layout: Words,
) -> Explanation:
    """All summands added up; `stream` begins with so many tokens that both share, `layout` is the other's.

    `told` is what was written, and the other continuation.
    """
    last = ours[-1]
    parts = [*ours, *(_apart(one, stream, shared) for one in theirs)]
    sums = {name: _added([getattr(part, name) for part in parts]) for name in ("relevance", "starts")}
    shown = tuple(replace(one, answer=" rather than ".join(told)) for one in last.shown)
    if stream + AGAINST in sums["relevance"]:
        tokens = sums["relevance"][stream + AGAINST].shape[1]
        beside = words.between(layout, shared, shared + tokens)
        shown = tuple(_beside(one, stream + AGAINST, replace(beside, parts=())) for one in shown)
    return replace(
        last,
        target=" - ".join(f"log p({text!r})" for text in told),
        value=torch.stack([part.value for part in parts]).sum(0),
        readout=tuple(dict.fromkeys(row for part in parts for row in part.readout)),
        predicted=None,
        shown=shown,
        **sums,
    )


def _apart(explanation: Explanation, stream: str, shared: int) -> Explanation:
    """The other's own tokens as a stream of their own."""

    def split(flows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        whole = flows.get(stream)
        if whole is None or whole.shape[1] <= shared:
            return dict(flows)
        return {**flows, stream: whole[:, :shared], stream + AGAINST: whole[:, shared:]}

    return replace(explanation, relevance=split(explanation.relevance), starts=split(explanation.starts))


def _beside(shown: Shown, name: str, layout: Words) -> Shown:
    return replace(shown, layouts={**shown.layouts, name: layout})


def _added(flows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stream by stream; of rows of one stream some reach further."""
    names = dict.fromkeys(name for each in flows for name in each)
    return {name: added([each[name] for each in flows if name in each]) for name in names}
