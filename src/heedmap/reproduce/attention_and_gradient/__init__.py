"""The figures of *Transformer Interpretability from Perspective of Attention and Gradient*."""

from collections.abc import Callable, Mapping

from heedmap.reproduce.attention_and_gradient import changes, classes, corrections, details, guides, removals
from heedmap.reproduce.findings import Finding, Setting

_OF_PICTURES: Mapping[str, Callable[[Setting], Finding]] = {
    "figure-3": corrections.figure_3,
    "figure-4": corrections.figure_4,
    "figure-5": classes.figure_5,
    "figure-6": changes.figure_6,
    "figure-7": corrections.figure_7,
    "figure-8": guides.figure_8,
    "figure-9": details.figure_9,
    "figure-10": details.figure_10,
    "figure-11": changes.figure_11,
    "figure-12": removals.figure_12,
    "figure-13": classes.figure_13,
}

FIGURES = {"image-classification": _OF_PICTURES}  # by the task of the models they are of
