"""`python -m training.vit_deep`: as vit, with twelve layers."""

from __future__ import annotations

from collections.abc import Sequence

from .common import read_options
from .scenery import Scenery
from .vit import BATCH, IMAGES, RECIPE, REPEATS, learn, save, shares, untrained

FIRST = 2_000_000
RATE = 3e-3
DEEP = ("as vit, with 12 layers, scenes of its own and rate 3e-3:", *RECIPE)


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options("vit-deep", IMAGES, BATCH, arguments)
    model = untrained(layers=12, seed=1)
    data = Scenery(FIRST, BATCH, REPEATS, options.steps)
    seconds = learn("vit-deep", model, data, shares, options, RATE)
    save("vit-deep", model, data, options, seconds, DEEP)


if __name__ == "__main__":
    main()
