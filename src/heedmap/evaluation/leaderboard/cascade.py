"""Weights drawn anew, layer by layer from the top: what a map of the model must not survive.

A layer is a module with weights, under the shortest name that ends in a number ("vit.encoder.layer.3"), else its own.
Each weight gets a normal's numbers of its own mean and spread, so that the model stays a model of its kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn


def layers(module: nn.Module, run: Callable[[], object]) -> dict[str, list[nn.Module]]:
    """The layers that a run uses, by name, the last used first."""
    used: dict[str, list[nn.Module]] = {}

    def met(name: str) -> Callable[..., None]:
        def note(each: nn.Module, *_: object) -> None:
            held = used.pop(name, [])
            used[name] = [*held, *([] if any(each is one for one in held) else [each])]

        return note

    own = [(name, each) for name, each in module.named_modules() if any(True for _ in each.parameters(recurse=False))]
    handles = [each.register_forward_pre_hook(met(_layer(name))) for name, each in own]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return dict(reversed(used.items()))


def randomised(groups: Sequence[Sequence[nn.Module]], seed: int = 0) -> Iterator[int]:
    """Draw the weights of one layer after the other anew, in place; how many are done after each."""
    generator = torch.Generator().manual_seed(seed)
    done: set[int] = set()  # weights that layers share are drawn once
    for count, group in enumerate(groups, start=1):
        for each in group:
            for weight in each.parameters(recurse=False):
                if weight.data_ptr() not in done:
                    done.add(weight.data_ptr())
                    _redraw(weight, generator)
        yield count


def _redraw(weight: nn.Parameter, generator: torch.Generator) -> None:
    with torch.no_grad():
        spread = weight.std() if weight.numel() > 1 else weight.abs().sum()
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        weight.copy_(weight.mean() + spread * drawn)


def _layer(name: str) -> str:
    found = re.match(r".*?\.\d+(?=\.|$)", name)
    return found[0] if found else name
