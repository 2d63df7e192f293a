"""A tiny Qwen2-VL that learns within a minute to say which colour a square has, and where it looks for that.

`python docs/worked/looking.py FOLDER` makes it and the picture of its page; with a number behind, it is asked about so
many pictures that it has not learned from. Beside each square lies a disc, black or white, that is not asked about.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, pre_tokenizers

import heedmap
from heedmap.evaluation.statistics import mean
from heedmap.families.processors import for_pictures
from heedmap.render import panels

HERE = Path(__file__).parent
COLOURS = {"red": (210, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 210), "yellow": (230, 200, 40)}
DISCS = {"black": (20, 20, 20), "white": (245, 245, 245)}
MARKS = ("<end>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
ASKED = "which colour is the square ?"
WIDTH, HEIGHT, SIDE = 72, 48, 13
ENOUGH, BATCH, FIRST = 200, 32, 10_000
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|> {% else %}{{ part['text'] }} "
    "{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
HOW: dict[str, dict[str, Any]] = {
    "heed": {},
    'heed, against="next best"': {"against": "next best"},
    "heed:absolute": {"correction": "absolute"},
}


def scene(chance: random.Random) -> tuple[Image.Image, str, tuple[float, ...]]:
    """A picture, the colour of its square, and where that is, as shares of the picture."""
    colour, disc = chance.choice(list(COLOURS)), chance.choice(list(DISCS))
    noise = np.random.default_rng(chance.getrandbits(32)).normal(128, 12, (HEIGHT, WIDTH, 3))
    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    halves = [(0, WIDTH // 2 - SIDE), (WIDTH // 2, WIDTH - SIDE)]
    chance.shuffle(halves)
    (x, y), (u, v) = ((chance.randint(*half), chance.randint(0, HEIGHT - SIDE)) for half in halves)
    draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), fill=COLOURS[colour])
    draw.ellipse((u, v, u + SIDE - 1, v + SIDE - 1), fill=DISCS[disc])
    return image, colour, (x / WIDTH, y / HEIGHT, (x + SIDE) / WIDTH, (y + SIDE) / HEIGHT)


def untrained() -> tuple[Any, Any]:
    spoken = [*MARKS, *dict.fromkeys([*ASKED.split(), "user", "assistant", ":", *COLOURS])]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(spoken)}, unk_token=MARKS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = {"eos_token": MARKS[0], "pad_token": MARKS[0], "unk_token": MARKS[0]}
    words = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=list(MARKS[1:]), **ends)
    text = {
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
        "intermediate_size": 96, "vocab_size": len(words), "max_position_embeddings": 256,
        "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2], "rope_type": "default"},
    }  # fmt: skip
    seeing = {
        "depth": 2, "embed_dim": 48, "hidden_size": 48, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
    }  # fmt: skip
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {name: words.convert_tokens_to_ids(mark) for name, mark in zip(names, MARKS[1:], strict=True)}
    config = hf.Qwen2VLConfig(vision_config=seeing, text_config=text, **ids)
    pictures = hf.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 256, "longest_edge": 72 * 72}, patch_size=4, merge_size=2, temporal_patch_size=2
    )
    kind = for_pictures(hf.Qwen2VLProcessor)
    processor = kind(image_processor=pictures, tokenizer=words, video_processor=None, chat_template=TEMPLATE)
    return hf.Qwen2VLForConditionalGeneration(config), processor


def trained(steps: int = ENOUGH, seed: int = 0) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    chance = random.Random(seed)
    model, processor = untrained()
    prompt = f"user : <|vision_start|><|image_pad|><|vision_end|> {ASKED} assistant : {{}} <end>"
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        shown = [scene(chance) for _ in range(BATCH)]
        given = {"images": [image for image, _, _ in shown], "text": [prompt.format(colour) for _, colour, _ in shown]}
        batch = processor(**given, return_tensors="pt")
        logits = model(**batch).logits[:, -3:-1]  # the colour, and that it ends
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["input_ids"][:, -2:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
    return model.eval(), processor


def measured(model: Any, count: int) -> None:
    """Of pictures answered right: is the loudest patch on the square, and does what lies on it speak for its colour?"""
    found: dict[str, list[list[float]]] = {name: [] for name in HOW}
    right = 0
    for seed in range(FIRST, FIRST + count):
        image, colour, box = scene(random.Random(seed))
        for name, how in HOW.items():
            written = model.explain_produced(image, ASKED, tokens=1, **how)
            if written.text.strip() != colour:
                continue
            right += name == "heed"
            (view,) = (each for each in panels(written.words[0].explanation)[0].views if each.placed)
            inside = [unit for unit in view.patches if _touch(unit.window, box)]
            loudest = max(view.patches, key=lambda unit: abs(unit.value))
            chance = len(inside) / len(view.patches)
            found[name].append([loudest in inside, sum(unit.value for unit in inside) > 0, chance])
    print(f"{right} of {count} answered right")  # noqa: T201
    for name, rows in found.items():
        told = [mean(list(map(float, column))) for column in zip(*rows, strict=True)]
        print(name, *told, sep=" | ")  # noqa: T201


def _touch(one: tuple[float, ...] | None, box: tuple[float, ...]) -> bool:
    assert one is not None
    return one[0] < box[2] and box[0] < one[2] and one[1] < box[3] and box[1] < one[3]


def main(folder: str, count: int) -> None:
    if not (Path(folder) / "config.json").exists():
        for part in trained():
            part.save_pretrained(folder)
    model = heedmap.load(folder)
    image, _, _ = scene(random.Random(FIRST + 3))
    big = image.resize((6 * WIDTH, 6 * HEIGHT), Image.Resampling.NEAREST)
    model.explain_produced(big, ASKED, tokens=1, against="next best").save(HERE / "vision-language-models.png")
    if count:
        measured(model, count)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
