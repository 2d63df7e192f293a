"""Figures 3, 4 and 7: what each correction of the gradient shows, and what that tells of the encoder."""

from __future__ import annotations

import numpy as np

from heedmap.evaluation.localisation import balance, ranks, share
from heedmap.evaluation.statistics import difference, mean
from heedmap.menagerie import Scene
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.shows import photographs, rows
from heedmap.reproduce.worlds import SEEDS, Ask, cosine, first, ground, pairs, relevance, second, singles

ABSOLUTE, POSITIVE, COMPLETE = (Ask(first, correction=name) for name in ("absolute", "positive", "complete"))
ALL = [{"correction": name} for name in ("absolute", "positive", "complete")]


def figure_3(setting: Setting) -> Finding:
    """Absolute and complete correction of pictures of one animal."""
    claim = (
        "The encoder extracts features of learned classes and ignores the background: absolute correction shows it. "
        "Complete correction cannot interpret all of a single class's region."
    )
    model = setting.loaded("zoo:vit")
    if setting.images:
        return Finding(claim, rows=photographs(model, setting.images, ALL))
    drawn = singles(setting.scenes, SEEDS + 3_000)
    absolute, positive, complete = relevance(model, drawn, [ABSOLUTE, POSITIVE, COMPLETE], setting.step)
    masks = [each.animals[0].mask for each in drawn]
    on_animal = mean([share(m, mask) for m, mask in zip(absolute, masks, strict=True)])
    area = mean([mask.mean() for mask in masks])
    told = {
        name: [ranks(m, mask) for m, mask in zip(maps, masks, strict=True)]
        for name, maps in (("absolute", absolute), ("positive", positive), ("complete", complete))
    }
    worse = difference(told["complete"], told["positive"])
    return Finding(
        claim,
        [
            Part(
                "Under absolute correction most relevance lies on the animal.",
                "the interval of its share lies above one half",
                on_animal.low > 0.5,
                {"share on the animal": on_animal, "share of the picture that it covers": area},
            ),
            Part(
                "Complete correction finds less of a single animal than positive correction.",
                "how often a pixel of the animal outranks one of the ground: the interval of the difference lies "
                "below 0",
                worse.high < 0,
                {**{name: mean(values) for name, values in told.items()}, "complete less positive": worse},
            ),
        ],
        rows(model, drawn[:4], [ABSOLUTE, COMPLETE]),
    )


def figure_4(setting: Setting) -> Finding:
    """Whether a correction tells two classes apart."""
    claim = "Absolute correction cannot distinguish categories; positive correction (GAE) can."
    model = setting.loaded("zoo:vit")
    if setting.images:
        return Finding(claim, rows=photographs(model, setting.images, ALL[:2]))
    drawn = pairs(setting.scenes, SEEDS + 4_000)
    kinds = ("absolute", "positive", "complete")
    asks = [Ask(who, correction=name) for name in kinds for who in (first, second)]
    maps = dict(
        zip([(name, i) for name in kinds for i in (0, 1)], relevance(model, drawn, asks, setting.step), strict=True)
    )
    apart = {
        name: [_apart(a, b, each) for a, b, each in zip(maps[name, 0], maps[name, 1], drawn, strict=True)]
        for name in kinds
    }
    absolute, positive = mean(apart["absolute"]), mean(apart["positive"])
    alike = mean([cosine(a, b) for a, b in zip(maps["absolute", 0], maps["absolute", 1], strict=True)])
    more = difference(apart["positive"], apart["absolute"])
    numbers = {f"{name}: share on an animal, named less unnamed": mean(apart[name]) for name in kinds}
    return Finding(
        claim,
        [
            Part(
                "Under absolute correction the maps of both animals are nearly the same.",
                "named or not, an animal's share differs by less than 0.1: the interval lies within ±0.1",
                absolute.low > -0.1 and absolute.high < 0.1,
                {"absolute": absolute, "cosine of the two absolute maps": alike},
            ),
            Part(
                "Positive correction tells them apart better.",
                "an animal gains more share by being named: the interval of the difference lies above 0",
                more.low > 0 and positive.low > 0,
                {**numbers, "positive less absolute": more},
            ),
        ],
        rows(model, drawn[:4], [Ask(who, correction=name) for who in (first, second) for name in kinds[:2]]),
    )


def figure_7(setting: Setting) -> Finding:
    """Complete correction of pictures of one animal, beside pictures of two."""
    claim = "Complete correction cannot interpret a picture of a single category directly."
    model = setting.loaded("zoo:vit")
    if setting.images:
        return Finding(claim, rows=photographs(model, setting.images, ALL[2:]))
    alone, paired = singles(setting.scenes, SEEDS + 7_000), pairs(setting.scenes, SEEDS + 7_000)
    step = setting.step
    (of_alone,) = relevance(model, alone, [COMPLETE], lambda done: step(done / 2))
    (of_paired,) = relevance(model, paired, [COMPLETE], lambda done: step(0.5 + done / 2))
    speaks = [
        mean([balance(m, each.animals[0].mask) for m, each in zip(maps, drawn, strict=True)])
        for maps, drawn in ((of_alone, alone), (of_paired, paired))
    ]
    strays = [
        mean([share(np.abs(m), ground(each)) for m, each in zip(maps, drawn, strict=True)])
        for maps, drawn in ((of_alone, alone), (of_paired, paired))
    ]
    return Finding(
        claim,
        [
            Part(
                "An animal speaks less plainly for its name alone than beside another.",
                "what the animal's pixels sum to over all that they say (-1 to 1): the intervals do not touch",
                speaks[0].high < speaks[1].low,
                {"alone": speaks[0], "beside another": speaks[1]},
            ),
            Part(
                "Alone, more relevance lies on the ground: the direction even points there.",
                "share of all relevance, of either sign, on the ground: the intervals do not touch",
                strays[0].low > strays[1].high,
                {"alone": strays[0], "beside another": strays[1]},
            ),
        ],
        rows(model, alone[:4], [COMPLETE, POSITIVE]),
    )


def _apart(of_first: np.ndarray, of_second: np.ndarray, drawn: Scene) -> float:
    """How much more share an animal has when it is named."""
    a, b = (animal.mask for animal in drawn.animals)
    return (share(of_first, a) - share(of_second, a) + share(of_second, b) - share(of_first, b)) / 2
