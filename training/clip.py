"""`python -m training.clip`: an image tower and a text tower that meet; the image tower begins as vit's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    ViTForImageClassification,
)

from heedmap import menagerie

from .captions import END, LONGEST, PAD, START, TEMPLATES, caption, tokenizer
from .common import ZOO, Options, falling, finish, loop, read_options, trained
from .encoder import class_row, clip_block, fastest_dtype, keep_some
from .optimizer import optimizers
from .scenery import Batch, Scenery, draw, normalised
from .vit import BATCH, HEADS, PATCH, PATCHES, REPEATS, SIZE, WIDTH

FIRST = 4_000_000
IMAGES = 24_000
RATE = 2e-3
RECIPE = (
    "image tower as vit and begun with its weights, text tower of 2 layers; width 128, projections of 128",
    "scenes of 1 to 4 animals as for vit, each with a caption of its kinds in any order, in one of four wordings",
    "contrastive in batches of 64: an image's caption among those of the batch and as many with one kind exchanged, a "
    "caption's image among those of the batch; equal captions are equally right",
    "63 of 144 patches; Muon and AdamW, rate 2e-3 down to 0",
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options("clip", IMAGES, BATCH, arguments)
    words = tokenizer()
    model = begun(ZOO / "vit", words)
    data = Scenery(FIRST, BATCH, REPEATS, options.steps)
    seconds = learn(model, words, data, options)
    save(model, words, data, options, seconds)


def begun(vit: Path, words: PreTrainedTokenizerFast) -> CLIPModel:
    """Untrained but for the image tower, which is vit's."""
    torch.manual_seed(2)
    shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": HEADS, "hidden_act": "gelu"}
    ids = {
        "pad_token_id": words.convert_tokens_to_ids(PAD),
        "bos_token_id": words.convert_tokens_to_ids(START),
        "eos_token_id": words.convert_tokens_to_ids(END),
    }
    text = {"vocab_size": len(words), "max_position_embeddings": LONGEST, "num_hidden_layers": 2, **shape, **ids}
    vision = {"image_size": SIZE, "patch_size": PATCH, "num_hidden_layers": 6, "layer_norm_eps": 1e-12, **shape}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))
    adopt(model, ViTForImageClassification.from_pretrained(vit, dtype=torch.float32))
    return model


@torch.no_grad()
def adopt(model: CLIPModel, vit: ViTForImageClassification) -> None:
    """The image tower computes about what vit does: CLIP has a norm more before the layers, given vit's mean size."""
    tower, source = model.vision_model, vit.vit.embeddings
    tower.embeddings.patch_embedding.weight.copy_(source.patch_embeddings.projection.weight)
    positions = source.position_embeddings[0].clone()
    positions[1:] += source.patch_embeddings.projection.bias
    tower.embeddings.position_embedding.weight.copy_(positions)
    tower.embeddings.class_embedding.copy_(source.cls_token.flatten())
    some = normalised(draw(FIRST, 64).pixels)
    tower.pre_layrnorm.weight.fill_(source(some).std(-1).mean())
    tower.post_layernorm.load_state_dict(vit.vit.layernorm.state_dict())
    for layer, old in zip(tower.encoder.layers, vit.vit.layers, strict=True):
        layer.layer_norm1.load_state_dict(old.layernorm_before.state_dict())
        layer.layer_norm2.load_state_dict(old.layernorm_after.state_dict())
        layer.mlp.load_state_dict(old.mlp.state_dict())
        for ours, its in (("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("out_proj", "o_proj")):
            getattr(layer.self_attn, ours).load_state_dict(getattr(old.attention, its).state_dict())


def learn(model: CLIPModel, words: PreTrainedTokenizerFast, data: Scenery, options: Options) -> float:
    model.to(options.device).train()
    optimizer = optimizers(model, RATE, RATE)
    dtype = fastest_dtype(options.device)
    generator = torch.Generator()

    def step(number: int) -> torch.Tensor:
        batch = data[number]
        generator.manual_seed(number)
        texts, sets = wordings(batch, np.random.default_rng((FIRST, number)))
        images = seen(model, normalised(batch.pixels.to(options.device)), PATCHES, generator, dtype)
        loss = contrast(model, images, read(model, words, texts), sets.to(options.device))
        loss.backward()
        optimizer.step(falling(number, options.steps))
        return loss.detach()

    return loop("clip", options, {"model": model, "optimizer": optimizer}, step, data.batch)


def wordings(batch: Batch, rng: np.random.Generator) -> tuple[list[str], torch.Tensor]:
    """The captions of a batch, then as many with one kind exchanged; and which kinds each names."""
    sets = [sorted({k for k in row if k >= 0}) for row in batch.kinds.tolist()]
    sets += [exchanged(kinds, rng) for kinds in sets]
    named = torch.zeros(len(sets), len(menagerie.KINDS))
    texts = []
    for i, kinds in enumerate(sets):
        named[i, kinds] = 1.0
        order = [menagerie.KINDS[k] for k in rng.permutation(kinds)]
        texts.append(caption(order, TEMPLATES[rng.integers(len(TEMPLATES))]))
    return texts, named


def exchanged(kinds: list[int], rng: np.random.Generator) -> list[int]:
    others = [k for k in range(len(menagerie.KINDS)) if k not in kinds]
    out = list(kinds)
    out[rng.integers(len(out))] = others[rng.integers(len(others))]
    return out


def seen(model: CLIPModel, x: torch.Tensor, keep: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    tower = model.vision_model
    tokens = tower.pre_layrnorm(keep_some(tower.embeddings(x), keep, generator))
    row = class_row(tokens, [clip_block(layer) for layer in tower.encoder.layers], dtype)
    return model.visual_projection(tower.post_layernorm(row))


def read(model: CLIPModel, words: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    tokens = words(texts, padding=True, return_tensors="pt").to(model.device)
    return model.text_projection(model.text_model(**tokens).pooler_output)


def contrast(model: CLIPModel, images: torch.Tensor, texts: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
    """Both ways; texts beyond the images' own are only there to be told apart."""
    count = len(images)
    scale = model.logit_scale.clamp(max=np.log(100.0)).exp()
    logits = scale * normalize(images, dim=-1) @ normalize(texts, dim=-1).T
    same = (named[:count, None] == named[None]).all(-1).float()
    return (cross(logits, same) + cross(logits[:, :count].T, same[:, :count].T)) / 2


def cross(logits: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    return -(same / same.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()


def save(
    model: CLIPModel,
    words: PreTrainedTokenizerFast,
    data: Scenery,
    options: Options,
    seconds: float,
) -> None:
    from .measure import CAPTIONS, SCENES, SINGLES

    scenes = options.scenes or SCENES
    held = {"single animals": [SINGLES, SINGLES + scenes - 1], "pairs": [CAPTIONS, CAPTIONS + scenes - 1]}
    card = {
        "recipe": list(RECIPE),
        "seeds": {"training": [data.first, data.last], "held out": held},
        "trained": trained(seconds, options.steps * data.batch, options) + ", after vit",
    }
    finish("clip", model, [processor(), words], card, options, scenes)


def processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


if __name__ == "__main__":
    main()
