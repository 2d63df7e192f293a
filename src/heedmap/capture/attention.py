"""One recorded call of attention, and its tensors in one layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heedmap.errors import InputError, UnsupportedError
from heedmap.records import Heads, Origin, Points


@dataclass
class Attention:
    """What a seam saw. Its tensors are let go once their row has been read (`release`)."""

    index: int
    module: str
    seam: str
    origins: tuple[Origin | None, Origin | None, Origin | None]  # queries, keys, values
    queries: Tensor | None  # (..., token, channel), as they entered the call; so are keys and values
    keys: Tensor | None
    values: Tensor
    order: tuple[int, ...]  # of the output's axes that puts them as (..., token, channel)
    lead: tuple[int, ...]  # the axes before (query, key): batch, head
    counts: tuple[int, int]  # query tokens, key tokens
    edge: Any  # the tap's place in the graph; None where the model itself switched the graph off
    weights: Tensor | None = None  # where the model formed them itself, or an edit stands in their place
    mask: Tensor | None = None
    causal: bool = False
    scale: float | None = None
    grouped: bool = False
    points: Points | None = None  # where it reads between tokens; its queries are then the weights of the points
    released: bool = False

    def release(self) -> None:
        self.queries = self.keys = self.weights = self.mask = self.edge = self.points = None
        self.values = torch.empty(0)
        self.released = True

    @property
    def batch(self) -> int | None:
        """The batch as the call shows it; None where heads may be folded into it."""
        return self.lead[0] if len(self.lead) == 2 else 1 if not self.lead else None

    def looks_back(self) -> bool:
        """Whether no token reads a later one: told by three rows, padding aside."""
        queries, keys = self.counts
        if queries != keys or queries < 2:
            return False
        if self.causal:
            return True
        rows = torch.tensor([0, queries // 2, queries - 2])
        if self.mask is not None and self.mask.shape[-2:] == (queries, keys):
            mask = self.mask[..., rows, :]
            heard = mask if mask.dtype == torch.bool else mask > -1e4
        elif self.weights is not None:
            weights = self.weights.detach()[..., rows, :]
            padding = weights.amax(-1, keepdim=True) == weights.amin(-1, keepdim=True)
            heard = (weights != 0) & ~padding
        else:
            return False
        later = torch.arange(keys) > rows[:, None]
        return bool(heard.any()) and not bool((heard & later.to(heard.device)).any())

    def heads(self, batch: int) -> Heads:
        """The call's tensors as (batch, head, token, channel)."""
        count = self.fold_count(batch)
        values = self._fold(self.values, batch)
        if self.points is not None and self.weights is None:
            return Heads(values, points=self.points)
        if self.weights is not None:
            weights = self._fold(self.weights, batch)
            return Heads(_spread(values, weights.shape[1], self.grouped), weights=weights)
        assert self.queries is not None
        assert self.keys is not None
        queries = self._fold(self.queries, batch)
        keys = _spread(self._fold(self.keys, batch), count, self.grouped)
        scale = 1 / math.sqrt(queries.shape[-1]) if self.scale is None else self.scale
        mask = None if self.mask is None else self._mask(self.mask, batch)
        return Heads(_spread(values, count, self.grouped), queries, keys, None, mask, self.causal, scale)

    def gradient(self, gradient: Tensor, batch: int) -> Tensor:
        """The gradient of the call's output, in the same layout."""
        return self._fold(gradient.permute(self.order), batch)

    def folded(self, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of queries, keys and values, with query heads that share a key head added up."""

        def fold(gradient: Tensor | None, own: Tensor | None) -> Tensor | None:
            if gradient is None or own is None or gradient.shape[1] == own.shape[1]:
                return gradient
            return gradient.unflatten(1, (own.shape[1], -1)).sum(2)

        queries, keys, values = gradients
        return queries, fold(keys, self.keys), fold(values, self.values)

    def fold_count(self, batch: int) -> int:
        """How many heads there are, when the target says how many examples there are."""
        if len(self.lead) == 2:
            return self.lead[1]
        if not self.lead:
            return 1
        if self.lead[0] % batch:
            raise InputError(
                f"Call {self.index} ({self.module}) attends in {self.lead[0]} groups, but the target gives {batch} "
                "numbers: the groups are not heads of examples. heedmap expected one number per example of a stream."
            )
        return self.lead[0] // batch

    def _fold(self, tensor: Tensor, batch: int) -> Tensor:
        if tensor.ndim == 2:
            return tensor[None, None]
        if tensor.ndim == 3:
            return tensor.unflatten(0, (batch, -1)) if len(tensor) % batch == 0 else tensor[:, None]
        if tensor.ndim == 4:
            return tensor
        raise UnsupportedError(
            f"Call {self.index} ({self.module}) attends over {tensor.ndim} axes {tuple(tensor.shape)}; "
            "heedmap expected (batch, head, token, channel)."
        )

    def _mask(self, mask: Tensor, batch: int) -> Tensor:
        if mask.ndim == 3 and len(self.lead) == 1 and len(mask) == self.lead[0]:
            return mask.unflatten(0, (batch, -1))
        return mask[(None,) * (4 - mask.ndim)]


def _spread(tensor: Tensor, heads: int, grouped: bool) -> Tensor:
    """Give every query head its key and value head."""
    if tensor.shape[1] == heads:
        return tensor
    if grouped or tensor.shape[1] == 1:
        return tensor.repeat_interleave(heads // tensor.shape[1], dim=1)
    raise InputError(f"{tensor.shape[1]} key heads cannot serve {heads} query heads.")
