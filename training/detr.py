"""The zoo's detector: DETR on an early ResNet stage, in two parts.

1. The backbone learns as a dense detector: each cell of its last stage says which animal it lies on, of which colour,
   and where in the image that animal's box is. Not where from the cell: DETR's queries take the content of cells, not
   their positions, so that content must say where it is.
2. DETR learns on top, the backbone with it: one object query per animal by bipartite matching, after every decoder
   layer. A colour head, thrown away afterwards, reads the last state of each matched query: whoever takes that state as
   the feature of a region finds kind and colour in it (as the detector behind LXMERT's features learned attributes).

transformers' DETR freezes the batch norms of its backbone as they are when it is built, so that one which has not
learned is never normalised. Here they are live to the end, and what they have become moves into the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoBackbone, DetrConfig, DetrForObjectDetection, DetrImageProcessorPil, ResNetConfig

from heedmap import menagerie
from heedmap.zoo.regions import corners

from .common import FIRST_TRAINING_SEED, falling, finish, loop, read_options, trained
from .detection import HELD_OUT, SCENES
from .encoder import fastest_dtype
from .optimizer import Muon, Optimizers
from .scenery import MOST, normalised

NAME = "detr"
FIRST_SEED = 60 * FIRST_TRAINING_SEED
BATCH = 32
IMAGES = 384_000
DENSE_SHARE = 0.3  # of the steps belong to part 1
BLOCK = 2048  # scenes drawn at a time,
VIEWS = 4  # each shown so often, every other time mirrored

SIZE = 96
CELLS = 12  # a side: stride 8
QUERIES = 16  # a square number: they start on a grid
COLOURS = tuple(menagerie.COLOURS)
NOTHING = len(menagerie.KINDS)  # the class of a query without an animal
NOTHING_WEIGHT = 0.2


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(NAME, IMAGES, BATCH, arguments)
    torch.manual_seed(0)
    learner = Learner(config()).to(options.device, memory_format=torch.channels_last).train()
    dense, whole = dense_optimizers(learner), whole_optimizers(learner)
    first = round(DENSE_SHARE * options.steps)

    def step(number: int) -> Tensor:
        pixels, truth = batch(number, options.device)
        if number < first:
            return taken(dense, dense_loss(learner.cells(pixels), truth), falling(number, first))
        return taken(whole, set_loss(learner(pixels), truth), falling(number - first, options.steps - first))

    seconds = loop(NAME, options, {"learner": learner, "dense": dense, "whole": whole}, step, BATCH)
    drawn = scenes_drawn(options.steps)
    card = {
        "recipe": [line for line in __doc__.splitlines() if line],
        "seeds": {
            "training": [FIRST_SEED, FIRST_SEED + drawn - 1],
            "held out": {"boxes": [HELD_OUT, HELD_OUT + SCENES - 1]},
        },
        "trained": trained(seconds, options.steps * BATCH, options),
    }
    finish(NAME, finished(learner), [processor()], card, options, scenes=SCENES)


def taken(optimizers: Optimizers, loss: Tensor, factor: float) -> Tensor:
    loss.backward()
    parameters = [p for one in optimizers.optimizers for group in one.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizers.step(factor)
    return loss.detach()


def dense_optimizers(learner: Learner) -> Optimizers:
    parts = [*learner.backbone.parameters(), *learner.on_cells.parameters()]
    return Optimizers(torch.optim.AdamW(parts, lr=2e-3, weight_decay=1e-2))


def whole_optimizers(learner: Learner) -> Optimizers:
    """Muon for the matrices of the transformer's layers, AdamW for the rest, slower for the backbone."""
    transformer = [*learner.detr.model.encoder.parameters(), *learner.detr.model.decoder.parameters()]
    matrices = [p for p in transformer if p.ndim == 2]
    backbone = list(learner.backbone.parameters())
    apart = {id(p) for p in [*matrices, *backbone, *learner.on_cells.parameters()]}
    rest = [p for p in learner.parameters() if id(p) not in apart]
    groups = [{"params": backbone, "lr": 3e-4}, {"params": rest, "lr": 1e-3}]
    return Optimizers(Muon(matrices, 1e-3, weight_decay=2e-2), torch.optim.AdamW(groups, weight_decay=1e-4))


# -- scenes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What is in a batch of scenes, padded to MOST animals."""

    labels: Tensor  # (batch, animal)
    colours: Tensor  # (batch, animal)
    boxes: Tensor  # (batch, animal, 4): relative centre, width, height
    there: Tensor  # (batch, animal): not padding

    def of(self, scenes: Tensor) -> Truth:
        return Truth(*(getattr(self, field.name)[scenes] for field in fields(self)))

    def to(self, device: str) -> Truth:
        return Truth(*(getattr(self, field.name).to(device) for field in fields(self)))

    def mirrored(self) -> Truth:
        x, rest = self.boxes[..., :1], self.boxes[..., 1:]
        return Truth(self.labels, self.colours, torch.cat([1 - x, rest], -1), self.there)


def truth(scenes: Sequence[menagerie.Scene], most: int = MOST) -> Truth:
    labels, colours = (torch.zeros(len(scenes), most, dtype=torch.long) for _ in range(2))
    sides = torch.zeros(len(scenes), most, 4)
    there = torch.zeros(len(scenes), most, dtype=torch.bool)
    for i, scene in enumerate(scenes):
        for j, animal in enumerate(scene.animals):
            labels[i, j] = menagerie.KINDS.index(animal.kind)
            colours[i, j] = COLOURS.index(animal.colour)
            sides[i, j] = torch.tensor(animal.box) / scene.size
            there[i, j] = True
    boxes = torch.cat([(sides[..., :2] + sides[..., 2:]) / 2, sides[..., 2:] - sides[..., :2]], -1)
    return Truth(labels, colours, boxes, there)


def batch(number: int, device: str = "cpu") -> tuple[Tensor, Truth]:
    """The batch of a step: pixels as the processor gives them, and what is in them."""
    per_view = BLOCK // BATCH
    block, within = divmod(number, per_view * VIEWS)
    view, place = divmod(within, per_view)
    order = np.random.default_rng((FIRST_SEED, block, view)).permutation(BLOCK)
    chosen = torch.from_numpy(order[place * BATCH : (place + 1) * BATCH])
    pixels, known = drawn_block(block)
    pixels, known = pixels[chosen].to(device), known.of(chosen).to(device)
    if view % 2:
        pixels, known = pixels.flip(-1), known.mirrored()
    return normalised(pixels).contiguous(memory_format=torch.channels_last), known


@lru_cache(maxsize=1)
def drawn_block(block: int) -> tuple[Tensor, Truth]:
    pixels, known = torch.empty(BLOCK, 3, SIZE, SIZE, dtype=torch.uint8), []
    for i, scene in enumerate(menagerie.scenes(BLOCK, FIRST_SEED + block * BLOCK, size=SIZE)):
        pixels[i] = torch.from_numpy(np.array(scene.image)).permute(2, 0, 1)
        known.append(truth([scene]))  # and let the scene go: its canvases are large
    return pixels, Truth(*(torch.cat([getattr(one, field.name) for one in known]) for field in fields(Truth)))


def scenes_drawn(steps: int) -> int:
    return -(-steps * BATCH // (BLOCK * VIEWS)) * BLOCK


# -- the model ---------------------------------------------------------------------------------------------------------


def processor() -> DetrImageProcessorPil:
    return DetrImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, do_pad=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def config() -> DetrConfig:
    backbone = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 96], depths=[1, 3], layer_type="basic", out_features=["stage2"]
    )
    labels = dict(enumerate(menagerie.KINDS))
    return DetrConfig(
        use_timm_backbone=False,
        backbone_config=backbone,
        num_queries=QUERIES,
        d_model=96,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        dropout=0.0,
        id2label=labels,
        label2id={kind: label for label, kind in labels.items()},
    )


class Learner(nn.Module):
    """DETR with live batch norms, a head on the backbone's cells, and one that reads colour from the queries."""

    parts = (NOTHING + 1, len(COLOURS), 4)  # what a cell says

    def __init__(self, config: DetrConfig):
        super().__init__()
        config._attn_implementation = "eager"  # the fused kernel is slow in bfloat16 on a CPU
        self.detr = DetrForObjectDetection(config)
        self.detr.model.backbone.model = AutoBackbone.from_config(config.backbone_config)
        self.on_cells = nn.Conv2d(self.backbone.channels[-1], sum(self.parts), 1)
        self.colour = nn.Linear(config.d_model, len(COLOURS))
        start_well(self.detr)

    @property
    def backbone(self) -> nn.Module:
        return self.detr.model.backbone.model

    def cells(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each cell's kind (or nothing), colour and box in the image."""
        with fast(pixels):
            features = self.backbone(pixels).feature_maps[-1]
        said = self.on_cells(features.float()).flatten(2).transpose(1, 2)
        kinds, colours, boxes = said.split(self.parts, -1)
        return kinds, colours, boxes.sigmoid()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Kinds and boxes after each decoder layer, (layer, batch, query, ...), colours after the last."""
        with fast(pixels):
            output = self.detr.model(pixels, output_hidden_states=True)
        *earlier, _ = output.decoder_hidden_states[1:]  # the first is what enters, the last is normed already
        states = self.detr.model.decoder.layernorm(torch.stack(earlier).float())
        last = output.last_hidden_state.float()
        states = torch.cat([states, last[None]])
        return self.detr.class_labels_classifier(states), self.detr.bbox_predictor(states).sigmoid(), self.colour(last)


def fast(pixels: Tensor) -> torch.autocast:
    kind = pixels.device.type
    dtype = fastest_dtype(kind)
    return torch.autocast(kind, dtype, enabled=dtype != torch.float32)


def finished(learner: Learner) -> DetrForObjectDetection:
    """The checkpoint's model: the batch norms frozen as they stand."""
    model = DetrForObjectDetection(config())
    model.load_state_dict(learner.detr.state_dict())
    return model.cpu().eval()


@torch.no_grad()
def start_well(detr: DetrForObjectDetection) -> None:
    """Matrices begin at the size the published DETR gives them (transformers' own is a fifth of it at this width).

    Object queries begin as the positions of an even grid, and look where they are.
    """
    model, side = detr.model, int(QUERIES**0.5)
    for part in (model.encoder, model.decoder, model.input_projection, detr.bbox_predictor):
        for parameter in part.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
    fine = CELLS * side  # so that a cell of the fine grid lies in the middle of each square
    shape = torch.Size([1, detr.config.d_model, fine, fine])
    positions = model.position_embedding(shape=shape, device="cpu", dtype=torch.float32)[0]
    middle = slice(CELLS // 2, None, CELLS)
    model.query_position_embeddings.weight.copy_(positions[:, middle, middle].flatten(1).T)
    for layer in model.decoder.layers:
        layer.encoder_attn.q_proj.weight.copy_(layer.encoder_attn.k_proj.weight)


# -- losses ------------------------------------------------------------------------------------------------------------


def cell_centres() -> Tensor:
    """The centre (x, y) of every cell, row by row."""
    at = (torch.arange(CELLS) + 0.5) / CELLS
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def dense_loss(output: tuple[Tensor, Tensor, Tensor], truth: Truth) -> Tensor:
    """A cell in the middle of a box belongs to that animal; in the middle of several, to the smallest."""
    kinds, colours, boxes = output
    owner, owned = owners(truth)
    labels = truth.labels.gather(1, owner).masked_fill(~owned, NOTHING)
    mine = truth.boxes.gather(1, owner[..., None].expand(-1, -1, 4))[owned]
    boxes = boxes[owned]
    return (
        2 * F.cross_entropy(kinds.flatten(0, 1), labels.flatten())
        + 0.5 * F.cross_entropy(colours[owned], truth.colours.gather(1, owner)[owned])
        + 5 * (boxes - mine).abs().sum(-1).mean()
        + (1 - generalised_iou(corners(boxes), corners(mine))).mean()
    )


def owners(truth: Truth) -> tuple[Tensor, Tensor]:
    """Per cell the animal it belongs to, and whether it belongs to any."""
    away = (cell_centres().to(truth.boxes.device)[None, :, None] - truth.boxes[:, None, :, :2]).abs()
    reach = (0.3 * truth.boxes[:, None, :, 2:]).clamp(min=0.5 / CELLS)
    inside = (away <= reach).all(-1) & truth.there[:, None]
    area = truth.boxes[..., 2:].prod(-1)[:, None].expand_as(inside).masked_fill(~inside, torch.inf)
    return area.argmin(-1), inside.any(-1)


def set_loss(output: tuple[Tensor, Tensor, Tensor], truth: Truth) -> Tensor:
    """After each decoder layer, one query per animal answers for it; all others answer that there is nothing."""
    kinds, boxes, colours = output
    at = match(kinds, boxes, truth)
    layer, image, query, animal = at
    wanted = torch.full(kinds.shape[:-1], NOTHING, device=kinds.device)
    wanted[layer, image, query] = truth.labels[image, animal]
    weight = torch.ones(NOTHING + 1, device=kinds.device)
    weight[NOTHING] = NOTHING_WEIGHT
    mine, theirs = boxes[layer, image, query], truth.boxes[image, animal]
    last = layer == len(kinds) - 1
    return (
        len(kinds) * 2 * F.cross_entropy(kinds.flatten(0, 2), wanted.flatten(), weight)
        + len(kinds) * 5 * (mine - theirs).abs().sum(-1).mean()
        + len(kinds) * 2 * (1 - generalised_iou(corners(mine), corners(theirs))).mean()
        + 0.5 * F.cross_entropy(colours[image[last], query[last]], truth.colours[image[last], animal[last]])
    )


@torch.no_grad()
def match(kinds: Tensor, boxes: Tensor, truth: Truth) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cheapest assignment of queries to animals, per layer and image: indices (layer, image, query, animal)."""
    layers, batch, queries, _ = kinds.shape
    label = truth.labels[None, :, None].expand(layers, -1, queries, -1)
    distance = torch.cdist(boxes, truth.boxes.expand(layers, -1, -1, -1), p=1)
    mine, theirs = corners(boxes)[..., :, None, :], corners(truth.boxes)[None, :, None]
    cost = 5 * distance - 2 * kinds.softmax(-1).gather(-1, label) - 2 * generalised_iou(mine, theirs)
    table, counts = cost.cpu().numpy(), truth.there.sum(-1).tolist()
    pairs = [
        (layer, image, query, animal)
        for layer in range(layers)
        for image in range(batch)
        for query, animal in zip(*linear_sum_assignment(table[layer, image, :, : counts[image]]), strict=True)
    ]
    return tuple(torch.tensor(column, device=kinds.device) for column in zip(*pairs, strict=True))


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Of boxes given by their corners, pairwise as they broadcast: overlap, less the void between them."""
    both = (a[..., 2:].minimum(b[..., 2:]) - a[..., :2].maximum(b[..., :2])).clamp(min=0).prod(-1)
    hull = (a[..., 2:].maximum(b[..., 2:]) - a[..., :2].minimum(b[..., :2])).prod(-1)
    either = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both
    return both / either.clamp(min=1e-9) - (hull - either) / hull.clamp(min=1e-9)


if __name__ == "__main__":
    main()
