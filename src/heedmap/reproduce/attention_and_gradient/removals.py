"""Figure 12: perturbation tests on pictures beside a guide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from heedmap import guidance
from heedmap.evaluation.charts import chart
from heedmap.evaluation.folders import Labelled, scenes
from heedmap.evaluation.perturbation import Perturbation, perturbation
from heedmap.evaluation.statistics import mean
from heedmap.families.pictures import read
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.worlds import SEEDS

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation

OURS, GAE = "heed", "gae"
SIMILAR = 2.0  # points of the area under the curve
SHOWN = 2
LEAST = 30  # fewer pictures decide nothing
EARLY = (0.1, 0.2, 0.3)  # fractions hidden: the beginning


def figure_12(setting: Setting) -> Finding:
    """Tokens hidden from most to least relevant, and the other way round."""
    claim = (
        "Hiding the most relevant first, complete correction and GAE are much alike; hiding the least relevant first, "
        "complete correction is clearly better, and at first the recognition rate even rises."
    )
    models = (setting.model,) if setting.model else ("zoo:vit", "zoo:vit-deep")
    parts, drawings, more = [], {}, {}
    shown: dict[str, list[Explanation]] = {}
    for i, source in enumerate(models):
        model = setting.own(source)
        looked_at = _pictures(setting, model)
        done = 0

        def told(count: int, i: int = i, whole: int = len(looked_at)) -> None:
            nonlocal done
            done += count
            setting.step((i + done / whole) / len(models))

        shown |= _maps(source, model, looked_at, setting.guide)
        result = perturbation(model, looked_at, (OURS, GAE), guide=setting.guide, progress=told)
        parts += _parts(source, result) if result.pictures >= LEAST else []
        name = source.rpartition(":")[2].rpartition("/")[2]
        drawings[name] = chart(result)
        more[source] = result.record()
    return Finding(
        claim,
        parts,
        dict(sorted(shown.items())),
        drawings=drawings,
        note=f"Guide: {setting.guide}; pictures of its own kind are left out. Tokens of the whole pair are hidden.",
        more=more,
    )


def _pictures(setting: Setting, model: Model) -> list[Labelled]:
    """Drawn scenes with their kinds; of photographs, what the model itself says of them."""
    if not setting.images:
        return scenes(setting.scenes, model.labels, SEEDS + 12_000)
    labels = {label: i for i, label in enumerate(model.labels)}
    answers = [model.predict(str(path), top=1)[0][0].label for path in setting.images]
    return [
        Labelled(path, labels[answer], answer, path.name) for path, answer in zip(setting.images, answers, strict=True)
    ]


def _maps(source: str, model: Model, looked_at: Sequence[Labelled], beside: str) -> dict[str, list[Explanation]]:
    """The maps by which the first pairs are hidden."""
    found = {}
    for each in looked_at[:SHOWN]:
        (pair,) = guidance.pair(model, [read(each.picture)], guidance.guide(beside))
        found[f"{each.name}, {source}"] = [
            model.explain(pair.image, target=each.index, method=name) for name in (OURS, GAE)
        ]
    return found


def _parts(source: str, result: Perturbation) -> list[Part]:
    areas = {order: {name: result.curve(name, order).auc for name in (OURS, GAE)} for order in ("positive", "negative")}
    gaps = {order: result.difference(OURS, GAE, order) for order in areas}
    hits = result.curve(OURS, "negative").hits
    early = [result.steps.index(step) for step in EARLY]
    rise = mean(hits[:, early].mean(1) - hits[:, 0].astype(np.float64))
    numbers = {
        order: {**{f"area, {name}": each for name, each in areas[order].items()}, "heed less gae": gaps[order]}
        for order in areas
    }
    return [
        Part(
            f"{source}: most relevant first, both are much alike.",
            f"the interval of the difference of the areas lies within {SIMILAR:g} points of 0",
            gaps["positive"].low > -SIMILAR and gaps["positive"].high < SIMILAR,
            numbers["positive"],
        ),
        Part(
            f"{source}: least relevant first, complete correction keeps the answer longer.",
            "the interval of the difference of the areas lies above 0",
            gaps["negative"].low > 0,
            numbers["negative"],
        ),
        Part(
            f"{source}: at first the recognition rate rises.",
            "accuracy with 0.1 to 0.3 hidden less that with nothing hidden: the interval lies above 0",
            rise.low > 0,
            {"accuracy with nothing hidden": mean(hits[:, 0]), "rise": rise},
        ),
    ]
