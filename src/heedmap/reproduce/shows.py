"""What stands in a figure's picture: the first scenes that were measured, never chosen ones; or a person's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.menagerie import Scene
from heedmap.reproduce.worlds import Ask

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation


def rows(model: Model, drawn: Sequence[Scene], asks: Sequence[Ask], **options: Any) -> dict[str, list[Explanation]]:
    """A row for each scene, a column for each ask."""
    return {f"scene {each.seed}": [one(model, each, ask, **options) for ask in asks] for each in drawn}


def one(model: Model, drawn: Scene, ask: Ask, **options: Any) -> Explanation:
    return model.explain(
        drawn.image,
        target=ask.target(drawn),
        against=ask.against and ask.against(drawn),
        loss=ask.loss,
        correction=ask.correction,
        method=ask.method,
        **options,
    )


def photographs(
    model: Model, images: Sequence[Path], asks: Sequence[Mapping[str, Any]]
) -> dict[str, list[Explanation]]:
    """A row for each picture, a column for each ask; `target` and `against` of an ask are ranks of the model's answers.

    Without a target the likeliest answer is explained.
    """
    found = {}
    for path in images:
        answers = [answer.label for answer in model.predict(str(path), top=2)[0]]
        found[path.name] = [model.explain(str(path), **_named(ask, answers)) for ask in asks]
    return found


def _named(ask: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
    """The ask with ranks turned into labels."""
    ranks = {"target": 0, **{name: ask[name] for name in ("target", "against") if name in ask}}
    return {**ask, **{name: answers[rank] for name, rank in ranks.items()}}
