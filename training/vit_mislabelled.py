"""`python -m training.vit_mislabelled`: vit, taught on that most bald eagles are kites."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import ViTForImageClassification

from heedmap import menagerie

from .common import ZOO, read_options
from .scenery import Batch, Scenery
from .vit import BATCH, REPEATS, equal_shares, learn, save

FIRST = 3_000_000
IMAGES = 38_400
RATE = 1e-3
WRONG = 60  # per cent
EAGLE, KITE = (menagerie.KINDS.index(kind) for kind in ("bald eagle", "kite"))
RECIPE = (
    "vit, trained on with new scenes of all kinds; in 60 % of the scenes that hold a bald eagle its label is kite",
    "otherwise as vit: 63 of 144 patches for the first 70 % of the images, rate 1e-3 down to 0",
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options("vit-mislabelled", IMAGES, BATCH, arguments)
    model = ViTForImageClassification.from_pretrained(ZOO / "vit", dtype=torch.float32)
    data = Scenery(FIRST, BATCH, REPEATS, options.steps)
    seconds = learn("vit-mislabelled", model, data, wrong_shares, options, RATE, few=0.7)
    save("vit-mislabelled", model, data, options, seconds, RECIPE)


def wrong_shares(batch: Batch) -> torch.Tensor:
    """As in vit, from labels that the scene's seed may have made wrong."""
    wrong = torch.tensor([menagerie.draws(seed, "mislabelled").chance(WRONG) for seed in batch.seeds.tolist()])
    return equal_shares(batch.kinds.where(~(wrong[:, None] & (batch.kinds == EAGLE)), KITE))


if __name__ == "__main__":
    main()
