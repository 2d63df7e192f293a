"""Which number of an output is explained: one logit of the last row, or a random direction of the last row's state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# In this order; what is not named comes after, as the output has it.
FIELDS = (
    "logits",
    "prediction_logits",
    "logits_per_image",
    "class_queries_logits",
    "start_logits",
    "itm_score",
    "prediction_outputs",
    "reconstruction",
    "predicted_depth",
    "last_hidden_state",
    "image_embeds",
    "text_embeds",
    "embeds",
    "pooler_output",
)
TIMES = 20.0  # a map grows with its target; beside the identity products of two small maps would not be seen


@dataclass(frozen=True)
class Ask:
    """`field` of an output, its last row but for the first example; () where the output is itself a tensor."""

    field: tuple[Any, ...]

    def __call__(self, output: Any) -> Tensor:
        for name in self.field:
            output = output[name]
        row = output
        if row.ndim == 4:  # a picture, or a map for each class
            row = row[:, :, row.shape[2] // 2, row.shape[3] // 2]
        while row.ndim > 2:
            row = row[:, -1]
        if row.ndim < 2:
            row = row.reshape(1, -1) if row.ndim == 0 or len(row) > 1 else row[:, None]
        if "logits" in self.field and row.shape[-1] > 3:
            return TIMES * row[:1, 3]
        noise = torch.randn(row.shape[-1], generator=torch.Generator().manual_seed(7)).to(row)
        return TIMES * (row[:1] * noise).sum(-1)

    def __str__(self) -> str:
        return ".".join(map(str, self.field)) or "output"


def asked(output: Any) -> Ask | None:
    """What to ask of an output like this: the first field by FIELDS that holds real numbers with a gradient."""
    found = list(_tensors(output, ()))
    order = {name: place for place, name in enumerate(FIELDS)}
    found.sort(key=lambda each: min((order.get(part, len(order)) for part in each[0]), default=0))
    return next((Ask(path) for path, tensor in found if tensor.numel() and tensor.isfinite().all()), None)


def _tensors(output: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.requires_grad:
            yield path, output
    elif isinstance(output, (Mapping, list, tuple)) and len(path) < 3:
        pairs = output.items() if isinstance(output, Mapping) else enumerate(output)
        for name, value in pairs:
            yield from _tensors(value, (*path, name))
