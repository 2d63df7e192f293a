"""Explanations of tokens, put together: cut to what was there when a token was written, and added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from heedmap.errors import ModelError
from heedmap.families import words
from heedmap.records import Explanation


def until(explanation: Explanation, stream: str, tokens: int) -> Explanation:
    """The explanation without the tokens that were not yet written."""
    later = explanation.relevance[stream][:, tokens:] if stream in explanation.relevance else None
    if later is None:
        return explanation
    if bool(later.any()):
        raise ModelError(
            "A token is explained by tokens that come after it: this model looks ahead. heedmap expected one that "
            "writes from left to right; explain it with heedmap.explain(module, inputs, ...)."
        )
    relevance = {**explanation.relevance, stream: explanation.relevance[stream][:, :tokens]}
    starts = {**explanation.starts, stream: explanation.starts[stream][:, :tokens]}
    return replace(explanation, relevance=relevance, starts=starts, shown=_shown(explanation, stream, tokens))


def _shown(explanation: Explanation, stream: str, tokens: int) -> tuple[Any, ...]:
    (shown,) = explanation.shown
    layout: Any = shown.layouts[stream]
    return (replace(shown, layouts={**shown.layouts, stream: words.begins(layout, tokens)}),)


def together(parts: Sequence[Explanation], word: str, answer: str) -> Explanation:
    """The explanation of a word: those of its tokens added up, as what flowed is."""
    last = parts[-1]
    sums = {
        name: {stream: added([getattr(part, name)[stream] for part in parts]) for stream in last.relevance}
        for name in ("relevance", "starts")
    }
    return replace(
        last,
        target=" + ".join(part.target for part in parts),
        value=torch.stack([part.value for part in parts]).sum(0),
        readout=tuple(dict.fromkeys(row for part in parts for row in part.readout)),
        predicted=None if any(part.predicted is None for part in parts) else (word,),
        shown=tuple(replace(shown, answer=answer) for shown in last.shown),
        **sums,
    )


def added(rows: Sequence[Tensor]) -> Tensor:
    """Rows of which some reach further."""
    total = torch.zeros_like(max(rows, key=lambda row: row.shape[1]))
    for row in rows:
        total[:, : row.shape[1]] += row
    return total
