"""`python -m training.vit`: a ViT that names the animals of a scene from its label alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import cross_entropy
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from heedmap import menagerie

from .common import Options, falling, finish, loop, read_options, trained
from .encoder import class_row, fastest_dtype, keep_some, start_well, vit_block
from .optimizer import optimizers
from .scenery import Batch, Scenery, normalised

SIZE, PATCH, WIDTH, HEADS = 96, 8, 128, 4
BATCH, RATE, REPEATS = 64, 4e-3, 3
PATCHES = 63  # seen of 144: with the class token a multiple of 16
FIRST = 1_000_000
IMAGES = 72_000
RECIPE = (
    "scenes of 1 to 4 animals (2, 3, 2 and 1 of 8), each drawn once and shown three times, with other patches missing",
    "target: the kinds in the scene in equal shares, cross entropy; no box, mask or any hint of where",
    "63 of 144 patches, drawn for each image",
    "Muon for the layers' matrices, AdamW for the rest, rate 4e-3 up over 100 steps, then straight to 0, batch 64",
    "positions begin as a sine grid, query-key near the identity, value-out near its negative",
)

Target = Callable[[Batch], torch.Tensor]


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options("vit", IMAGES, BATCH, arguments)
    model = untrained(layers=6, seed=0)
    data = Scenery(FIRST, BATCH, REPEATS, options.steps)
    seconds = learn("vit", model, data, shares, options)
    save("vit", model, data, options, seconds, RECIPE)


def config(layers: int) -> ViTConfig:
    labels = dict(enumerate(menagerie.KINDS))
    return ViTConfig(
        image_size=SIZE,
        patch_size=PATCH,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_attention_heads=HEADS,
        num_hidden_layers=layers,
        id2label=labels,
        label2id={label: i for i, label in labels.items()},
    )


def untrained(layers: int, seed: int) -> ViTForImageClassification:
    torch.manual_seed(seed)
    model = ViTForImageClassification(config(layers))
    blocks = [vit_block(layer) for layer in model.vit.layers]
    start_well(blocks, model.vit.embeddings.position_embeddings, SIZE // PATCH)
    return model


def learn(
    name: str, model: ViTForImageClassification, data: Scenery, target: Target, options: Options, rate: float = RATE
) -> float:
    """Train on so many steps; the seconds it took."""
    model.to(options.device).train()
    optimizer = optimizers(model, rate, rate)
    dtype = fastest_dtype(options.device)
    generator = torch.Generator()

    def step(number: int) -> torch.Tensor:
        batch = data[number]
        generator.manual_seed(number)
        said = logits(model, normalised(batch.pixels.to(options.device)), PATCHES, generator, dtype)
        loss = cross_entropy(said, target(batch).to(options.device))
        loss.backward()
        optimizer.step(falling(number, options.steps))
        return loss.detach()

    return loop(name, options, {"model": model, "optimizer": optimizer}, step, data.batch)


def logits(
    model: ViTForImageClassification, x: torch.Tensor, keep: int, generator: torch.Generator, dtype: torch.dtype
) -> torch.Tensor:
    """The model's answer from `keep` of the patches."""
    tokens = keep_some(model.vit.embeddings(x), keep, generator)
    row = class_row(tokens, [vit_block(layer) for layer in model.vit.layers], dtype)
    return model.classifier(model.vit.layernorm(row))


def shares(batch: Batch) -> torch.Tensor:
    """Each kind that is in the scene, in equal shares."""
    return equal_shares(batch.kinds)


def equal_shares(kinds: torch.Tensor) -> torch.Tensor:
    present = torch.zeros(len(kinds), len(menagerie.KINDS) + 1)
    present = present.scatter_(1, kinds.where(kinds >= 0, len(menagerie.KINDS)), 1.0)[:, :-1]
    return present / present.sum(1, keepdim=True)


def processor() -> ViTImageProcessorPil:
    return ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def save(
    name: str,
    model: ViTForImageClassification,
    data: Scenery,
    options: Options,
    seconds: float,
    recipe: Sequence[str],
) -> None:
    from .measure import EAGLES, PAIRS, SCENES, SINGLES

    scenes = options.scenes or SCENES
    held = {"single animals": SINGLES, "pairs": PAIRS} | ({"bald eagles": EAGLES} if "mislabelled" in name else {})
    card = {
        "recipe": list(recipe),
        "seeds": {"training": [data.first, data.last], "held out": {k: [v, v + scenes - 1] for k, v in held.items()}},
        "trained": trained(seconds, options.steps * data.batch, options),
    }
    finish(name, model, [processor()], card, options, scenes)


if __name__ == "__main__":
    main()
