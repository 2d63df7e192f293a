"""Attention sinks: tokens of a text that are read far more than all others, whatever they say, as a first token is.

    share(j)  = mean of A[i, j] over calls, heads and the tokens i that may read j, j itself left out
    even(j)   = mean over the same of 1 / how many tokens i may read: what j were given if all were read alike
    excess(j) = (share(j) - even(j)) / (1 - even(j)): 0 where j is read like the others, 1 where nothing else is

A sink has an excess of at least `EXCESS`, and at least `READERS` tokens that may read it: few readers tell little. Of a
long text `ROWS` tokens are asked what they read, evenly spread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.capture import record
from heedmap.families import words
from heedmap.layouts import Shown, Words
from heedmap.propagation import blocks
from heedmap.records import Heads, State, Wiring

EXCESS = 0.3
READERS = 8
ROWS = 512
TOLD = "sinks"  # where an explanation's metadata names them
WRITTEN = "written"  # the part of a text that the model wrote


def marked(
    module: nn.Module, inputs: Mapping[str, Any], wiring: Wiring, examples: tuple[Shown, ...], stream: str = "input_ids"
) -> tuple[tuple[Shown, ...], str]:
    """Each example with the sinks of what was given among its special tokens; and the sinks in words."""
    layouts = [shown.layouts.get(stream) for shown in examples]
    calls = _calls(wiring, stream, {len(layout.texts) for layout in layouts if isinstance(layout, Words)})
    if not calls:
        return examples, ""
    made, told = [], []
    for shown, layout, found in zip(examples, layouts, _sinks(module, inputs, calls, len(examples)), strict=True):
        if not isinstance(layout, Words):
            return examples, ""
        found = {token: share for token, share in found.items() if token < _given(layout)}
        texts = {token: layout.texts[token] or "␣" for token in found}
        told += [f"{texts[token]!r} (token {token}): {share:.0%}" for token, share in found.items()]
        layout = words.hiding(layout, {token: f"{text} (sink)" for token, text in texts.items()})
        made.append(replace(shown, layouts={**shown.layouts, stream: layout}))
    return tuple(made), ", ".join(told)


def _calls(wiring: Wiring, stream: str, tokens: Collection[int]) -> list[int]:
    """The calls in which a text reads itself, pictures between its words among it."""
    spliced = {name for name, moved in wiring.moved.items() if State(stream) in moved.sources}
    return [
        call.index
        for call in wiring.calls
        if call.reading.stream == call.read.stream
        and call.reading.stream in (stream, *spliced)
        and {call.queries, call.keys} == set(tokens)
    ]


def _given(layout: Words) -> int:
    """How many tokens were there before the model wrote: what it wrote is shown, whatever it is."""
    return sum(tokens for name, tokens in layout.parts if name != WRITTEN) or len(layout.texts)


def _sinks(module: nn.Module, inputs: Mapping[str, Any], calls: Sequence[int], batch: int) -> list[dict[int, float]]:
    """Of each example the tokens that are sinks, and what share of the attention they take."""
    total, times = torch.zeros(()), 0
    with torch.no_grad(), record(module, inputs) as recording:
        for index in calls:
            heads = recording.calls[index].heads(batch)
            total = total.to(heads.values.device) + _read(heads)
            times += heads.shape[1]
    return [_excessive(example.cpu(), times) for example in total]


def _read(heads: Heads) -> Tensor:
    """What each token is given, were given if all were read alike, and by how many: (batch, 3, tokens)."""
    batch, count, queries, keys = heads.shape
    sums = torch.zeros(batch, 3, keys, device=heads.values.device)
    nothing = heads.values.new_zeros(()).expand(batch, count, queries, heads.values.shape[-1])
    asked = torch.zeros(queries, dtype=torch.bool, device=sums.device)
    asked[torch.linspace(0, queries - 1, min(queries, ROWS), device=sums.device).long()] = True
    for block in blocks(heads, nothing, asked):
        rows = torch.arange(queries, device=sums.device)[block.rows]
        others = torch.arange(block.width, device=sums.device) != rows[:, None]
        heard = block.weights > 0
        even = heard / heard.sum(-1, keepdim=True).clamp(min=1)
        for i, part in enumerate((block.weights, even, heard)):
            sums[block.examples, i, : block.width] += (part * others).sum((1, 2), dtype=torch.float32)
    return sums


def _excessive(sums: Tensor, times: int) -> dict[int, float]:
    given, even, readers = sums
    share, alike = given / readers.clamp(min=1), even / readers.clamp(min=1)
    excess = (share - alike) / (1 - alike).clamp(min=1e-9)
    found = (excess >= EXCESS) & (readers >= READERS * times)
    return {token: float(share[token]) for token in found.nonzero()[:, 0].tolist()}
