"""heedmap's methods for Quantus, which measures explanations of classified pictures: the function it asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heedmap.api import explain
from heedmap.errors import InputError
from heedmap.methods.pictures import laid_out
from heedmap.records import Explanation
from heedmap.targets import logit

TAKES = "quantus_explain takes models that read the patches of one picture, in one stream, such as a ViT."


def quantus_explain(
    model: nn.Module,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    method: str = "heed",
    device: str | torch.device | None = None,
    **options: Any,
) -> np.ndarray:
    """What each pixel says for its picture's class, (batch, 1, height, width), from pictures and classes.

    A method that scores tokens gives every pixel its patch's number, and where a method is silent there is 0. `device`
    is where the model is; `options` are those of `explain`.
    """
    given, classes = np.asarray(inputs), np.asarray(targets)
    if given.ndim != 4 or classes.shape != given.shape[:1]:
        raise InputError(
            f"inputs is {given.shape}, targets {classes.shape}. heedmap expected pictures (batch, channel, height, "
            "width) and one class for each."
        )
    like = next(model.parameters(), torch.empty(0))
    pictures = torch.as_tensor(given, dtype=like.dtype, device=like.device if device is None else device)
    e = explain(model, pictures, logit([int(each) for each in classes]), method=method, **options)
    flat = _of_patches(e, model, pictures) if e.pixels is None else e.pixels
    return flat.nan_to_num()[:, None].float().cpu().numpy()


def _of_patches(e: Explanation, model: nn.Module, pictures: Tensor) -> Tensor:
    """(batch, height, width), every pixel with the number of the patch that it lies in."""
    patches = laid_out(model, pictures, TAKES)
    (flow,) = e.relevance.values()
    cells = flow[:, patches.tokens].unflatten(1, (1, patches.rows, patches.columns))
    return nn.functional.interpolate(cells, pictures.shape[-2:], mode="nearest-exact")[:, 0]
