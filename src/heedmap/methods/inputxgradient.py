"""Input times gradient, an anchor: what the answer's slope says of the input, no attention looked at.

    s = sum over channels of x * (dy / dx)

x is what enters the model. Of a picture (channel, height, width) every pixel gets a number, `e.pixels`, and its tokens
none; of vectors, such as LXMERT's boxes, every token does; of words, which have no slope, x is the vector that the
model looks up for each of them first. Numbers are signed.

A stream that is made of several inputs gets none for its tokens: the order in which they stand is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heedmap.capture import Recording
from heedmap.checking import recorded
from heedmap.methods.asking import questions
from heedmap.methods.entering import placed
from heedmap.records import Explanation
from heedmap.streams import Declaration

TAPPED = "TapBackward"  # the node with which the graph begins where tokens are laid out


def inputxgradient(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    wiring: Declaration | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them."""
    explanations = []
    begun = _Begun()
    with begun, recorded(model, inputs, wiring, verify, edits, stems=True) as (recording, wired):
        entered = begun.entered(recording)
        for asked in questions(model, inputs, targets, recording, wired, True, verify):
            tensors = list(entered.values())
            found = torch.autograd.grad(asked.value.sum(), tensors, retain_graph=asked.more, allow_unused=True)
            products = {name: _product(x, g) for (name, x), g in zip(entered.items(), found, strict=True)}
            relevance, pixels = placed("inputxgradient", products, asked, wired)
            starts = {stream: torch.zeros_like(each) for stream, each in relevance.items()}
            where = [f"{name}, as it enters the model" for name in entered]
            e = asked.answered("inputxgradient:sum", "", relevance, starts, wired, where)
            explanations.append(replace(e, pixels=pixels))
    return explanations


class _Begun(TorchFunctionMode):
    """The tensors with which the graph begins, by the number of their base."""

    def __init__(self) -> None:
        super().__init__()
        self._met: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in (*args, *(kwargs or {}).values()):
            node = given.grad_fn if isinstance(given, Tensor) else None
            if type(node).__name__ == TAPPED and node.index < 0:  # type: ignore[union-attr]
                self._met.setdefault(-1 - node.index, given)  # type: ignore[union-attr]
        return func(*args, **(kwargs or {}))

    def entered(self, recording: Recording) -> dict[str, Tensor]:
        """What enters by each input: itself, or the vectors that it looks up first."""
        found: dict[str, Tensor] = {}
        for number, tensor in sorted(self._met.items()):
            operation, origin = recording.bases[number].operation, recording.origin(tensor)
            names = origin.names if origin else 0
            texts = [n.text for i, n in enumerate(recording.names) if names & 1 << i and n.kind == "input"]
            if len(texts) == 1 and operation in (texts[0], "embedding"):
                found.setdefault(texts[0], tensor)
        return found


def _product(x: Tensor, gradient: Tensor | None) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.detach().to(dtype) * (torch.zeros_like(x) if gradient is None else gradient).to(dtype)
