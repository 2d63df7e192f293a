"""Muon for the matrices inside the layers, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal (Jordan et al. 2024), all matrices of one shape at once.

    `torch.optim.Muon` takes one matrix at a time; at these widths stacking them is what makes it cheap. The update is
    scaled to the size of AdamW's (Liu et al. 2025), so that one learning rate serves both.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        params = list(params)
        shapes = sorted({tuple(p.shape) for p in params})
        groups = [{"params": [p for p in params if tuple(p.shape) == shape]} for shape in shapes]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            params = group["params"]
            gradient = torch.stack([p.grad for p in params])
            state = self.state[params[0]]
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
            velocity = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            update = orthogonal(gradient.lerp(velocity, group["momentum"]))
            size = 0.2 * max(gradient.shape[1:]) ** 0.5
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, list(update.unbind()), alpha=-group["lr"] * size)


def orthogonal(stack: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """Singular values moved to about 1 by Newton-Schulz steps; the coefficients are Jordan's."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = stack.shape[1] > stack.shape[2]
    x = (stack.mT if tall else stack).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(stack.dtype)


class Optimizers:
    """Several optimizers that step as one; the learning rate of each follows one factor."""

    def __init__(self, *optimizers: torch.optim.Optimizer):
        self.optimizers = optimizers
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]

    def step(self, factor: float) -> None:
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, state_dict: list[dict]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict, strict=True):
            optimizer.load_state_dict(state)


def optimizers(model: nn.Module, lr: float, rest: float, decay: float = 0.05) -> Optimizers:
    """Matrices inside layers go to Muon at `lr`, everything else to AdamW at `rest`."""
    inside = {n for n, p in model.named_parameters() if p.requires_grad and p.ndim == 2 and "layers." in n}
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if n in inside]
    others = [p for n, p in named if n not in inside]
    adam = torch.optim.AdamW(others, lr=rest, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return Optimizers(Muon(matrices, lr, weight_decay=decay), adam) if matrices else Optimizers(adam)
