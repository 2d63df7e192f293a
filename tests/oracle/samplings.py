"""Methods that mask a picture, and Grad-ECLIP, from their equations: a tiny ViT whose parts are known by name.

Nothing is taken from the package; what is drawn by chance is drawn here as their documentation says, from one seed.
"""

from __future__ import annotations

import numpy as np
import torch
from dense import Array
from paths import run


def features(model, pixels) -> Array:
    """What enters the last block's attention, normalised: (batch, token, channel)."""
    kept = []
    hook = model.vit.layers[-1].layernorm_before.register_forward_hook(lambda _, given, output: kept.append(output))
    with torch.no_grad():
        model(pixel_values=pixels)
    hook.remove()
    return kept[0].numpy()


def blocks(model, pixels) -> list[Array]:
    """What leaves each block."""
    kept, hooks = [], []
    for layer in model.vit.layers:
        hooks.append(layer.register_forward_hook(lambda _, given, output: kept.append(output)))
    with torch.no_grad():
        model(pixel_values=pixels)
    for hook in hooks:
        hook.remove()
    return [each.numpy() for each in kept]


def probability(logits, index: int) -> Array:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True))[..., index]


def minmax(x: Array) -> Array:
    return (x - x.min()) / (x.max() - x.min()) if x.max() > x.min() else np.zeros_like(x)


def complete_linkage(distance: Array, threshold: float) -> list[list[int]]:
    """Join the two clusters whose farthest members are nearest, while they are near enough."""
    clusters = [[i] for i in range(len(distance))]
    while len(clusters) > 1:
        far = {
            (a, b): distance[np.ix_(clusters[a], clusters[b])].max()
            for a in range(len(clusters))
            for b in range(a + 1, len(clusters))
        }
        (a, b), least = min(far.items(), key=lambda item: item[1])
        if least > threshold:
            break
        clusters[a] += clusters.pop(b)
    return clusters


def vit_cx(model, pixels, index: int, side: int, threshold: float, spread: float, seed: int) -> Array:
    """One example: pixels (1, channel, height, width), `side` patches in a row."""
    tokens = features(model, pixels)[0, 1:]
    maps = torch.tensor(tokens.T.reshape(1, -1, side, side))
    maps = torch.nn.functional.interpolate(maps, pixels.shape[-2:], mode="bilinear", align_corners=False)[0].numpy()
    maps = np.stack([minmax(each) for each in maps])
    flat = maps.reshape(len(maps), -1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    groups = sorted(sorted(group) for group in complete_linkage(1 - unit @ unit.T, threshold))
    masks = [minmax(maps[group].sum(0)) for group in groups]

    def p(x) -> float:
        with torch.no_grad():
            return float(probability(model(pixel_values=x).logits.numpy(), index)[0])

    generator = torch.Generator().manual_seed(seed)
    total, shown = np.zeros(pixels.shape[-2:]), sum(masks)
    for mask in masks:
        e = torch.randn(pixels.shape[1:], generator=generator).to(pixels) * spread
        m = torch.tensor(mask)
        s = p(pixels * m + e * (1 - m)) - p(pixels + e * (1 - m)) + p(pixels)
        total += s * mask / shown
    return total / len(masks)


def lloyd(points: Array, count: int, seed: int, rounds: int = 50) -> Array:
    begin = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:count].numpy()
    means = points[begin].copy()
    for _ in range(rounds):
        nearest = np.array([np.square(means - point).sum(1).argmin() for point in points])
        for k in range(len(means)):
            if (nearest == k).any():
                means[k] = points[nearest == k].mean(0)
    return means


def given_some(model, pixels, patches: Array) -> Array:
    """The logits of a ViT that is given [CLS] and some patches, left out after positions were added."""
    with torch.no_grad():
        states = model.vit.embeddings(pixels)[:, [0, *(1 + patches)]]
        for layer in model.vit.layers:
            states = layer(states)
        return model.classifier(model.vit.layernorm(states)[:, 0]).numpy()


def tis(model, pixels, index: int, masks: int, keep: float, seed: int) -> Array:
    """One example, of each patch."""
    points = np.concatenate([each[0, 1:].T for each in blocks(model, pixels)])
    total, often = np.zeros(points.shape[1]), np.zeros(points.shape[1])
    for mean in lloyd(points, masks, seed):
        best = np.argsort(-mean)[: int(keep * len(mean))]
        total[best] += probability(given_some(model, pixels, best), index)[0]
        often[best] += 1
    return np.divide(total, often, out=np.full(len(total), np.nan), where=often > 0)


def joined(x: Array) -> Array:
    """Heads side by side: (batch, token, head * channel)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def stretched(q: Array, k: Array) -> Array:
    """Cosines of q (batch, channel) with k (batch, token, channel) but the first token's, from 0 to 1."""
    cosine = np.einsum("bc,bnc->bn", q, k) / np.linalg.norm(q, axis=-1)[:, None] / np.linalg.norm(k, axis=-1)
    low, high = (f(cosine[:, 1:], axis=1)[:, None] for f in (np.min, np.max))
    return (cosine - low) / (high - low)


def grad_eclip(model, inputs, target, form: str) -> Array:
    """The patches' map of a ViT that reads [CLS]."""
    clean = run(model, inputs, target)
    last = len(clean.weights) - 1
    heads = clean.weights[last].shape[1]
    q, k, v = (joined(each[last]) for each in (clean.queries, clean.keys, clean.values))
    if form == "multi-head":
        g = joined(clean.of_outputs[last])[:, 0]
        alike = np.mean([stretched(clean.queries[last][:, h, 0], clean.keys[last][:, h]) for h in range(heads)], axis=0)
    else:
        weights = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]))
        other = run(model, inputs, target, {last: np.repeat(weights[:, None], heads, 1)})
        g = joined(other.of_outputs[last])[:, 0]
        if form == "official":
            o = model.vit.layers[last].attention.o_proj
            w, b = o.weight.detach().double().numpy(), o.bias.detach().double().numpy()
            q, k = q @ w.T + b, k @ w.T + b
        alike = stretched(q[:, 0], k)
    return np.maximum(alike * np.einsum("bc,bnc->bn", g, v), 0)[:, 1:]
