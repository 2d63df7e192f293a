"""Integrated gradients, an anchor that reads no attention (Sundararajan, Taly and Yan, ICML 2017).

    IG = x * mean over the path of dY / dx,     at alpha * x, alpha from 0 to 1

x is what the model is given: the pixels of a picture, the vectors of tokens, or what ids are embedded as; all of them
go along the path together, and masks, positions and types stay. The baseline is 0: a picture of the processor's mean
colour, tokens of which only their place is known. The path is cut into `steps` pieces, each represented by its middle.
The numbers sum to Y(x) - Y(0), but for that cutting.

Of a picture the pixels are scored, their channels added up (`e.pixels`), and its tokens are left at NaN: a patch's sum
is for whoever asks for it. Of words each token is scored, the channels of its embedding added up. A stream that is made
of several inputs gets none: the order in which they stand is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.capture.recording import graph_on
from heedmap.checking import recorded
from heedmap.errors import InputError
from heedmap.methods.again import Again, Progress, Scaled, factors
from heedmap.methods.asking import questions
from heedmap.methods.entering import placed
from heedmap.records import Explanation
from heedmap.streams import Declaration


def ig(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    steps: int = 20,
    batch_size: int = 8,
    wiring: Declaration | None = None,
    verify: str | bool = "once",
    progress: Progress | None = None,
) -> list[Explanation]:
    """Explain each target of one input: one forward pass, and `steps` forward and backward passes for each."""
    if steps < 1:
        raise InputError(f"steps is {steps!r}. heedmap expected at least 1.")
    with recorded(model, inputs, wiring, verify) as (recording, wired):
        every = [
            replace(asked, value=asked.value.detach())
            for asked in questions(model, inputs, targets, recording, wired, True, verify)
        ]
        recording.forget()
    explanations = []
    for asked in every:
        given = integrated(Again.of(model, inputs, asked, batch_size), steps, progress)
        relevance, pixels = placed("ig", given, asked, wired)
        starts = {stream: torch.zeros_like(flow) for stream, flow in relevance.items()}
        told = {"steps": str(steps)}
        explained = asked.answered("ig:zero", "", relevance, starts, wired, ["every input"], told)
        explanations.append(replace(explained, pixels=pixels))
    return explanations


def integrated(again: Again, steps: int, progress: Progress | None = None) -> dict[str, Tensor]:
    """Of every input on the path its numbers times the mean of their gradients, in its own shape."""
    examples = len(again.asked.value)
    at = [(step + 0.5) / steps for step in range(steps)]
    total: dict[str, Tensor] = {}
    for part in again.parts(steps, progress):
        kept: dict[str, list[tuple[Tensor, Tensor]]] = {}
        scale = Scaled(factors(at[part], examples), kept)
        runs = len(at[part])
        with graph_on():
            with scale:
                output = again.run(again.given(runs, scale.take))
            scale.check()
            value = again.value(output, runs)
            of = [leaf for leaves in kept.values() for leaf, _ in leaves]
            found = iter(torch.autograd.grad(value.sum(), of, allow_unused=True))
        for name, leaves in kept.items():
            for (leaf, base), gradient in zip(leaves, found, strict=False):
                gradient = torch.zeros_like(leaf) if gradient is None else gradient
                product = (gradient * base).to(torch.promote_types(base.dtype, torch.float32))
                total[name] = total.get(name, 0) + product.unflatten(0, (runs, -1)).sum(0) / steps
    return total
