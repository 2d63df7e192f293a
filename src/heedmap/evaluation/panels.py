"""Soft accuracy while regions, or words, are removed: a chart for each modality and order, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heedmap.evaluation.charts import BETTER
from heedmap.evaluation.masking import ORDERS
from heedmap.evaluation.questions import Removal
from heedmap.evaluation.removing import STEPS

if TYPE_CHECKING:
    from PIL.Image import Image

UNITS = {"image": "regions", "text": "words"}


def panels(result: Removal, width: int = 620, height: int = 340) -> Image:
    """A row for each modality."""
    from PIL import Image as images

    rows: dict[str, list[Image]] = {}
    for modality, order in result.panels:
        rows.setdefault(modality, []).append(_panel(result, modality, order, width, height))
    whole = images.new("RGB", (width * max(map(len, rows.values())), height * len(rows)), "white")
    for down, row in enumerate(rows.values()):
        for across, each in enumerate(row):
            whole.paste(each, (across * width, down * height))
    return whole


def _panel(result: Removal, modality: str, order: str, width: int, height: int) -> Image:
    from heedmap.render import curves

    # Who is silent somewhere comes last, so that all others have the same colour in every chart.
    chosen = sorted(result.panel(modality, order), key=lambda one: one.method in result.silent)
    return curves(
        {one.method: (STEPS, [each.value for each in one.accuracy]) for one in chosen},
        title=f"{UNITS[modality].capitalize()}, {ORDERS[order]}: {BETTER[order]}",
        across=f"fraction of the {UNITS[modality]} removed",
        up=f"soft accuracy of {result.model} on {result.questions:,} questions",
        bands={
            one.method: ([each.low for each in one.accuracy], [each.high for each in one.accuracy]) for one in chosen
        },
        between=(0, 1),
        width=width,
        height=height,
    )
