"""Pictures as the regions that the zoo's detector finds in them: what the zoo's lxmert reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from heedmap.errors import ModelError
from heedmap.installs import quiet, transformers

from . import path
from .regions import Regions, regions

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def describe(pictures: Sequence[Image], folder: Path | None = None) -> list[Regions]:
    """The regions of each picture, by the zoo's detector or by the one in another folder."""
    model, processor = detector(folder)
    return regions(model, processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(model.device))


@cache
def detector(folder: Path | None = None):
    """The detector and its processor, loaded once."""
    folder = folder or path("detr")
    if not (folder / "config.json").is_file():
        raise ModelError(f"There is no detector at {folder}. Train it: training/README.md of the sources says how.")
    hf = transformers()
    with quiet(hf):
        return hf.DetrForObjectDetection.from_pretrained(folder).eval(), hf.AutoImageProcessor.from_pretrained(folder)


def padded(found: Sequence[Regions]) -> dict[str, Tensor]:
    """What LXMERT takes of regions: features, boxes, and which rows are regions (the others are zero)."""
    from torch import ones
    from torch.nn.utils.rnn import pad_sequence

    columns = {
        "visual_feats": [each.features for each in found],
        "visual_pos": [each.boxes for each in found],
        "visual_attention_mask": [ones(len(each), device=each.boxes.device) for each in found],
    }
    return {name: pad_sequence(rows, batch_first=True) for name, rows in columns.items()}
