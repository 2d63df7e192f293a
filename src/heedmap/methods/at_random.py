"""Random numbers, an anchor: what a method is worth that knows neither the model nor the target.

Every token of every stream gets a number of its own, uniform in [-1, 1], or in [0, 1] as `unsigned`. They hang on the
seed and on the example's input alone: the same whatever is asked, and in whatever batch an example stands.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from heedmap.checking import recorded
from heedmap.methods.asking import questions
from heedmap.records import Explanation
from heedmap.streams import Declaration


def at_random(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    signed: bool = True,
    seed: int = 0,
    wiring: Declaration | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Answer each target with noise; the model runs once, to be wired."""
    explanations = []
    with recorded(model, inputs, wiring, verify, edits) as (recording, wired):
        for asked in questions(model, inputs, targets, recording, wired, True, verify):
            relevance = {}
            for stream, tokens in wired.entered.items():
                batch = asked.examples(stream, wired)
                if not batch:
                    continue
                drawn = [_drawn(tokens, _checksum(inputs, i, batch, f"{seed} {stream}")) for i in range(batch)]
                numbers = torch.stack(drawn).to(asked.value.device)
                relevance[stream] = 2 * numbers - 1 if signed else numbers
            starts = {stream: torch.zeros_like(each) for stream, each in relevance.items()}
            name = "random:signed" if signed else "random:unsigned"
            explanations.append(asked.answered(name, "", relevance, starts, wired, [], {"seed": str(seed)}))
    return explanations


def _drawn(tokens: int, seed: int) -> Tensor:
    return torch.rand(tokens, generator=torch.Generator().manual_seed(seed))


def _checksum(inputs: Any, example: int, batch: int, salt: str) -> int:
    """Of all that one example is given."""
    found = zlib.crc32(salt.encode())
    for leaf in pytree.tree_leaves(inputs if isinstance(inputs, (tuple, list, Tensor)) else dict(inputs)):
        if isinstance(leaf, Tensor) and leaf.ndim and batch in (len(leaf), 1):
            part = (leaf[example] if len(leaf) == batch else leaf).detach().reshape(-1).cpu().contiguous()
            found = zlib.crc32(part.view(torch.uint8).numpy().tobytes(), found)
    return found
