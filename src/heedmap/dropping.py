"""Tokens left out of a picture's stream, after positions were added to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.errors import UnsupportedError

ROUNDING = 300  # how many times the precision, relative to the largest logit, two ways to the same may differ


@contextmanager
def kept(module: nn.Module, tokens: Tensor) -> Iterator[None]:
    """While this lasts, the model reads only these of its tokens (picture, token), in this order."""
    embeddings = _embeddings(module)

    def shorten(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 3 or int(tokens.max()) >= output.shape[1]:
            raise _refusal(module, "what its embeddings give is no sequence of those tokens")
        return output.gather(1, tokens[..., None].expand(-1, -1, output.shape[2]))

    handle = embeddings.register_forward_hook(shorten)
    try:
        yield
    finally:
        handle.remove()


def check_drop(module: nn.Module, answer: Callable[[], Tensor], pictures: int, tokens: int, patches: slice) -> None:
    """Refuse a model that knows a token's place by more than what was added to it: it would mistake those that stay.

    `answer` runs it on so many pictures, of so many tokens each, and gives their logits.
    """
    turned = torch.arange(tokens)
    turned[patches] = turned[patches].flip(0)
    turned = turned.expand(pictures, -1)
    try:
        with torch.no_grad():
            before = answer()
            with kept(module, turned.to(before.device)):
                after = answer()
            with kept(module, turned[:, :-1].to(before.device)):
                answer()
    except (RuntimeError, IndexError, ValueError) as error:
        raise _refusal(module, "it fails when they are moved or fewer") from error
    alike = min(ROUNDING * torch.finfo(before.dtype).eps, 0.05)
    if (before - after).abs().max() > alike * before.abs().max():
        raise _refusal(module, "its answer changes when they are merely moved")


def _embeddings(module: nn.Module) -> nn.Module:
    found = getattr(getattr(module, getattr(module, "base_model_prefix", ""), None), "embeddings", None)
    if not isinstance(found, nn.Module):
        raise _refusal(module, "it has no embeddings in the place where a ViT has them")
    return found


def _refusal(module: nn.Module, why: str) -> UnsupportedError:
    return UnsupportedError(f"No token can be dropped from {type(module).__name__}: {why}.")
