"""The form in which deformable attention is recognised: grids sampled at points, weighed, and added up.

found = grid_sample(values, places) of each level, side by side: (batch * head, channel, query, point)
output = (found * weights).sum(-1), where weights (batch * head, 1, query, point) come from a softmax over points
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from heedmap.capture.labels import Kept, tensors
from heedmap.records import Level, Points

SEAM = "grid_sample, sum"
JOINS = frozenset("stack cat concat concatenate".split())
MULTIPLIES = frozenset("mul __mul__ __rmul__ multiply".split())
NAMES = JOINS | MULTIPLIES | {"grid_sample", "flatten", "reshape", "view"}


class Found(NamedTuple):
    """What was found at the points of some levels; `apart` while levels are an axis of their own."""

    levels: tuple[Level, ...]
    grids: tuple[Tensor, ...]  # that were sampled, (batch * head, channel, height, width)
    apart: bool = False


class Weighed(NamedTuple):
    """What was found, multiplied by the weights of the points, and not yet added up."""

    levels: tuple[Level, ...]
    grids: tuple[Tensor, ...]
    taken: Tensor
    weights: Tensor

    def points(self) -> Points:
        return Points(self.weights[:, 0], self.taken, self.levels)

    def tokens(self) -> Tensor:
        """The tokens of all levels, (batch * head, token, channel)."""
        return torch.cat([grid.flatten(2) for grid in self.grids], -1).mT


class Sampling:
    """Keeps what was sampled until it is weighed and added up."""

    def __init__(self) -> None:
        self.loose = 0  # how often a grid was sampled that has become no call
        self._found = Kept()
        self._weighed = Kept()

    def note(self, name: str, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        """Follow what was sampled through an operation."""
        if name == "grid_sample":
            self._sampled(*args, result=result, **kwargs)
            return
        operands = list(tensors((args, kwargs)))
        found = [self._found.get(tensor) for tensor in operands]
        if not any(found) or not isinstance(result, Tensor):
            return
        if name in MULTIPLIES:
            self._multiplied(operands, found, result)
        elif name in ("flatten", "reshape", "view"):
            self._flattened(found[0], operands[0], result)
        elif all(found):
            self._joined(name, args, kwargs, found, result)

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is what was found at points, and is followed."""
        return self._found.get(tensor) is not None

    def summed(self, args: Any, kwargs: Mapping[str, Any], result: Tensor) -> Weighed | None:
        """What has just been added up, if it is all that the points gave."""
        weighed = self._weighed.get(args[0]) if args else None
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
        return weighed if axis in (-1, 3, (-1,), [-1]) and result.ndim == 3 else None

    def _sampled(
        self,
        input: Tensor,
        grid: Tensor,
        mode: str = "bilinear",
        padding_mode: str = "zeros",
        align_corners: bool | None = None,
        *,
        result: Tensor,
    ) -> None:
        self.loose += 1
        if input.ndim == 4 and mode in ("bilinear", "nearest"):
            options = {"mode": mode, "padding_mode": padding_mode, "align_corners": bool(align_corners)}
            level = Level((input.shape[2], input.shape[3]), grid, options)
            self._found.set(result, Found((level,), (input,)))

    def _joined(self, name: str, args: Any, kwargs: Any, found: Sequence[Found], result: Tensor) -> None:
        """Levels side by side: along the axis of points, or along one of their own before it."""
        axis = kwargs.get("dim", args[1] if len(args) > 1 else 0) % result.ndim
        if any(each.apart for each in found) or axis != 3 or result.ndim != (5 if name == "stack" else 4):
            return
        levels = tuple(level for each in found for level in each.levels)
        grids = tuple(grid for each in found for grid in each.grids)
        self._found.set(result, Found(levels, grids, apart=name == "stack"))

    def _flattened(self, found: Found | None, tensor: Tensor, result: Tensor) -> None:
        if found is not None and found.apart and result.ndim == 4 and result.shape[:3] == tensor.shape[:3]:
            self._found.set(result, found._replace(apart=False))

    def _multiplied(self, operands: Sequence[Tensor], found: Sequence[Found | None], result: Tensor) -> None:
        if len(operands) != 2 or found[0] is found[1]:
            return
        (taken, own), (weights, other) = sorted(zip(operands, found, strict=True), key=lambda item: item[1] is None)
        lead, _, queries, points = result.shape if result.ndim == 4 else (0, 0, 0, 0)
        if own is None or own.apart or other is not None or weights.shape != (lead, 1, queries, points):
            return
        if taken.shape == result.shape:
            self._weighed.set(result, Weighed(own.levels, own.grids, taken, weights))
