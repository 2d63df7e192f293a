"""A model by the name on the command line, and what is asked of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.cli.talk import UsageError, busy, one_line, one_of
from heedmap.errors import HeedmapError, InputError

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation

DETECTION = "object-detection"
# detectors whose queries already know when they read
NORMALISE_BEHIND = ("detr", "conditional_detr", "deformable_detr", "rt_detr", "rt_detr_v2")
LOSSES = ("difference", "ratio", "relative")
CORRECTIONS = ("complete", "positive", "absolute")


@dataclass(frozen=True)
class Wish:
    """What to explain and how; what is None is left to the model."""

    targets: tuple[str | int | None, ...] = (None,)
    against: str | int | None = None
    loss: str | None = None
    correction: str | None = None
    method: str | None = None
    guide: Any = None
    side: str | None = None

    def __post_init__(self) -> None:
        """What can be told without a model."""
        if self.loss is not None:
            one_of("--loss", self.loss, LOSSES)
        if self.correction is not None:
            one_of("--correction", self.correction, CORRECTIONS)
        if self.loss and self.against is None:
            raise UsageError(f"--loss {self.loss} compares two answers. Give --against too.")
        if self.side is not None:
            from heedmap.guidance import SIDES

            one_of("--side", self.side, tuple(SIDES))
            if self.guide is None:
                raise UsageError("--side says where a guide stands. Give --guide too.")
        plain = [_plain(target) for target in self.targets]
        if "" in (*plain, _plain(self.against)):
            raise UsageError("--target and --against want a label or an index. What was given is empty.")
        if self.against is not None and _plain(self.against) in plain:
            raise UsageError(f"--target and --against are both {self.against!r}. Name two different answers.")

    def checked(self) -> Wish:
        """The same, certain that its method exists and does not contradict its correction."""
        from heedmap.methods import method

        try:
            _, chosen, named = method(self.method or "heed")
        except InputError as error:
            raise UsageError(str(error)) from error
        if self.correction and "correction" not in signature(chosen.run).parameters:
            raise UsageError(f"--method {self.method} takes no --correction. Leave it out, or take heed.")
        said = named.get("correction")
        if self.correction and said not in (None, self.correction):
            raise UsageError(f"--method {self.method} says {said}, --correction {self.correction} another. Give one.")
        return self

    def read(self) -> Wish:
        """The same with the guide as a picture, so that a bad one is told before a model is loaded."""
        if self.guide is None:
            return self
        from heedmap.guidance import guide

        try:
            return replace(self, guide=guide(self.guide))
        except InputError as error:
            raise UsageError(f"--guide: {error}") from error

    def among(self, labels: tuple[str, ...]) -> Wish:
        """The same with indices where numbers were given that are no labels."""
        targets = tuple(_index(target, labels) for target in self.targets)
        return replace(self, targets=targets, against=_index(self.against, labels))

    @property
    def open(self) -> bool:
        """Whether the model says what is explained."""
        return self.targets == (None,) and self.against is None

    @property
    def signed(self) -> bool:
        """Whether what comes out has a sign: heed under complete correction."""
        name, _, variant = (self.method or "heed").partition(":")
        return name == "heed" and (self.correction or variant or "complete") == "complete"

    def options(self) -> dict[str, Any]:
        """What to pass on."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}


def targets(given: Sequence[str] | None) -> tuple[str | None, ...]:
    """Each --target once; without one, the prediction."""
    return tuple(dict.fromkeys(given)) if given else (None,)


def known(source: str) -> None:
    """Refuse what is no model's name, before anything heavy is imported."""
    from heedmap.sources import place

    try:
        place(source)
    except HeedmapError as error:
        raise UsageError(str(error)) from error


def loaded(source: str, task: str | None = None, device: str | None = None) -> Model:
    """The model; a name, a task or a device that there is not is a mistake of the command line."""
    known(source)
    with busy(f"loading {source}"):
        import heedmap

        try:
            return heedmap.load(source, task=task, device=device)
        except InputError as error:
            raise UsageError(one_line(error)) from error


def explained(
    model: Model,
    shown: Mapping[str, Any],
    wish: Wish,
    threshold: float,
    told: Callable[[int, int], None] | None = None,
) -> list[Explanation]:
    """One explanation for each target; where none is named of a detector, one for each object that it is sure of.

    `told` hears how much is done.
    """
    how = wish.options() | telling(wish, told)
    asked = how.pop("targets")
    unnamed = model.task == DETECTION and wish.open
    if unnamed and (found := model.explain_detections(shown["image"], threshold=threshold, **how)):
        return found
    return model.explain_each(**shown, targets=asked, **how)


def telling(wish: Wish, told: Callable[[int, int], None] | None) -> dict[str, Any]:
    """What makes a method tell how much is done: of many targets, or of the many runs that it takes."""
    from heedmap.methods import method

    takes = "progress" in signature(method(wish.method or "heed")[1].run).parameters
    return {"progress": told} if takes and told is not None else {}


def caution(model: Model, wish: Wish) -> str | None:
    """What to know of a sign that is no statement about the object (docs/detections.md)."""
    if not wish.signed or model.config.model_type not in NORMALISE_BEHIND:
        return None
    return (
        f"Under complete correction the sign says little about an object that {model.source} detects, because it "
        "normalises behind each attention call. To see where the object is, take --correction positive."
    )


def doubt(explanations: Sequence[Explanation], wish: Wish, threshold: float) -> str | None:
    """A word of warning where a detector is not sure of what was explained."""
    seen = [(one.answer, one.sure) for each in explanations for one in each.shown[:1]]
    told = ", ".join(f"{answer} ({_percent(sure)})" for answer, sure in seen if sure is not None and sure < threshold)
    if not told:
        return None
    if wish.open:
        return f"no object is {_percent(threshold)} sure (--threshold). Its surest one is explained instead: {told}."
    return f"the model is not sure of {told}. Its likeliest box is explained."


def reader(model: Model, regions: Path | None = None) -> Callable[[Path], Any]:
    """What makes of a path what the model is given: a picture, read so that a bad one is told by itself.

    Sounds, and pictures whose regions are looked up by name, are given as paths.
    """
    from heedmap.families.pictures import read

    return (lambda path: path) if regions is not None or hears(model) else read


def given(
    model: Model,
    things: Sequence[Any],
    text: Any = None,
    regions: Path | None = None,
    prefix: str | None = None,
    chat: bool = False,
    system: str | None = None,
) -> dict[str, Any]:
    """The arguments that stand for what is looked at: pictures or sounds, a text, and what else was given."""
    thing = "sound" if hears(model) else "image"
    if text is not None and chat:
        said = [("user", text)] if system is None else [("system", system), ("user", text)]
        text = [{"role": role, "content": content} for role, content in said]
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
        pixels=None if explanation.pixels is None else explanation.pixels[i : i + 1],
    )


def _index(text: str | int | None, labels: tuple[str, ...]) -> str | int | None:
    return int(text) if isinstance(text, str) and re.fullmatch(r"-?\d+", text) and text not in labels else text


def _percent(share: float) -> str:
    """With as many digits as tell it from all and from nothing."""
    if share < 1e-4:
        return "less than 0.01%"
    return f"{100 * share:.2g}%" if share < 0.995 else f"{100 - float(f'{100 - 100 * share:.2g}'):.8g}%"


def _plain(text: str | int | None) -> str | None:
    return None if text is None else str(text).strip().casefold()
