"""ViT-CX, the baseline (Xie, Li, Cao and Zhang, IJCAI 2023): masks from a ViT's own features, and what each is worth.

    M_c  = the c-th channel of the patches' features, as the last attention reads them, enlarged to the pixels, 0 to 1
    M_i  = the channels of one cluster added up, 0 to 1      (complete linkage of 1 - cosine, cut at `threshold`)
    e_i  = noise of its own for every mask, `spread` wide
    s_i  = p(x * M_i + e_i * (1 - M_i)) - p(x + e_i * (1 - M_i)) + p(x)
    map(u) = mean over i of s_i M_i(u) / (sum over j of M_j(u))

p is the probability of the target: of a logit the softmax of its class, of an expression in logits that of each, of a
callable its own number. Pixels are scored (`e.pixels`), tokens are not. It runs forward only, twice for each mask; the
noise is drawn from `seed`, the same for every example. A map without contrast is 0, where the authors' code divides 0
by 0 and loses the cluster; a pixel that no mask shows is NaN. scipy clusters. It takes models that read the patches of
one picture, in one stream: ViT, DeiT, BEiT, DINOv2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.errors import InputError
from heedmap.installs import extra
from heedmap.methods.again import Again, Progress
from heedmap.methods.pictures import Viewed, viewed
from heedmap.records import Explanation
from heedmap.streams import Declaration

INSTEAD = "use tis"
TAKES = "vit-cx takes models that read the patches of one picture, in one stream, such as a ViT. Use heed or gae here."


def vit_cx(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    threshold: float = 0.1,
    spread: float = 0.1,
    seed: int = 0,
    batch_size: int = 32,
    wiring: Declaration | None = None,
    verify: str | bool = "once",
    progress: Progress | None = None,
) -> list[Explanation]:
    """Explain each target of one input: one forward and backward pass, and two forward passes for each mask."""
    if threshold <= 0 or spread < 0:
        raise InputError(f"threshold is {threshold}, spread {spread}. heedmap expected more than 0, and at least 0.")
    extra("scipy.cluster.hierarchy", INSTEAD)
    explanations = []
    for seen in viewed(model, inputs, targets, wiring, verify, TAKES):
        again = Again.of(model, inputs, seen.asked, batch_size)
        masks = [grouped(each, threshold) for each in enlarged(seen)]
        pixels = weighed(masks, scores(again, seen.name, masks, spread, seed, progress))
        told = {"masks": ", ".join(str(len(each)) for each in masks), "seed": str(seed)}
        explained = seen.answered("vit-cx:clean", seen.unscored(), ["every pixel"], told)
        explanations.append(replace(explained, pixels=pixels))
    return explanations


def enlarged(seen: Viewed) -> Tensor:
    """Every channel of the patches' features over the pixels, (batch, channel, height, width), each from 0 to 1."""
    patches = seen.patches
    maps = seen.features[:, patches.tokens].mT.unflatten(2, (patches.rows, patches.columns))
    return spanned(nn.functional.interpolate(maps, seen.size, mode="bilinear", align_corners=False))


def spanned(maps: Tensor) -> Tensor:
    """Maps (..., height, width) from 0 to 1; one without contrast is 0."""
    low = maps.amin((-2, -1), keepdim=True)
    wide = maps.amax((-2, -1), keepdim=True) - low
    return ((maps - low) / wide).where(wide > 0, maps.new_zeros(()))


def grouped(maps: Tensor, threshold: float) -> Tensor:
    """Maps (channel, height, width) that are alike put together, (cluster, height, width), in order of their first."""
    if len(maps) == 1:
        return maps
    hierarchy, lengths = extra("scipy.cluster.hierarchy", INSTEAD), extra("scipy.spatial.distance", INSTEAD)
    flat = nn.functional.normalize(maps.flatten(1), dim=1)
    distance = (1 - (flat @ flat.T).double()).clamp(min=0)
    distance = (distance + distance.T) / 2
    distance.fill_diagonal_(0)
    tree = hierarchy.linkage(lengths.squareform(distance.cpu().numpy(), checks=False), method="complete")
    labels = hierarchy.fcluster(tree, threshold, criterion="distance").tolist()
    order = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    of = torch.tensor([order[label] for label in labels], device=maps.device)
    joined = maps.new_zeros(len(order), *maps.shape[1:]).index_add_(0, of, maps)
    return spanned(joined)


def scores(
    again: Again, name: str, masks: Sequence[Tensor], spread: float, seed: int, progress: Progress | None
) -> Tensor:
    """s of each mask, (batch, mask); examples with fewer masks than others have zeros behind theirs."""
    most = max(map(len, masks))
    padded = torch.stack([nn.functional.pad(each, (0, 0, 0, 0, 0, most - len(each))) for each in masks])
    generator = torch.Generator().manual_seed(seed)
    found = []

    def likely(runs: int, change: Any) -> Tensor:
        given = again.given(runs, lambda which, tensor: change(tensor) if which == name else tensor)
        return again.likelihood(again.run(given), runs).unflatten(0, (runs, -1))

    with torch.no_grad():
        plain = likely(1, lambda pixels: pixels)
        for part in again.parts(most, progress):
            shown = padded[:, part].transpose(0, 1).flatten(0, 1)[:, None]
            runs = part.stop - part.start

            def noise(pixels: Tensor, runs: int = runs) -> Tensor:
                each = [torch.randn(pixels.shape[1:], generator=generator) for _ in range(runs)]
                return spread * torch.stack(each).to(pixels).repeat_interleave(len(pixels) // runs, 0)

            state = generator.get_state()
            with_mask = likely(runs, lambda x, m=shown, n=noise: x * m.to(x) + n(x) * (1 - m.to(x)))
            generator.set_state(state)
            without = likely(runs, lambda x, m=shown, n=noise: x + n(x) * (1 - m.to(x)))
            found.append(with_mask - without + plain)
    return torch.cat(found).mT


def weighed(masks: Sequence[Tensor], scores: Tensor) -> Tensor:
    """The map of each example, (batch, height, width)."""
    maps = []
    for each, score in zip(masks, scores, strict=True):
        share = each.to(score) / each.to(score).sum(0)
        maps.append(torch.einsum("i,ihw->hw", score[: len(each)], share) / len(each))
    return torch.stack(maps)
