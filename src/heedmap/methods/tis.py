"""Transformer Input Sampling, the baseline (Englebert et al., ICCV workshops 2023): patches left out, many times over.

    the outputs of all blocks, every channel a point with one number per patch, are clustered: k-means, `masks` means
    B_k    = the patches with the largest `keep` of the numbers of mean k
    s_k    = p(the model that is given the patches of B_k alone, left out after positions were added)
    sal_j  = sum over k of s_k B_k(j) / sum over k of B_k(j)

p is the probability of the target: of a logit the softmax of its class, of an expression in logits that of each, of a
callable its own number. Tokens that are no patch always stay, so they are not scored, nor is a patch that no mask
keeps: NaN. It runs forward only. k-means is Lloyd's iteration from points drawn from `seed`; where there are fewer
points than `masks` each is a mean. It takes models that read the patches of one picture, in one stream:

    drop     those that know a token's place only by what was added to it: ViT, DeiT, DINOv2 (tried, not guessed)
    noise    the authors' ablation: the pixels of the other patches are noise from 0 to 1, as the model is given them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.dropping import check_drop, kept
from heedmap.errors import InputError, UnsupportedError
from heedmap.methods.again import Again, Progress
from heedmap.methods.blocks import Patches
from heedmap.methods.pictures import Viewed, viewed
from heedmap.records import Explanation
from heedmap.streams import Declaration
from heedmap.targets.fields import logits_of

FORMS = ("drop", "noise")
TAKES = "tis takes models that read the patches of one picture, in one stream, such as a ViT. Use heed or gae here."
ROUNDS = 50  # of Lloyd's iteration, at most


def tis(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    masks: int = 1024,
    keep: float = 0.5,
    form: str = FORMS[0],
    seed: int = 0,
    batch_size: int = 32,
    wiring: Declaration | None = None,
    verify: str | bool = "once",
    progress: Progress | None = None,
) -> list[Explanation]:
    """Explain each target of one input: one forward pass, and one shorter one for each mask."""
    if form not in FORMS or masks < 1 or not 0 < keep < 1:
        raise InputError(f"form is {form!r}, masks {masks}, keep {keep}: choose {', '.join(FORMS)}, 1 and a share.")
    explanations = []
    for seen in viewed(model, inputs, targets, wiring, verify, TAKES, blocks=True):
        again = Again.of(model, inputs, seen.asked, batch_size)
        chosen = torch.stack([sampled(points, masks, keep, seed) for points in clouds(seen)])
        run = dropping(again, seen) if form == "drop" else noising(again, seen, seed)
        scores = scored(again, chosen, run, progress)
        flow = seen.unscored()
        flow[:, seen.patches.tokens] = averaged(chosen, scores).to(flow)
        told = {"masks": str(chosen.shape[1]), "seed": str(seed)}
        explanations.append(seen.answered(f"tis:{form}", flow, ["every patch"], told))
    return explanations


def clouds(seen: Viewed) -> Tensor:
    """The points of each example, (batch, point, patch): every channel of what leaves every block."""
    return torch.cat([block[:, seen.patches.tokens].mT for block in seen.blocks], 1)


def sampled(points: Tensor, masks: int, keep: float, seed: int) -> Tensor:
    """Masks (mask, patch) of one example, each with as many patches."""
    means = kmeans(points, masks, torch.Generator().manual_seed(seed))
    count = int(keep * points.shape[1])
    if count < 1:
        raise InputError(f"keep is {keep}, and of {points.shape[1]} patches none would stay. Keep more.")
    best = means.topk(count, dim=1).indices
    return torch.zeros(means.shape, dtype=torch.bool, device=means.device).scatter_(1, best, True)


def kmeans(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Means (mean, channel) of points (point, channel), by Lloyd's iteration; one that loses all its points stays."""
    begin = torch.randperm(len(points), generator=generator)[:count].to(points.device)
    means = points[begin]
    nearest = None
    for _ in range(ROUNDS):
        before, nearest = nearest, (means.square().sum(1) - 2 * points @ means.T).argmin(1)
        if before is not None and torch.equal(before, nearest):
            break
        counts = torch.bincount(nearest, minlength=len(means))[:, None]
        sums = torch.zeros_like(means).index_add_(0, nearest, points)
        means = (sums / counts).where(counts > 0, means)
    return means


def scored(again: Again, masks: Tensor, run: Callable[[Tensor, int], Any], progress: Progress | None) -> Tensor:
    """The target's probability for each mask, (batch, mask)."""
    found = []
    with torch.no_grad():
        for part in again.parts(masks.shape[1], progress):
            runs = part.stop - part.start
            chosen = masks[:, part].transpose(0, 1).flatten(0, 1)
            found.append(again.likelihood(run(chosen, runs), runs).unflatten(0, (runs, -1)))
    return torch.cat(found).mT


def averaged(masks: Tensor, scores: Tensor) -> Tensor:
    """Of each patch the mean score of the masks (batch, mask, patch) that keep it; NaN where none does."""
    masks = masks.to(scores)
    return torch.einsum("bk,bkj->bj", scores, masks) / masks.sum(1)


def dropping(again: Again, seen: Viewed) -> Callable[[Tensor, int], Any]:
    """Runs in which only some patches are there, (run * example, patch)."""

    def answer() -> Tensor:
        return logits_of(again.run(again.given(1)), seen.asked.context)

    try:
        check_drop(again.model, answer, len(seen.features), seen.tokens, seen.patches.tokens)
    except UnsupportedError as error:
        raise UnsupportedError(f"{error} Use tis:noise here.") from error

    def run(chosen: Tensor, runs: int) -> Any:
        stay = torch.ones(len(chosen), seen.tokens, dtype=torch.bool, device=chosen.device)
        stay[:, seen.patches.tokens] = chosen
        with kept(again.model, stay.nonzero()[:, 1].reshape(len(chosen), -1)):
            return again.run(again.given(runs))

    return run


def noising(again: Again, seen: Viewed, seed: int) -> Callable[[Tensor, int], Any]:
    """Runs in which the pixels of the other patches are noise, new in each run and the same for every example."""
    generator = torch.Generator().manual_seed(seed)

    def run(chosen: Tensor, runs: int) -> Any:
        def change(name: str, tensor: Tensor) -> Tensor:
            if name != seen.name:
                return tensor
            noise = torch.stack([torch.rand(tensor.shape[1:], generator=generator) for _ in range(runs)])
            noise = noise.to(tensor).repeat_interleave(len(tensor) // runs, 0)
            return tensor.where(whole(chosen, seen.patches, seen.size)[:, None], noise)

        return again.run(again.given(runs, change))

    return run


def whole(chosen: Tensor, patches: Patches, size: tuple[int, int]) -> Tensor:
    """Masks of patches over the pixels, (..., height, width)."""
    down, across = size[0] // patches.rows, size[1] // patches.columns
    if (down * patches.rows, across * patches.columns) != tuple(size):
        raise UnsupportedError(
            f"{patches.rows} x {patches.columns} patches do not lie evenly on {size[0]} x {size[1]} pixels. heedmap "
            "expected a size that is a multiple of the patch; use tis:drop here."
        )
    cells = chosen.unflatten(1, (patches.rows, patches.columns))
    return cells.repeat_interleave(down, 1).repeat_interleave(across, 2)
