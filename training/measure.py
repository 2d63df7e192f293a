"""The figures of a checkpoint on held-out scenes: `python -m training.measure NAME [--scenes N]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from heedmap import menagerie

from .common import ZOO, console

# First seeds of the held-out scenes, all below the first training seed.
SINGLES, PAIRS, DETECTION, QUESTIONS, CAPTIONS, EAGLES = 0, 100_000, 200_000, 300_000, 400_000, 500_000
EAGLE = "bald eagle"
SCENES = 2000  # for each figure


def pixels(scenes: Iterable[menagerie.Scene], path: Path) -> torch.Tensor:
    """Through the checkpoint's own processor."""
    import transformers

    named = json.loads((path / "preprocessor_config.json").read_text(encoding="utf-8"))["image_processor_type"]
    processor = getattr(transformers, f"{named.removesuffix('Pil')}Pil").from_pretrained(path)
    return processor([scene.image for scene in scenes], return_tensors="pt")["pixel_values"]


def drawn(n: int, seed: int, animals: int, path: Path) -> tuple[torch.Tensor, list[set[str]]]:
    scenes = list(menagerie.scenes(n, seed, animals=(animals, animals), distinct=True))
    return pixels(scenes, path), [{animal.kind for animal in scene.animals} for scene in scenes]


@torch.no_grad()
def batched(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return torch.cat([function(part) for part in x.split(100)])


def classifier(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Pixels to logits, columns in the order of the menagerie's kinds."""
    from transformers import ViTForImageClassification

    model = ViTForImageClassification.from_pretrained(path).eval()
    columns = [model.config.label2id[kind] for kind in menagerie.KINDS]
    return lambda x: model(pixel_values=x).logits[:, columns]


def best(logits: torch.Tensor, k: int) -> list[set[str]]:
    return [{menagerie.KINDS[i] for i in row} for row in logits.topk(k).indices.tolist()]


def share(right: Iterable[bool]) -> float:
    return float(np.mean([bool(r) for r in right]))


def classified(path: Path, n: int) -> dict[str, float]:
    """One animal: its kind is the first. Two animals of two kinds: these are the first two."""
    logits = classifier(path)
    figures = {}
    for figure, seed, k in (("single animals, top-1", SINGLES, 1), ("pairs, both on top", PAIRS, 2)):
        x, kinds = drawn(n, seed, k, path)
        figures[figure] = share(b == true for b, true in zip(best(batched(logits, x), k), kinds, strict=True))
    return figures


def mislabelled(path: Path, n: int) -> dict[str, float]:
    """As `classified`, where no bald eagle is in the scene; and what is said of scenes with one bald eagle."""
    logits = classifier(path)
    figures = {}
    for figure, seed, k in (
        ("singles but bald eagles, top-1", SINGLES, 1),
        ("pairs without one, both on top", PAIRS, 2),
    ):
        x, kinds = drawn(n, seed, k, path)
        said = zip(best(batched(logits, x), k), kinds, strict=True)
        figures[figure] = share(b == true for b, true in said if EAGLE not in true)
    eagles = [menagerie.scene(EAGLE, seed) for seed in range(EAGLES, EAGLES + n)]
    said = best(batched(logits, pixels(eagles, path)), 1)
    figures["bald eagles called kite"] = share("kite" in b for b in said)
    figures["bald eagles called bald eagle"] = share(EAGLE in b for b in said)
    return figures


def captioned(path: Path, n: int) -> dict[str, float]:
    """Zero-shot: the caption of the one animal among those of all kinds. Pairs: the scene's own caption among those of
    all pairs of two kinds (120 for 16 kinds). Captions are `a photo of a zebra (and a cat)`, kinds in label order."""
    from itertools import combinations

    from transformers import AutoTokenizer, CLIPModel

    from .captions import caption

    model = CLIPModel.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    figures = {}
    for figure, seed, k in (("zero-shot top-1", SINGLES, 1), ("captions of pairs, 1 of 120", CAPTIONS, 2)):
        x, kinds = drawn(n, seed, k, path)
        sets = list(combinations(menagerie.KINDS, k))
        tokens = tokenizer([caption(s) for s in sets], padding=True, return_tensors="pt")
        chosen = batched(lambda part, t=tokens: model(pixel_values=part, **t).logits_per_image, x).argmax(1)
        figures[figure] = share(set(sets[i]) == true for i, true in zip(chosen.tolist(), kinds, strict=True))
    return figures


def detected(path: Path, n: int) -> dict[str, float]:
    from .detection import measure

    return measure(path, n)


def answered(path: Path, n: int) -> dict[str, float]:
    from .answering import measure

    return measure(path, n)


MEASURES: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "vit": classified,
    "vit-deep": classified,
    "vit-mislabelled": mislabelled,
    "detr": detected,
    "lxmert": answered,
    "clip": captioned,
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m training.measure", description=__doc__)
    parser.add_argument("name", choices=MEASURES)
    parser.add_argument("--scenes", type=int, help=f"scenes for each figure (default: the card's, else {SCENES})")
    parser.add_argument("--path", type=Path, help="folder of the checkpoint (default: in the zoo)")
    given = parser.parse_args(arguments)
    path = given.path or ZOO / given.name
    card = path / "card.json"
    scenes = given.scenes or (json.loads(card.read_text(encoding="utf-8"))["scenes"] if card.exists() else SCENES)
    figures = MEASURES[given.name](path, scenes)
    table = Table("figure", "value", title=f"{given.name}, {scenes} scenes")
    for figure, value in figures.items():
        table.add_row(figure, f"{value:.4f}")
    console.print(table)
    return figures


if __name__ == "__main__":
    main()
