"""Attention flow: against Edmonds and Karp, by its laws, and where it is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from builders import BY_NAME
from dense import share_of_rows
from readings import attention_flow, fused
from runs import dense_run, distance, lifted, model_of

import heedmap
from heedmap.errors import BrokenInstallError, UnsupportedError
from heedmap.methods.flow import greatest


def explained(name: str, batch: int) -> heedmap.Explanation:
    family = BY_NAME[name]
    torch.manual_seed(0)
    return heedmap.explain(model_of(name), lifted(family.inputs(batch), torch.float64), family.ask, method="flow")


def kept(weights: np.ndarray) -> np.ndarray:
    map = fused(weights)
    return (map + np.eye(map.shape[-1])) / (1 + map.sum(-1, keepdims=True))


@pytest.mark.parametrize("name", ["vit", "bert", "gpt2", "hand-one-head", "hand-many-heads", "nn-encoder"])
def test_as_edmonds_and_karp(name):
    """Also where the answer is read at all tokens."""
    run, e = dense_run(name, 3), explained(name, 3)
    (stream,) = e.streams
    layers, rows = [kept(a) for a in run.weights], share_of_rows(run.row_norms[-1])
    true = np.stack([attention_flow([each[i] for each in layers], rows[i]) for i in range(3)])
    assert distance(e[stream].numpy(), true / true.sum(1, keepdims=True)) <= 1e-6
    assert not e.starts[stream].any()


def test_two_towers_are_each_by_themselves():
    run, e = dense_run("clip", 3), explained("clip", 3)
    rows = share_of_rows(run.row_norms[1])
    true = np.stack([attention_flow([kept(a)[i] for a in run.weights[:2]], rows[i]) for i in range(3)])
    assert distance(e["pixel_values"].numpy(), true / true.sum(1, keepdims=True)) <= 1e-6


def drawn(depth: int, tokens: int = 6) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(depth)
    layers = [torch.rand(tokens, tokens, generator=generator, dtype=torch.float64) ** 4 for _ in range(depth)]
    row = torch.eye(tokens, dtype=torch.float64)[0]
    return [layer / layer.sum(-1, keepdim=True) for layer in layers], row


def halved(layer: torch.Tensor) -> torch.Tensor:
    return (layer + torch.eye(len(layer), dtype=layer.dtype)) / 2


def test_of_one_layer_it_is_the_layer():
    (layer,), row = drawn(1)
    assert torch.allclose(greatest([layer], row), halved(layer)[0], atol=1e-8)


def test_of_two_layers_it_is_the_sum_of_the_lesser():
    (last, first), row = drawn(2)
    true = torch.minimum(halved(last)[0][:, None], halved(first)).sum(0)
    assert torch.allclose(greatest([last, first], row), true, atol=1e-8)


@pytest.mark.parametrize("depth", [3, 6])
def test_it_lies_between_rollout_and_what_enters(depth):
    layers, row = drawn(depth)
    found = greatest(layers, row)
    rolled = row
    for layer in layers:
        rolled = rolled @ halved(layer)
    assert (found >= rolled - 1e-8).all()
    assert (found <= halved(layers[-1]).sum(0).clamp(max=1) + 1e-8).all()
    assert (found > rolled + 1e-3).any()


@pytest.mark.parametrize("name", ["detr", "lxmert", "t5", "siglip"])
def test_elsewhere_it_is_refused(name):
    with pytest.raises(UnsupportedError, match=r"flow takes models in which every stream reads itself alone: ViT"):
        explained(name, 1)


def test_without_scipy_it_says_what_to_install(monkeypatch):
    for name in ("scipy", "scipy.sparse", "scipy.sparse.csgraph"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BrokenInstallError, match=r"scipy is needed.*pip install 'heedmap\[eval\]'`?, or use rollout"):
        explained("vit", 1)
