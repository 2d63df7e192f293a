"""Layer-wise relevance propagation through a ViT, written out block by block: one image, float64 numpy.

Nothing is taken from the package and nothing is recorded: the forward pass below is a second writing of the model, from
its parameters alone, and every rule is a formula at the place where the model has the operation. `orig` are the rules
that take the positive and the negative part of a linear map each by itself, and do not rescale sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from dense import Array

EPS = 1e-9


@dataclass(frozen=True)
class Passed:
    tokens: Array  # (token,), what arrives where the first block begins
    weights: tuple[Array, ...]  # of each block, (head, query, key)
    pixels: Array  # (y, x)
    totals: tuple[float, ...]  # of all relevance: at the logits, then where each block begins, last block first


def share(a: Array, b: Array) -> Array:
    return np.where(b == 0, 0.0, a / np.where(b == 0, 1.0, b + EPS))


def through_linear(x: Array, weight: Array, relevance: Array, orig: bool) -> Array:
    """x (token, in), weight (out, in)."""
    up, down = np.maximum(x, 0), np.minimum(x, 0)
    plus, minus = np.maximum(weight, 0), np.minimum(weight, 0)
    z1, z2 = up @ plus.T, down @ minus.T
    if orig:
        return up * (share(relevance, z1) @ plus) + down * (share(relevance, z2) @ minus)
    s = share(relevance, z1 + z2)
    return up * (s @ plus) + down * (s @ minus)


def through_sum(u: Array, v: Array, relevance: Array, orig: bool) -> tuple[Array, Array]:
    s = share(relevance, u + v)
    a, b = u * s, v * s
    if orig:
        return a, b
    whole, total = abs(a.sum()) + abs(b.sum()), relevance.sum()
    return tuple(each * share(share(abs(each.sum()), whole) * total, each.sum()) for each in (a, b))


def through_product(a: Array, b: Array, relevance: Array) -> tuple[Array, Array]:
    """a (..., i, j) times b (..., j, k)."""
    s = share(relevance, a @ b)
    return a * (s @ b.swapaxes(-1, -2)) / 2, b * (a.swapaxes(-1, -2) @ s) / 2


class Vit:
    """Parameters by their names; `forward` keeps what the rules need."""

    def __init__(self, parameters: Mapping[str, Array], blocks: int, heads: int, patch: int, eps: float) -> None:
        self.parameters = {name: np.asarray(each, dtype=np.float64) for name, each in parameters.items()}
        self.blocks, self.heads, self.patch, self.eps = blocks, heads, patch, eps

    def __call__(self, name: str) -> Array:
        return self.parameters[name]

    def linear(self, name: str, x: Array) -> Array:
        return x @ self(f"{name}.weight").T + self(f"{name}.bias")

    def norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.eps)
        return scaled * self(f"{name}.weight") + self(f"{name}.bias")

    def split(self, x: Array) -> Array:
        return x.reshape(len(x), self.heads, -1).transpose(1, 0, 2)

    def joined(self, x: Array) -> Array:
        return x.transpose(1, 0, 2).reshape(x.shape[1], -1)

    def cut(self, image: Array) -> Array:
        channels, height, width = image.shape
        p = self.patch
        grid = image.reshape(channels, height // p, p, width // p, p)
        return grid.transpose(1, 3, 0, 2, 4).reshape(-1, channels * p * p)

    def uncut(self, patches: Array, shape: Sequence[int]) -> Array:
        channels, height, width = shape
        p = self.patch
        grid = patches.reshape(height // p, width // p, channels, p, p)
        return grid.transpose(2, 0, 3, 1, 4).reshape(channels, height, width)

    def forward(self, image: Array) -> dict[str, Array]:
        kept: dict[str, Array] = {}
        projection = self("vit.embeddings.patch_embeddings.projection.weight").reshape(
            len(self("vit.embeddings.patch_embeddings.projection.bias")), -1
        )
        patches = self.cut(image) @ projection.T + self("vit.embeddings.patch_embeddings.projection.bias")
        kept["laid"] = np.concatenate([self("vit.embeddings.cls_token")[0], patches])
        x = kept["laid"] + self("vit.embeddings.position_embeddings")[0]
        for block in range(self.blocks):
            at = f"vit.layers.{block}"
            kept[f"{block}.in"] = x
            normed = kept[f"{block}.norm1"] = self.norm(f"{at}.layernorm_before", x)
            q, k, v = (self.split(self.linear(f"{at}.attention.{which}_proj", normed)) for which in "qkv")
            scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            kept |= {f"{block}.q": q, f"{block}.k": k, f"{block}.v": v, f"{block}.weights": weights}
            heard = kept[f"{block}.heard"] = self.joined(weights @ v)
            kept[f"{block}.attention"] = self.linear(f"{at}.attention.o_proj", heard)
            x = kept[f"{block}.middle"] = x + kept[f"{block}.attention"]
            kept[f"{block}.norm2"] = self.norm(f"{at}.layernorm_after", x)
            inside = self.linear(f"{at}.mlp.fc1", kept[f"{block}.norm2"])
            kept[f"{block}.gelu"] = inside * 0.5 * (1 + np.vectorize(math.erf)(inside / math.sqrt(2)))
            kept[f"{block}.mlp"] = self.linear(f"{at}.mlp.fc2", kept[f"{block}.gelu"])
            x = x + kept[f"{block}.mlp"]
        kept["first"] = self.norm("vit.layernorm", x)[:1]
        kept["tokens"] = x
        kept["logits"] = self.linear("classifier", kept["first"])[0]
        return kept

    def relevance(self, image: Array, label: int, orig: bool = False) -> Passed:
        kept = self.forward(image)
        one = np.eye(len(kept["logits"]))[label][None]
        first = through_linear(kept["first"], self("classifier.weight"), one, orig)
        r = np.zeros_like(kept["tokens"])
        r[0] = first[0]
        totals, weights = [1.0], []
        for block in reversed(range(self.blocks)):
            r, of_weights = self._block(block, kept, r, orig)
            weights.insert(0, of_weights)
            totals.append(r.sum())
        return Passed(r.sum(1), tuple(weights), self._pixels(image, kept, r, orig), tuple(totals))

    def _block(self, block: int, kept: Mapping[str, Array], r: Array, orig: bool) -> tuple[Array, Array]:
        at = f"vit.layers.{block}"
        skip, branch = through_sum(kept[f"{block}.middle"], kept[f"{block}.mlp"], r, orig)
        branch = through_linear(kept[f"{block}.gelu"], self(f"{at}.mlp.fc2.weight"), branch, orig)
        branch = through_linear(kept[f"{block}.norm2"], self(f"{at}.mlp.fc1.weight"), branch, orig)
        skip, branch = through_sum(kept[f"{block}.in"], kept[f"{block}.attention"], skip + branch, orig)
        branch = through_linear(kept[f"{block}.heard"], self(f"{at}.attention.o_proj.weight"), branch, orig)
        of_weights, of_v = through_product(kept[f"{block}.weights"], kept[f"{block}.v"], self.split(branch))
        of_q, of_k = through_product(kept[f"{block}.q"], kept[f"{block}.k"].swapaxes(1, 2), of_weights)
        normed = kept[f"{block}.norm1"]
        for which, each in (("q", of_q), ("k", of_k.swapaxes(1, 2)), ("v", of_v)):
            skip = skip + through_linear(normed, self(f"{at}.attention.{which}_proj.weight"), self.joined(each), orig)
        return skip, of_weights

    def _pixels(self, image: Array, kept: Mapping[str, Array], r: Array, orig: bool) -> Array:
        tokens, _ = through_sum(kept["laid"], self("vit.embeddings.position_embeddings")[0], r, orig)
        weight = self("vit.embeddings.patch_embeddings.projection.weight")
        weight = weight.reshape(len(weight), -1)
        plus, minus = np.maximum(weight, 0), np.minimum(weight, 0)
        x = self.cut(image)
        low, high = np.full_like(x, image.min()), np.full_like(x, image.max())
        s = tokens[1:] / (x @ weight.T - low @ plus.T - high @ minus.T + EPS)
        of_x = x * (s @ weight) - low * (s @ plus) - high * (s @ minus)
        return self.uncut(of_x, image.shape).sum(0)


def walked(weights: Sequence[Array], gradients: Sequence[Array], start: int = 0) -> Array:
    """T-Attr's C - I, (token, token): the product of I + mean over heads of (gradient * relevance of the weights)+."""
    identity = np.eye(weights[0].shape[-1])
    product = identity
    for of_weights, gradient in list(zip(weights, gradients, strict=True))[start:]:
        product = (identity + np.maximum(gradient * of_weights, 0).mean(0)) @ product
    return product - identity
