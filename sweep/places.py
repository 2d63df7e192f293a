"""Where in a model's inputs a token comes from that enters: told by the gradient, without any attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Place = tuple[str, int, int]  # an input, and the first and the last of its numbers, or words, that are in the token


def places(tensor: Tensor, asked: Sequence[bool], leaves: Mapping[str, Tensor]) -> list[Place | None]:
    """`tensor` is (group, head, token, channel); the place of each row asked for, one group behind the other."""
    groups, _, tokens, _ = tensor.shape
    found: list[Place | None] = [None] * (groups * tokens)
    if not tensor.requires_grad:
        return found
    real = {name: leaf for name, leaf in leaves.items() if leaf.is_floating_point()}
    words = list(_looked_up(tensor, leaves))
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor)
    for row in (row for row, one in enumerate(asked) if one):
        ask = torch.zeros_like(tensor)
        group, token = divmod(row, tokens)
        ask[group, :, token] = noise[group, :, token]
        found[row] = _place(tensor, ask, real, words)
    return found


def lays_out(node: Any) -> bool:
    """Words looked up, an input, or the result of a call; a learned parameter is no content."""
    own = getattr(node, "variable", None)
    return "Embedding" in node.name() if own is None else not isinstance(own, nn.Parameter)


def _place(tensor: Tensor, ask: Tensor, real: Mapping[str, Tensor], words: Sequence[tuple[str, Any]]) -> Place | None:
    given = [*real.values(), *(torch.autograd.graph.GradientEdge(node, 0) for _, node in words)]
    gradients = torch.autograd.grad(tensor, given, ask, retain_graph=True, allow_unused=True) if given else ()
    for name, gradient in zip(real, gradients[: len(real)], strict=True):
        if gradient is not None and bool(gradient.any()):
            met = gradient.flatten().nonzero()[:, 0]
            return name, int(met[0]), int(met[-1])
    for (name, _), gradient in zip(words, gradients[len(real) :], strict=True):
        if gradient is not None and bool(gradient.any()):
            met = gradient.flatten(0, -2).any(-1).nonzero()[:, 0]
            return name, int(met[0]), int(met[-1])
    return None


def _looked_up(tensor: Tensor, leaves: Mapping[str, Tensor]) -> Iterator[tuple[str, Any]]:
    """The embeddings that a tensor was made of whose words are those of an input; positions are nobody's words."""
    met: set[Any] = set()
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        met.add(node)
        waiting.extend(each for each, _ in node.next_functions)
        if "EmbeddingBackward" not in node.name():
            continue
        saved: Any = node
        indices = saved._saved_indices
        for name, leaf in leaves.items():
            own = not leaf.is_floating_point() and leaf.numel() == indices.numel() and "position" not in name
            if own and bool((leaf.flatten() == indices.flatten()).double().mean() >= 0.5):
                yield name, node
