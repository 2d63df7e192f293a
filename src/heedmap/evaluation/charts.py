"""Measured curves as a picture: a chart for each order, under one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heedmap.evaluation.masking import ORDERS
from heedmap.evaluation.perturbation import Perturbation

if TYPE_CHECKING:
    from PIL.Image import Image

BETTER = {"positive": "lower is better", "negative": "higher is better"}
HIDDEN = {"mean": "under the mean colour", "zero": "under black", "drop": "left out"}


def chart(result: Perturbation, width: int = 640, height: int = 340) -> Image:
    from PIL import Image

    drawn = [_chart(result, order, width, height) for order in dict.fromkeys(one.order for one in result.curves)]
    whole = Image.new("RGB", (width, height * len(drawn)), "white")
    for i, each in enumerate(drawn):
        whole.paste(each, (0, i * height))
    return whole


def _chart(result: Perturbation, order: str, width: int, height: int) -> Image:
    from heedmap.render import curves

    chosen = [one for one in result.curves if one.order == order]
    beside = f", beside a {result.guide}" if result.guide else ""
    return curves(
        {one.method: (one.steps, [each.value for each in one.accuracy]) for one in chosen},
        title=f"{ORDERS[order].capitalize()}: {BETTER[order]}",
        across=f"fraction of the {result.unit}s {HIDDEN[result.mask]}",
        up=f"accuracy of {result.model} on {result.pictures:,} pictures{beside}",
        bands={
            one.method: ([each.low for each in one.accuracy], [each.high for each in one.accuracy]) for one in chosen
        },
        between=(0, 1),
        width=width,
        height=height,
    )
