"""A vision tower's layers, written out for training: few patches, matrices in bfloat16, only the rows that are read.

On a processor with AMX this is two to three times as fast as the model's own forward; with every patch and in float32
it computes the same (a test says so). The residual stream and the weights that are learned stay in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm, linear


@dataclass(frozen=True)
class Block:
    """One layer's modules, whatever its class calls them."""

    before: nn.LayerNorm
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    after: nn.LayerNorm
    up: nn.Linear
    down: nn.Linear
    heads: int


def vit_block(layer: Any) -> Block:
    a, mlp, heads = layer.attention, layer.mlp, layer.attention.num_attention_heads
    norms = layer.layernorm_before, layer.layernorm_after
    return Block(norms[0], a.q_proj, a.k_proj, a.v_proj, a.o_proj, norms[1], mlp.fc1, mlp.fc2, heads)


def clip_block(layer: Any) -> Block:
    a, mlp, heads = layer.self_attn, layer.mlp, layer.self_attn.num_heads
    norms = layer.layer_norm1, layer.layer_norm2
    return Block(norms[0], a.q_proj, a.k_proj, a.v_proj, a.out_proj, norms[1], mlp.fc1, mlp.fc2, heads)


def class_row(tokens: torch.Tensor, blocks: list[Block], dtype: torch.dtype) -> torch.Tensor:
    """What the layers make of the first token: the last one computes that row alone."""
    for block in blocks[:-1]:
        tokens = through(block, tokens, tokens, dtype)
    return through(blocks[-1], tokens[:, :1], tokens, dtype)[:, 0]


def through(block: Block, reading: torch.Tensor, read: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """One layer: the `reading` rows take from the `read` ones."""
    reading = reading + attention(block, reading, read, dtype)
    hidden = gelu(affine(normed(block.after, reading, dtype), block.up))
    return reading + affine(hidden, block.down)


def attention(block: Block, reading: torch.Tensor, read: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Softmax and two products: the fused kernel is many times slower in bfloat16 on a CPU."""
    batch, rows, width = reading.shape
    size = width // block.heads

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.view(batch, -1, block.heads, size).transpose(1, 2).contiguous()

    y = normed(block.before, read, dtype)
    x = y if reading is read else normed(block.before, reading, dtype)
    query = heads(affine(x, block.query, size**-0.5))
    weights = (query @ heads(affine(y, block.key)).mT).softmax(-1)
    mixed = (weights @ heads(affine(y, block.value))).transpose(1, 2).reshape(batch, rows, width)
    return affine(mixed, block.out)


def normed(norm: nn.LayerNorm, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(dtype)


def affine(x: torch.Tensor, layer: nn.Linear, scale: float = 1.0) -> torch.Tensor:
    return linear(x, (layer.weight * scale).to(x.dtype), (layer.bias * scale).to(x.dtype))


def keep_some(tokens: torch.Tensor, keep: int, generator: torch.Generator) -> torch.Tensor:
    """The first token and `keep` patches, drawn for each image; their positions are already added."""
    batch, count, width = tokens.shape
    if keep >= count - 1:
        return tokens
    order = torch.rand(batch, count - 1, generator=generator).argsort(1)[:, :keep].sort(1).values + 1
    order = order.to(tokens.device)[..., None].expand(-1, -1, width)
    return torch.cat((tokens[:, :1], tokens.gather(1, order)), 1)


def fastest_dtype(device: str) -> torch.dtype:
    """bfloat16 where matrices of it are fast: GPUs, and processors with AMX."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return torch.bfloat16 if device == "cuda" or amx() else torch.float32


def start_well(blocks: list[Block], positions: nn.Parameter, grid: int) -> None:
    """Positions begin as a sine grid, attention as in trained models (Trockman and Kolter 2023): tokens look at
    their like (query times key near the identity), and values are taken away (value times out near its negative)."""
    width = positions.shape[-1]
    with torch.no_grad():
        positions.view(-1, width)[1:] = sine_grid(grid, width)
        positions.view(-1, width)[0] = 0.0
        for block in blocks:
            like(block.query, block.key, block.heads)
            unlike(block.value, block.out)


def like(query: nn.Linear, key: nn.Linear, heads: int, noise: float = 0.7, identity: float = 0.7) -> None:
    """In each head, query times key is the best product of its rank to noise plus the identity."""
    width = query.weight.shape[1]
    size = width // heads
    for head in range(heads):
        target = noise * torch.randn(width, width) / width**0.5 + identity * torch.eye(width)
        left, values, right = torch.linalg.svd(target)
        rows = slice(head * size, (head + 1) * size)
        query.weight[rows] = (left[:, :size] * values[:size].sqrt()).T
        key.weight[rows] = values[:size].sqrt()[:, None] * right[:size]


def unlike(value: nn.Linear, out: nn.Linear, noise: float = 0.4, identity: float = 0.4) -> None:
    """Value times out is noise minus the identity."""
    width = value.weight.shape[1]
    target = noise * torch.randn(width, width) / width**0.5 - identity * torch.eye(width)
    left, values, right = torch.linalg.svd(target)
    out.weight.copy_(left * values.sqrt())
    value.weight.copy_(values.sqrt()[:, None] * right)


def sine_grid(grid: int, width: int) -> torch.Tensor:
    """A quarter each of sines and cosines of the row and of the column."""
    frequency = 100.0 ** (-torch.arange(width // 4) / (width // 4))
    place = torch.arange(grid)[:, None] * frequency
    wave = torch.cat((place.sin(), place.cos()), 1)
    rows, columns = wave[:, None].expand(-1, grid, -1), wave[None].expand(grid, -1, -1)
    return torch.cat((rows, columns), -1).reshape(grid * grid, width)
