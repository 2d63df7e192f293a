"""A model by the name on the command line, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.cli.talk import UsageError, busy, one_of
from heedmap.errors import InputError

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation

LOSSES = ("difference", "ratio", "relative")
CORRECTIONS = ("complete", "positive", "absolute")


@dataclass(frozen=True)
class Wish:
    """What to explain and how; what is None is left to the model."""

    target: str | int | None = None
    against: str | int | None = None
    loss: str | None = None
    correction: str | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        """What can be told without a model."""
        if self.loss is not None:
            one_of("--loss", self.loss, LOSSES)
        if self.correction is not None:
            one_of("--correction", self.correction, CORRECTIONS)
        if self.loss and self.against is None:
            raise UsageError(f"--loss {self.loss} compares two answers. Give --against too.")
        if "" in (_plain(self.target), _plain(self.against)):
            raise UsageError("--target and --against want a label or an index. What was given is empty.")
        if self.against is not None and _plain(self.against) == _plain(self.target):
            raise UsageError(f"--target and --against are both {self.target!r}. Name two different answers.")

    def checked(self) -> Wish:
        """The same, certain that its method exists and does not contradict its correction."""
        from heedmap.methods import method

        try:
            said = method(self.method or "heed")[2].get("correction")
        except InputError as error:
            raise UsageError(str(error)) from error
        if self.correction and said not in (None, self.correction):
            raise UsageError(f"--method {self.method} says {said}, --correction {self.correction} another. Give one.")
        return self

    def among(self, labels: tuple[str, ...]) -> Wish:
        """The same with indices where numbers were given that are no labels."""
        return replace(self, target=_index(self.target, labels), against=_index(self.against, labels))

    def options(self) -> dict[str, Any]:
        """What to pass on."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}


def loaded(source: str, task: str | None = None, device: str | None = None) -> Model:
    with busy(f"loading {source}"):
        import heedmap

        return heedmap.load(source, task=task, device=device)


def reader(model: Model, regions: Path | None = None) -> Callable[[Path], Any]:
    """What makes of a path what the model is given: a picture, read so that a bad one is told by itself.

    Sounds, and pictures whose regions are looked up by name, are given as paths.
    """
    from heedmap.families.pictures import read

    return (lambda path: path) if regions is not None or hears(model) else read


def given(
    model: Model, things: Sequence[Any], text: Any = None, regions: Path | None = None, prefix: str | None = None
) -> dict[str, Any]:
    """The arguments that stand for what is looked at: pictures or sounds, a text, and what else was given."""
    thing = "sound" if hears(model) else "image"
    named = {thing: list(things) if len(things) > 1 else things[0], "text": text, "regions": regions, "prefix": prefix}
    return {name: value for name, value in named.items() if value is not None}


def hears(model: Model) -> bool:
    from heedmap.families.tasks import TASKS

    return "sound" in TASKS[model.task].takes


def example(explanation: Explanation, i: int) -> Explanation:
    """One example of a batch, as if it had been explained alone."""
    if explanation.value.numel() == 1:
        return explanation
    predicted = explanation.predicted and (explanation.predicted[i],)
    return replace(
        explanation,
        target=f"logit({predicted[0]!r})" if predicted else explanation.target,
        value=explanation.value[i : i + 1],
        relevance={name: flowed[i : i + 1] for name, flowed in explanation.relevance.items()},
        starts={name: start[i : i + 1] for name, start in explanation.starts.items()},
        predicted=predicted,
        shown=explanation.shown[i : i + 1],
    )


def _index(text: str | int | None, labels: tuple[str, ...]) -> str | int | None:
    return int(text) if isinstance(text, str) and text.isdecimal() and text not in labels else text


def _plain(text: str | int | None) -> str | None:
    return None if text is None else str(text).strip().casefold()
