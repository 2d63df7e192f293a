"""Hiding parts of pictures from a model, in the order in which a map ranks them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heedmap.errors import InputError
from heedmap.layouts import Grid

ORDERS = {"positive": "most relevant first", "negative": "least relevant first"}
MASKS = {
    "mean": "the processor's mean colour, which is 0 once it is normalised",
    "zero": "black",
    "drop": "no token at all: taken out after positions were added",
}
ROUNDING = 300  # how many times the precision, relative to the largest logit, two ways to the same may differ


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


@contextmanager
def kept(module: nn.Module, tokens: Tensor) -> Iterator[None]:
    """While this lasts, the model reads only these of its tokens (picture, token), in this order."""
    embeddings = _embeddings(module)

    def shorten(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 3 or int(tokens.max()) >= output.shape[1]:
            raise InputError(_refusal(module, "what its embeddings give is no sequence of those tokens"))
        return output.gather(1, tokens[..., None].expand(-1, -1, output.shape[2]))

    handle = embeddings.register_forward_hook(shorten)
    try:
        yield
    finally:
        handle.remove()


def left(grid: Grid, tokens: int, where: Tensor) -> Tensor:
    """The tokens (picture, token) that stay when the patches of `where` (picture, row, column) go."""
    gone = torch.zeros(len(where), tokens, dtype=torch.bool)
    gone[:, grid.first : grid.first + grid.rows * grid.columns] = where.flatten(1).cpu()
    return (~gone).nonzero()[:, 1].reshape(len(where), -1)


def check_drop(module: nn.Module, pixels: Tensor, grid: Grid, tokens: int) -> None:
    """Refuse a model that knows a token's place by more than what was added to it: it would mistake those that stay."""
    turned = torch.arange(tokens)
    patches = slice(grid.first, grid.first + grid.rows * grid.columns)
    turned[patches] = turned[patches].flip(0)
    one = pixels[:1]
    try:
        with torch.no_grad():
            before = module(pixel_values=one).logits
            with kept(module, turned[None].to(one.device)):
                after = module(pixel_values=one).logits
            with kept(module, turned[None, :-1].to(one.device)):
                module(pixel_values=one)
    except (RuntimeError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(_refusal(module, "it fails when they are moved or fewer")) from error
    alike = min(ROUNDING * torch.finfo(before.dtype).eps, 0.05)
    if (before - after).abs().max() > alike * before.abs().max():
        raise InputError(_refusal(module, "its answer changes when they are merely moved"))


def _embeddings(module: nn.Module) -> nn.Module:
    found = getattr(getattr(module, getattr(module, "base_model_prefix", ""), None), "embeddings", None)
    if not isinstance(found, nn.Module):
        raise InputError(_refusal(module, "it has no embeddings in the place where a ViT has them"))
    return found


def _refusal(module: nn.Module, why: str) -> str:
    return f"No token can be dropped from {type(module).__name__}: {why}. Take mask='mean' or 'zero'."
