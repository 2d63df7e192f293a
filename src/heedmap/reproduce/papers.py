"""The papers: what each has, and what the models in it do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from heedmap.errors import InputError
from heedmap.reproduce import attention_and_gradient, heterogenous_attention
from heedmap.reproduce.findings import Finding, Setting

Make = Callable[[Setting], Finding]

DOES = {  # what a task is called where a model has another
    "image-classification": "classify pictures",
    "object-detection": "detect objects",
    "visual-question-answering": "answer questions about pictures",
}


@dataclass(frozen=True)
class Paper:
    """Its figures and tables, by the task of the models they are of; `note` is what its report says beside them."""

    title: str
    made: Mapping[str, Mapping[str, Make]]
    note: str = ""


PAPERS: Mapping[str, Paper] = {
    "attention-and-gradient": Paper(
        "Attention and gradient",
        attention_and_gradient.FIGURES,
        "For a model with one kind of token GAE is heed:positive.",
    ),
    "heterogenous-attention": Paper("Heterogenous attention", heterogenous_attention.FIGURES),
}


def figures(name: str) -> dict[str, Make]:
    """What a name such as `attention-and-gradient/figure-5` stands for, or all of a paper without the part behind."""
    known = {f"{paper}/{one}": make for paper, one, _, make in _all()}
    wanted = name.strip("/")
    if wanted in known:
        return {wanted: known[wanted]}
    if wanted in PAPERS:
        return {each: make for each, make in known.items() if each.startswith(f"{wanted}/")}
    near = get_close_matches(name, [*PAPERS, *known], n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There is {', '.join([*PAPERS, *known])}."
    raise InputError(f"{name!r} is not a figure that can be reproduced. {hint}")


def tasks(names: Mapping[str, Make]) -> dict[str, str]:
    """The task of the models that each figure is of."""
    return {name: task for paper, one, task, _ in _all() if (name := f"{paper}/{one}") in names}


def _all() -> list[tuple[str, str, str, Make]]:
    return [
        (name, one, task, make)
        for name, paper in PAPERS.items()
        for task, ones in paper.made.items()
        for one, make in ones.items()
    ]
