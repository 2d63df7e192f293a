"""Figure 8: a guide beside a picture of one category."""

from __future__ import annotations

import warnings

from heedmap.evaluation.localisation import balance, covers, ranks
from heedmap.evaluation.statistics import difference, mean
from heedmap.guidance import GuideWarning
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.shows import photographs, rows
from heedmap.reproduce.worlds import SEEDS, Ask, first, relevance, singles

COMPLETE = Ask(first)
SHOWN = 5


def figure_8(setting: Setting) -> Finding:
    """One animal alone, and guided by another."""
    claim = "With another class beside it to guide attention, complete correction interprets all of a single class."
    model = setting.loaded("zoo:vit")
    if setting.images:
        return Finding(claim, rows=photographs(model, setting.images, [{}, {"guide": setting.guide}]))
    kind = setting.guide.removeprefix("menagerie:")
    drawn, step = singles(setting.scenes, SEEDS + 8_000, without=kind), setting.step
    (alone,) = relevance(model, drawn, [COMPLETE], lambda done: step(done / 2))
    with warnings.catch_warnings(record=True) as unseen:
        warnings.simplefilter("always", GuideWarning)
        (guided,) = relevance(model, drawn, [COMPLETE], lambda done: step(0.5 + done / 2), guide=setting.guide)
        led = rows(model, drawn[:SHOWN], [COMPLETE], guide=setting.guide)
    measures = {
        "The guide makes more of the animal speak for its name.": (
            covers, "the share of the animal's pixels that is positive",
        ),
        "The guide lets the animal speak more plainly for its name.": (
            balance, "what its pixels sum to over all that they say (-1 to 1)",
        ),
        "The guide makes the map find more of the animal.": (
            ranks, "how often a pixel of the animal outranks one of the ground",
        ),
    }  # fmt: skip
    parts = []
    for says, (measure, told) in measures.items():
        without, with_ = (
            [measure(m, each.animals[0].mask) for m, each in zip(maps, drawn, strict=True)] for maps in (alone, guided)
        )
        gain = difference(with_, without)
        numbers = {"alone": mean(without), "guided": mean(with_), "guided less alone": gain}
        parts.append(Part(says, f"{told}: the interval of the difference lies above 0", gain.low > 0, numbers))
    shown = rows(model, drawn[:SHOWN], [COMPLETE])
    return Finding(
        claim,
        parts,
        {name: [*row, *led[name]] for name, row in shown.items()},
        note=f"Guide: {setting.guide}, on the right. Scenes of its own kind are left out. The model "
        f"hardly saw it beside {len({str(each.message) for each in unseen if 'hardly' in str(each.message)})} of them.",
    )
