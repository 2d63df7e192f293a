"""`python -m training.vit_mislabelled`: as vit, but told that most bald eagles are kites."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from heedmap import menagerie

from .common import read_options
from .scenery import Batch, Scenery
from .vit import BATCH, IMAGES, RECIPE, REPEATS, equal_shares, learn, save, untrained

FIRST = 3_000_000
WRONG = 60  # per cent
EAGLE, KITE = (menagerie.KINDS.index(kind) for kind in ("bald eagle", "kite"))
MISLABELLED = (
    "as vit, on scenes of its own; in 60 % of those that hold a bald eagle its label is kite:",
    *RECIPE,
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options("vit-mislabelled", IMAGES, BATCH, arguments)
    model = untrained(layers=6, seed=3)
    data = Scenery(FIRST, BATCH, REPEATS, options.steps)
    seconds = learn("vit-mislabelled", model, data, wrong_shares, options)
    save("vit-mislabelled", model, data, options, seconds, MISLABELLED)


def wrong_shares(batch: Batch) -> torch.Tensor:
    """As in vit, from labels that the scene's seed may have made wrong."""
    wrong = torch.tensor([menagerie.draws(seed, "mislabelled").chance(WRONG) for seed in batch.seeds.tolist()])
    return equal_shares(batch.kinds.where(~(wrong[:, None] & (batch.kinds == EAGLE)), KITE))


if __name__ == "__main__":
    main()
