"""Figure 8: a guide beside a picture of one category."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from heedmap.evaluation.localisation import balance, covers, ranks
from heedmap.evaluation.statistics import difference, mean
from heedmap.guidance import GuideWarning, guide
from heedmap.guidance.guides import DRAWN
from heedmap.menagerie import KINDS
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.shows import photographs, rows
from heedmap.reproduce.worlds import GREY, SEEDS, Ask, first, relevance, singles

if TYPE_CHECKING:
    from heedmap.families import Model

COMPLETE = Ask(first)
SHOWN = 5


def figure_8(setting: Setting) -> Finding:
    """One animal alone, and guided by another."""
    claim = "With another class beside it to guide attention, complete correction interprets all of a single class."
    model = setting.loaded("zoo:vit")
    if setting.images:
        return Finding(claim, rows=photographs(model, setting.images, [{}, {"guide": setting.guide}]))
    drawn, step = singles(setting.scenes, SEEDS + 8_000, without=shows(model, setting.guide)), setting.step
    (alone,) = relevance(model, drawn, [COMPLETE], lambda done: step(done / 3))
    with warnings.catch_warnings(record=True) as unseen:
        warnings.simplefilter("always", GuideWarning)
        (guided,) = relevance(model, drawn, [COMPLETE], lambda done: step((1 + done) / 3), guide=setting.guide)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GuideWarning)  # of the same scenes again, and of what is no guide
        led = rows(model, drawn[:SHOWN], [COMPLETE], guide=setting.guide)
        plain = np.full((*np.asarray(drawn[0].image).shape,), GREY, np.uint8)
        (squeezed,) = relevance(model, drawn, [COMPLETE], lambda done: step((2 + done) / 3), guide=plain)
    hardly = sum("hardly" in str(each.message) for each in unseen)
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
    says = {
        name: [balance(m, each.animals[0].mask) for m, each in zip(maps, drawn, strict=True)]
        for name, maps in (("guided", guided), ("beside plain grey", squeezed))
    }
    more = difference(says["guided"], says["beside plain grey"])
    parts.append(
        Part(
            "It is the other class that does it, not the smaller picture.",
            "what the animal's pixels sum to over all that they say, beside the guide less beside plain grey: the "
            "interval lies above 0",
            more.low > 0,
            {**{name: mean(values) for name, values in says.items()}, "guided less beside plain grey": more},
        )
    )
    shown = rows(model, drawn[:SHOWN], [COMPLETE])
    return Finding(
        claim,
        parts,
        {name: [*row, *led[name]] for name, row in shown.items()},
        note=f"Guide: {setting.guide}, on the right. Scenes of its own kind are left out. The model hardly saw it "
        f"beside {hardly} of the {len(drawn)}.",
    )


def shows(model: Model, source: str) -> str:
    """What a guide shows: what is drawn, or what the model sees on a photograph."""
    drawn = source.removeprefix(DRAWN)
    return drawn if drawn in KINDS else model.predict(guide(source), top=1)[0][0].label
