"""`python -m training.vit_deep`: twelve layers, grown from the six of vit."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import ViTForImageClassification

from .common import ZOO, read_options
from .scenery import Scenery
from .vit import BATCH, REPEATS, config, learn, save, shares

FIRST = 2_000_000
IMAGES = 64_000
RATE = 1.5e-3
RECIPE = (
    "grown from vit: each layer is followed by a copy whose output projections start at zero, so that the twelve "
    "layers begin by computing what the six do",
    "then trained as vit on scenes of its own, 63 of 144 patches for the first four fifths, rate 1.5e-3",
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options("vit-deep", IMAGES, BATCH, arguments)
    model = grown(ZOO / "vit")
    data = Scenery(FIRST, BATCH, REPEATS, options.steps)
    seconds = learn("vit-deep", model, data, shares, options, RATE, few=0.8)
    save("vit-deep", model, data, options, seconds, RECIPE)


def grown(source: Path) -> ViTForImageClassification:
    """Each layer and a copy of it that adds nothing yet."""
    torch.manual_seed(1)
    small = ViTForImageClassification.from_pretrained(source, dtype=torch.float32)
    model = ViTForImageClassification(config(2 * small.config.num_hidden_layers))
    model.vit.embeddings.load_state_dict(small.vit.embeddings.state_dict())
    model.vit.layernorm.load_state_dict(small.vit.layernorm.state_dict())
    model.classifier.load_state_dict(small.classifier.state_dict())
    for i, layer in enumerate(small.vit.layers):
        model.vit.layers[2 * i].load_state_dict(layer.state_dict())
        silent = copy.deepcopy(layer.state_dict())
        for name, values in silent.items():
            if name.startswith(("attention.o_proj", "mlp.fc2")):
                values.zero_()
        model.vit.layers[2 * i + 1].load_state_dict(silent)
    return model


if __name__ == "__main__":
    main()
