"""Small hand-written models, one step from a plain stack of attention, and the papers' row for a plain stack."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKENS, CHANNELS, HEADS, CLASSES = 9, 8, 2, 5


class Attend(nn.Module):
    """Attention of `x` to `y`, or to keys from `y` and values from `z`."""

    def __init__(self, core: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.core = core  # on (batch, head, token, channel)
        self.q, self.k, self.v, self.o = (nn.Linear(CHANNELS, CHANNELS) for _ in range(4))

    def forward(self, x: Tensor, y: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        y = x if y is None else y
        z = y if z is None else z
        q, k, v = (f(t).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f, t in ((self.q, x), (self.k, y), (self.v, z)))
        core = self.core or F.scaled_dot_product_attention
        return self.o(core(q, k, v).transpose(1, 2).flatten(2))


class Tower(nn.Module):
    """Three attentions and what tempts between them; `path(self, *inputs)` is the forward pass."""

    def __init__(self, path: Callable[..., Tensor], core: Callable | None = None) -> None:
        super().__init__()
        self.path = path
        self.a, self.b, self.c = (Attend(core) for _ in range(3))
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)
        self.conv_k = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)
        self.mixing = nn.Linear(TOKENS, TOKENS)
        self.head = nn.Linear(CHANNELS, CLASSES)
        self.head2 = nn.Linear(CHANNELS, CLASSES)
        self.eval().double()
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.path(self, x) if y is None else self.path(self, x, y)

    def convolve(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2)).transpose(1, 2)

    def mix(self, x: Tensor) -> Tensor:
        return self.mixing(x.transpose(1, 2)).transpose(1, 2)


def tokens(batch: int = 2, count: int = TOKENS) -> Tensor:
    return torch.randn(batch, count, CHANNELS, dtype=torch.float64)


@contextlib.contextmanager
def softmaxes() -> Iterator[list[Tensor]]:
    """Every softmax inside, in order; fused attention becomes a softmax and two products."""
    found: list[Tensor] = []
    own = torch.Tensor.softmax

    def observed(scores: Tensor, dim: int = -1, *args, **kwargs) -> Tensor:
        weights = own(scores, dim)
        found.append(weights if weights.requires_grad else weights.requires_grad_(True))
        return weights

    def fused(q: Tensor, k: Tensor, v: Tensor, *rest, **_) -> Tensor:
        assert not any(rest), "no mask, no dropout"
        return observed(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5) @ v

    with contextlib.ExitStack() as stack:
        for owner, name, new in (
            (torch, "softmax", observed),
            (F, "softmax", observed),
            (torch.Tensor, "softmax", observed),
            (F, "scaled_dot_product_attention", fused),
        ):
            stack.enter_context(mock.patch.object(owner, name, new))
        yield found


def maps(model: nn.Module, inputs: Sequence[Tensor], label: int) -> list[Tensor]:
    """gradient x weights, mean over heads, of every attention of one run: (batch, query, key)."""
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with softmaxes() as found:
        value = model(*inputs)[:, label]
    torch.backends.mha.set_fastpath_enabled(fast)
    for parameter, was in zip(model.parameters(), wanted, strict=True):
        parameter.requires_grad_(was)
    weights = [each for each in found if each.ndim > 2]
    gradients = torch.autograd.grad(value.sum(), weights)
    products = [(g * a).detach() for g, a in zip(gradients, weights, strict=True)]
    return [each.reshape(len(value), -1, *each.shape[-2:]).mean(1) for each in products]


def moved(maps: Sequence[Tensor], moves: Mapping[int, Tensor]) -> Tensor:
    """The same where tokens are moved after some calls, by a matrix (new token, old token) for each of these."""
    start = relevance = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype)
    for number, each in enumerate(maps):
        relevance = relevance + each @ relevance
        if number in moves:
            relevance, start = moves[number] @ relevance, moves[number] @ start
    return (relevance - start)[:, 0]


def flowed(maps: Sequence[Tensor], row: int = 0) -> Tensor:
    """The row of the rollout of a plain stack: (I + map) ... (I + map) - I."""
    identity = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype)
    relevance = identity
    for each in maps:
        relevance = relevance + each @ relevance
    return (relevance - identity)[:, row]
