"""Regions or words taken from what a model answers by, as the LXMERT perturbation tests have it.

What stays is fed as if it were all there is: the features and boxes of the regions that stay; the words that stay, in
their order, between the first token and the last, numbered anew. Many such inputs go through the model at once, padded
under masks, which changes nothing.

Where no region stays, the words read nothing: attention over no region is an empty sum, 0, and the bias of its
projection is all that is added. The model fails on empty tensors, so one masked region stands there, and what is read
from it is set to that 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

STEPS = (0.0, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)  # fractions removed
MODALITIES = {"image": "visual_feats", "text": "input_ids"}  # and the stream of each
AT_ONCE = 256  # inputs that go through the model together

Kept = tuple[int, tuple[int, ...], tuple[int, ...]]  # which example; which of its regions and of its tokens stay


@dataclass(frozen=True, eq=False)
class Parts:
    """Of each example, how many regions it has, and how many tokens; the first and the last token always stay."""

    inputs: Mapping[str, Tensor]
    regions: tuple[int, ...]
    tokens: tuple[int, ...]

    def units(self, example: int, modality: str) -> range:
        """The places in the stream of what can be removed."""
        return range(self.regions[example]) if modality == "image" else range(1, self.tokens[example] - 1)

    def kept(self, example: int, modality: str, chosen: Sequence[int]) -> Kept:
        """The example with only these of its regions, or of its words."""
        last = self.tokens[example] - 1
        if modality == "image":
            return example, tuple(sorted(chosen)), tuple(range(last + 1))
        return example, tuple(range(self.regions[example])), (0, *sorted(chosen), last)


def keeps(units: int) -> list[int]:
    """How many stay at each step, rounded down as floating point has it: a fifth of five is 0.99..., and none stays."""
    return [int((1 - step) * units) for step in STEPS]


def answers(module: nn.Module, parts: Parts, wanted: Sequence[Kept]) -> dict[Kept, int]:
    """The likeliest answer to each input; those of a length go together."""
    rows = sorted(set(wanted), key=lambda one: (len(one[1]), len(one[2]), one))
    found: dict[Kept, int] = {}
    with torch.no_grad(), unread(module):
        for start in range(0, len(rows), AT_ONCE):
            together = rows[start : start + AT_ONCE]
            best = logits(module(**shortened(parts.inputs, together))).argmax(-1)
            found |= zip(together, best.tolist(), strict=True)
    return found


def logits(output: Any) -> Tensor:
    return output.question_answering_score


def lead(output: Any) -> Tensor:
    """By how much the likeliest answer leads the next."""
    first, second = logits(output).topk(2, -1).values.unbind(-1)
    return first - second


def shortened(inputs: Mapping[str, Tensor], wanted: Sequence[Kept]) -> dict[str, Tensor]:
    """The model's inputs with only what stays."""
    device = inputs["input_ids"].device
    example = torch.tensor([one[0] for one in wanted], device=device)[:, None]
    shorter = {}
    for kept, mask, names in (
        ([one[1] for one in wanted], "visual_attention_mask", ("visual_feats", "visual_pos")),
        ([one[2] for one in wanted], "attention_mask", ("input_ids", "token_type_ids")),
    ):
        most = max(1, *map(len, kept))
        places = torch.tensor([[*each, *[0] * (most - len(each))] for each in kept], device=device)
        lengths = torch.tensor([len(each) for each in kept], device=device)[:, None]
        there = torch.arange(most, device=device) < lengths
        shorter[mask] = there.to(inputs[mask].dtype)
        shorter |= {name: inputs[name][example, places] for name in names if name in inputs}
    return shorter


@contextmanager
def unread(module: nn.Module) -> Iterator[None]:
    """While this lasts, attention across streams takes 0 where every token that it would read is masked."""

    def emptied(_module: nn.Module, given: tuple[Any, ...], output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = given[2] if len(given) > 2 else None
        if hidden is None:
            return output
        empty = (hidden < 0).flatten(1).all(1)
        return (output[0].masked_fill(empty[:, None, None], 0.0), *output[1:])

    crossing = [one for one in module.modules() if type(one).__name__ == "LxmertCrossAttentionLayer"]
    handles = [one.get_submodule("att").register_forward_hook(emptied) for one in crossing]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
