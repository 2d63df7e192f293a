"""A rewritten picture as things one can look at: a sheet, a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.experiments.rewrite import Reading, Rewriting
    from heedmap.records import Explanation


def sheet(found: Rewriting) -> Image:
    """Before, after and what was changed; below them what explains either."""
    from heedmap.render.painting import painted
    from heedmap.render.rewriting import NOTE, Shot, amplified, rewriting_sheet

    difference, factor = amplified(found.change)
    shots = (
        Shot("picture", _first(found.before), found.original),
        Shot("rewritten", _first(found.after), found.rewritten),
        Shot(f"difference × {factor}", f"at most {found.numbers['largest']} levels", difference),
    )
    return painted(rewriting_sheet(shots, rows(found), f"{size(found)} {NOTE}"))


def page(found: Rewriting, model: str) -> str:
    """The explanations as HTML that needs nothing else."""
    from heedmap.render import page

    lead = f"{found.message} {size(found)} To the model it is something else now; look how much of that you see."
    captions = [
        f"Logits: {found.source} {reading.logits[0]:.2f}, {found.to} {reading.logits[1]:.2f}. "
        f"Probabilities: {reading.probabilities[0]:.1%} and {reading.probabilities[1]:.1%}."
        for reading in (found.before, found.after)
    ]
    title = f"{found.before.answers[0].label} rewritten as {found.to}"
    return page(rows(found), title=title, lead=f"{lead} Model: {model}.", captions=captions)


def size(found: Rewriting) -> str:
    """How much was changed, in a line."""
    told = found.numbers
    return (
        f"PSNR {told['psnr']:.1f} dB, SSIM {told['ssim']:.4f}; changed by {told['mean']:.2f} of 255 levels on average, "
        f"at most {told['largest']}."
    )


def rows(found: Rewriting) -> dict[str, tuple[Explanation, ...]]:
    """What explains the picture before and after."""
    return {"before": found.explained_before, "after": found.explained_after}


def _first(reading: Reading) -> str:
    answer = reading.answers[0]
    return f"{answer.label} {answer.value:.1%}"
