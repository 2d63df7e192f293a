"""A transfer of attention as things one can look at: a strip, an animation, a chart, a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from heedmap.records import Explanation

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from heedmap.experiments.transfer import Step, Transfer

FRAMES = 26  # of an animation: with 100 steps, every fourth
PACE, REST = 160, 2500  # milliseconds of a frame, and of the last one
WHITE = (255, 255, 255)
SAMPLED = 5  # frames whose colours are looked at


def strip(transfer: Transfer, keep: int = 8, side: float = 150, scale: float = 1) -> Image:
    """What speaks for either answer, a row each, as its logit descends from left to right."""
    from heedmap.render import picture

    return picture(rows(transfer, keep), side=side, scale=scale, columns=keep)


def page(transfer: Transfer, keep: int = 8) -> str:
    """The same as HTML that needs nothing else."""
    from heedmap.render import page

    first, last = transfer.steps[0], transfer.steps[-1]
    lead = (
        f"The attention weights of {transfer.source} descend the logit of {transfer.target}, {transfer.rate:g} of its "
        f"gradient at a time, and nothing else of the model changes. In {last.number} steps it went from "
        f"{_number(first.logits[0])} to {_number(last.logits[0])}, and that of {transfer.other} from "
        f"{_number(first.logits[1])} to {_number(last.logits[1])}."
    )
    title = f"Attention transfer: {transfer.target} to {transfer.other}"
    return page(rows(transfer, keep), title=title, lead=lead)


def chart(transfer: Transfer, width: int = 640, height: int = 400) -> Image:
    """Both logits, step by step."""
    from heedmap.render import curves

    numbers = [step.number for step in transfer.steps]
    lines = {
        name: (numbers, [step.logits[i] for step in transfer.steps])
        for i, name in enumerate((transfer.target, transfer.other))
    }
    title = f"Attention weights descend the logit of {transfer.target}"
    return curves(lines, title=title, across="step", up="logit", width=width, height=height)


def animation(transfer: Transfer, file: str | Path | BinaryIO, frames: int = FRAMES, side: float = 260) -> None:
    """Write a GIF: at every frame the step, both logits and what speaks for either answer. The last frame rests."""
    images = [_frame(step, side) for step in transfer.kept(frames)]
    first, *rest = _reduced(images)
    times = [PACE] * len(rest) + [REST]
    first.save(file, "GIF", save_all=True, append_images=rest, duration=times, loop=0, disposal=1)


def rows(transfer: Transfer, keep: int = 8) -> dict[str, list[Explanation]]:
    """What speaks for either answer, a row each, step by step."""
    steps = transfer.kept(keep)
    return {
        f"{transfer.target} explained": [_titled(step.target, step) for step in steps],
        f"{transfer.other} explained": [_titled(step.other, step) for step in steps],
    }


def _titled(explanation: Explanation, step: Step) -> Explanation:
    """Called by its step: the row says which answer it is."""
    return replace(explanation, shown=tuple(replace(one, answer=f"step {step.number}") for one in explanation.shown))


def _frame(step: Step, side: float) -> Image:
    from heedmap.render import picture

    return picture({f"step {step.number}": [step.target, step.other]}, side=side, given=False)


def _reduced(images: Sequence[Image]) -> list[Image]:
    """Of one size, and in colours that all share: a GIF has 256, and those of the map are rare among so much grey."""
    import numpy as np
    from PIL import Image as Images

    width, height = max(image.width for image in images), max(image.height for image in images)
    some = images[:: max(1, len(images) // SAMPLED)]
    sample = Images.new("RGB", (width, height * len(some)), "white")
    for i, image in enumerate(some):
        sample.paste(image, (0, i * height))
    palette = sample.quantize(256, method=Images.Quantize.MAXCOVERAGE)
    colours = palette.getpalette() or []
    lightest = max(range(len(colours) // 3), key=lambda i: sum(colours[3 * i : 3 * i + 3]))
    colours[3 * lightest : 3 * lightest + 3] = WHITE
    palette.putpalette(colours)
    made = []
    for image in images:
        ground = Images.new("RGB", (width, height), "white")
        ground.paste(image)
        reduced = ground.quantize(palette=palette, dither=Images.Dither.FLOYDSTEINBERG)
        # Pillow takes a colour near the nearest one, and around the panels it would be seen.
        blank = np.asarray(ground).min(-1) == 255
        reduced.paste(lightest, mask=Images.fromarray(blank))
        made.append(reduced)
    return made


def _number(value: float) -> str:
    from heedmap.render.units import number

    return number(value)
