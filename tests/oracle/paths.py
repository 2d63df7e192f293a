"""Methods that follow a path, from their equations: tam, dix, bi, and integrated gradients.

Nothing is taken from the package. `run` is one pass of a copy of the model with dense attention; `scaled` runs it on
alpha times its input. Models are told apart by name, and their parts are found by name.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
from dense import Array, dense_attention

EMBEDDING = {"bert": "bert.embeddings.word_embeddings"}  # what is scaled where the input is ids
BLOCKS = {"vit": ("vit.layers.{}", "attention.o_proj"), "bert": ("bert.encoder.layer.{}", "attention.output.dense")}


@dataclass(frozen=True)
class Run:
    """Of every call A, dY / dA, q, k, v and dY / do, all (batch, head, ...), in call order."""

    weights: list[Array]
    gradients: list[Array]
    queries: list[Array]
    keys: list[Array]
    values: list[Array]
    of_outputs: list[Array]
    value: Array


def run(model, inputs, target: Callable, replace: Mapping[int, Array] | None = None, scale: float = 1.0) -> Run:
    """One pass in float64; `replace` puts weights in place of a call's own; `scale` scales floating inputs."""
    model = copy.deepcopy(model).double().requires_grad_(True)
    inputs = {name: x.double() * scale if x.is_floating_point() else x for name, x in inputs.items()}
    kept = []

    def attention(query, key, value, *args, **options):
        weights, _ = dense_attention(query, key, value, *args, **options)
        if replace is not None and len(kept) in replace:
            weights = torch.tensor(replace[len(kept)], requires_grad=True)
        output = torch.einsum("...qk,...kd->...qd", weights, value)
        kept.append((weights, query, key, value, output))
        return output

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", attention))
        if scale != 1 and hasattr(model, "bert"):
            words = model.get_submodule(EMBEDDING["bert"])
            hook = words.register_forward_hook(lambda _, given, output: output * scale)
            stack.callback(hook.remove)
        value = target(model(**inputs))
    weights, queries, keys, values, outputs = (list(each) for each in zip(*kept, strict=True))
    found = torch.autograd.grad(value.sum(), [*weights, *outputs], allow_unused=True)
    found = [torch.zeros_like(t) if g is None else g for t, g in zip([*weights, *outputs], found, strict=True)]
    plain = [[each.detach().numpy() for each in several] for several in (weights, queries, keys, values, found)]
    calls = len(weights)
    return Run(plain[0], plain[4][:calls], *plain[1:4], plain[4][calls:], value.detach().numpy())


def positive(x: Array) -> Array:
    return np.maximum(x, 0.0)


def mean_gradient(model, inputs, target, points: Sequence[float]) -> Array:
    """dY / dA of the last call, averaged over points of the path."""
    return sum(run(model, inputs, target, scale=at).gradients[-1] for at in points) / len(points)


def tam(model, inputs, target, row: int, first: int, steps: int) -> Array:
    a = [each.mean(1) for each in run(model, inputs, target).weights]
    s = a[-1][:, row]
    for layer in range(len(a) - 2, first - 1, -1):
        s = np.einsum("bi,bij->bj", s, a[layer]) + s
    w = positive(mean_gradient(model, inputs, target, [k / (steps - 1) for k in range(steps)])).mean(1)
    return s * w[:, row]


def rollout(maps: Sequence[Array], row: int) -> Array:
    """The row of the product of (I + map), rows divided by their sum, the last on the left."""
    product = np.eye(maps[0].shape[-1])[None]
    for each in maps:
        step = np.eye(each.shape[-1]) + each
        product = step / step.sum(-1, keepdims=True) @ product
    return product[:, row]


def dix(model, inputs, target, row: int, steps: int, official: bool = False) -> Array:
    clean = run(model, inputs, target).weights
    total = 0
    for depth in (1, 2):
        source = clean[-1] if official else clean[-depth]
        runs = [run(model, inputs, target, {len(clean) - depth: k / steps * source}) for k in range(steps + 1)]
        maps = [
            np.mean([positive(each.gradients[layer] * each.weights[layer]) for each in runs], axis=0).mean(1)
            for layer in range(len(clean))
        ]
        total = total + rollout(maps, row)
    return total


def bi(model, inputs, target, row: int, first: int, steps: int, thetas: Sequence[Array] | None = None) -> Array:
    """Head-wise; given thetas (batch, token) of each call, token-wise."""
    clean = run(model, inputs, target)
    r = np.eye(clean.weights[0].shape[-1])[None]
    for layer in range(first, len(clean.weights)):
        a, g = clean.weights[layer], clean.gradients[layer] * (clean.weights[layer] > 0)  # a mask hides from both
        if thetas is None:
            share = np.abs(np.einsum("bhij,bhik->bhjk", a, g)).mean((2, 3))
            p = ((share / share.sum(1, keepdims=True))[:, :, None, None] * a).sum(1)
        else:
            p = a.mean(1) @ np.stack([np.diag(each) for each in thetas[layer]])
        r = r + p @ r
    w = positive(mean_gradient(model, inputs, target, np.linspace(0, 1, steps))).mean(1)
    return (w * np.abs(r))[:, row]


def thetas(name: str, model, inputs, target) -> list[Array]:
    """|v W_O| / |z| of each block, z what enters it."""
    block, projection = BLOCKS[name]
    entered, model = [], copy.deepcopy(model).double()
    calls = len(run(model, inputs, target).weights)
    for layer in range(calls):
        model.get_submodule(block.format(layer)).register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    values = run(model, inputs, target).values
    found = []
    for layer in range(calls):
        w_o = model.get_submodule(f"{block.format(layer)}.{projection}").weight.detach().numpy()
        v = values[layer].transpose(0, 2, 1, 3).reshape(*entered[layer].shape[:2], -1)
        found.append(np.linalg.norm(v @ w_o.T, axis=-1) / np.linalg.norm(entered[layer].detach().numpy(), axis=-1))
    return found


def integrated(model, inputs, target, steps: int) -> tuple[Array, Array]:
    """x times the mean gradient at the middles of the steps, in the shape of x; and what that should sum to."""
    model = copy.deepcopy(model).double()
    (name,) = (name for name, x in inputs.items() if x.is_floating_point())
    x = inputs[name].double()
    total = torch.zeros_like(x)
    for step in range(steps):
        at = (x * (step + 0.5) / steps).requires_grad_()
        total += torch.autograd.grad(target(model(**{**inputs, name: at})).sum(), at)[0]
    ends = [target(model(**{**inputs, name: each})).detach().numpy() for each in (x, torch.zeros_like(x))]
    return (x * total / steps).numpy(), ends[0] - ends[1]
