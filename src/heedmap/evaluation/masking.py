"""Hiding parts of pictures from a model, in the order in which a map ranks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heedmap import dropping
from heedmap.errors import InputError, UnsupportedError
from heedmap.layouts import Grid

ORDERS = {"positive": "most relevant first", "negative": "least relevant first"}
MASKS = {
    "mean": "the processor's mean colour, which is 0 once it is normalised",
    "zero": "black",
    "drop": "no token at all: taken out after positions were added",
}


def places(scores: np.ndarray, chance: np.ndarray, order: str) -> np.ndarray:
    """When each unit (picture, unit) is hidden: 0 first. Ties fall by chance; what has no score, NaN, comes last."""
    wanted = -scores if order == "positive" else scores
    ranked = np.lexsort((chance, wanted, np.isnan(scores)))
    return np.argsort(ranked, axis=-1)


def counts(units: int, steps: Sequence[float]) -> list[int]:
    """How many are hidden at each step: int(units * step), however the step was rounded in binary."""
    return [int(units * step + 1e-9) for step in steps]


def fill(processor: Any, mask: str) -> Tensor:
    """What stands for a hidden pixel, after normalisation: (channel, 1, 1)."""
    normal = getattr(processor, "do_normalize", False)
    if mask == "mean" and not normal:
        raise InputError("This model's processor does not normalise, so it has no mean colour. Take mask='zero'.")
    mean, spread = (torch.tensor(getattr(processor, name) if normal else [0.0]) for name in ("image_mean", "image_std"))
    colour = torch.zeros_like(mean) if mask == "mean" else -mean / (spread if normal else 1)
    return colour.reshape(-1, 1, 1)


def hidden(pixels: Tensor, where: Tensor, colour: Tensor) -> Tensor:
    """Pictures (picture, channel, height, width) with the cells of `where` (picture, row, column) in one colour."""
    (height, width), (rows, columns) = pixels.shape[-2:], where.shape[-2:]
    whole = where.repeat_interleave(height // rows, 1).repeat_interleave(width // columns, 2)
    return torch.where(whole[:, None], colour.to(pixels), pixels)


def upsampled(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (picture, row, column) at every pixel, bilinear."""
    maps = torch.from_numpy(cells)[:, None]
    return nn.functional.interpolate(maps, (height, width), mode="bilinear", align_corners=False)[:, 0].numpy()


# ---- tokens left out


def left(grid: Grid, tokens: int, where: Tensor) -> Tensor:
    """The tokens (picture, token) that stay when the patches of `where` (picture, row, column) go."""
    gone = torch.zeros(len(where), tokens, dtype=torch.bool)
    gone[:, grid.first : grid.first + grid.rows * grid.columns] = where.flatten(1).cpu()
    return (~gone).nonzero()[:, 1].reshape(len(where), -1)


def check_drop(module: nn.Module, pixels: Tensor, grid: Grid, tokens: int) -> None:
    """Refuse a model that knows a token's place by more than what was added to it."""
    patches = slice(grid.first, grid.first + grid.rows * grid.columns)
    try:
        dropping.check_drop(module, lambda: module(pixel_values=pixels[:1]).logits, 1, tokens, patches)
    except UnsupportedError as error:
        raise InputError(f"{error} Take mask='mean' or 'zero'.") from error
