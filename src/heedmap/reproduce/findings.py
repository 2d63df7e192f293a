"""What a figure of a paper claims, what was measured, and whether it holds: decided by the numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.evaluation.statistics import Mean

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.families import Model
    from heedmap.records import Explanation

Measured = Mean | float | int | str
DATA = ("coco", "annotations", "questions", "regions")


@dataclass(frozen=True)
class Setting:
    """On what a figure is made: how many scenes it is measured on, by which models, or on whose pictures.

    `images` are photographs: they are explained and shown, and what needs ground truth is left out. `coco` is a folder
    of pictures that `annotations` describe; `questions` are asked about pictures whose regions are in `regions`, and
    `annotations` answer them. `step` is called with a share from 0 to 1 as the work goes on.
    """

    scenes: int = 500
    few: int = 100  # scenes of what takes many passes each: transfer, rewriting
    model: str | None = None
    images: tuple[Path, ...] = ()
    guide: str = "menagerie:zebra"
    coco: Path | None = None
    annotations: Path | None = None
    questions: Path | None = None
    regions: Path | None = None
    device: str | None = None
    step: Callable[[float], None] = field(default=lambda share: None, compare=False)

    def loaded(self, default: str) -> Model:
        """The model that was asked for, or the zoo's."""
        return self.own(self.model or default)

    def own(self, source: str) -> Model:
        """A model that the figure cannot do without, whatever was asked for."""
        from heedmap.families import load

        return load(source, device=self.device)

    def record(self) -> dict[str, Any]:
        """What the numbers depend on."""
        from heedmap import __version__

        return {
            "version": __version__,
            "scenes": self.scenes,
            "few": self.few,
            "model": self.model,
            "images": [str(path) for path in self.images],
            "guide": self.guide,
            **{name: str(path) for name in DATA if (path := getattr(self, name)) is not None},
        }


@dataclass(frozen=True)
class Part:
    """One thing that a figure says, the rule by which it is decided, and the numbers."""

    says: str
    rule: str
    holds: bool
    measured: Mapping[str, Measured]


@dataclass(frozen=True)
class Finding:
    """A figure made anew. `holds` is None where nothing could be measured: pictures without ground truth."""

    claim: str
    parts: Sequence[Part] = ()
    rows: Mapping[str, Sequence[Explanation]] = field(default_factory=dict)  # what is shown
    columns: int = 6
    drawings: Mapping[str, Image] = field(default_factory=dict)  # curves, strips: by file name
    note: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)  # further numbers, for the file

    @property
    def holds(self) -> bool | None:
        return all(part.holds for part in self.parts) if self.parts else None


def plain(measured: Any) -> Any:
    """Measured numbers as JSON has them, however deep they lie; what is no number is null."""
    if isinstance(measured, Mean):
        fields = {"mean": measured.value, "low": measured.low, "high": measured.high, "scenes": measured.count}
        return {name: plain(value) for name, value in fields.items()}
    if isinstance(measured, Mapping):
        return {str(name): plain(value) for name, value in measured.items()}
    if isinstance(measured, list | tuple):
        return [plain(value) for value in measured]
    return None if isinstance(measured, float) and not isfinite(measured) else measured
