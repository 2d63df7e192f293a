"""Figures 5 and 13: several classes in one picture, for and against at once, by every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from heedmap.evaluation.localisation import balance, points, share
from heedmap.evaluation.statistics import difference, mean
from heedmap.menagerie import Scene
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.shows import photographs, rows
from heedmap.reproduce.worlds import SEEDS, Ask, Maps, first, ground, pairs, relevance, second

OURS, GAE = "heed", "gae"
# Those that can tell classes apart and cost one forward and backward, the cheapest one with a sign among them; positive
# correction is GAE here. What the slower ones are worth stands in the leaderboard.
COMPARED = (
    OURS,
    "heed:absolute",
    GAE,
    "gradcam-attention",
    "gradcam",
    "layercam",
    "gmar",
    "inputxgradient",
)


def figure_5(setting: Setting) -> Finding:
    """Two animals, one of them named."""
    claim = (
        "Complete correction gives the target positive and the other class negative attention at once, with less noise "
        "on the background than GAE, which gives other classes positive attention too."
    )
    model = setting.loaded("zoo:vit")
    if setting.images:
        return Finding(claim, rows=photographs(model, setting.images, [{"method": name} for name in (OURS, GAE)]))
    drawn = pairs(setting.scenes, SEEDS + 5_000)
    ours, gae = relevance(model, drawn, [Ask(first, method=name) for name in (OURS, GAE)], setting.step)
    on_target, on_other, off = (_over(drawn, part) for part in (_target, _other, ground))
    for_target, against_other = mean(on_target(share, ours)), mean(on_other(_against, ours))
    other_says = mean(on_other(balance, ours))
    to_other = {name: on_other(share, maps) for name, maps in (("heed", ours), ("GAE", gae))}
    noise = {name: off(_either, maps) for name, maps in (("heed", ours), ("GAE", gae))}
    spared, quieter = difference(to_other["GAE"], to_other["heed"]), difference(noise["GAE"], noise["heed"])
    return Finding(
        claim,
        [
            Part(
                "What speaks for the target lies on the target.",
                "the interval of its share lies above one half",
                for_target.low > 0.5,
                {
                    "share of positive on the target": for_target,
                    "strongest pixel on the target": mean(on_target(points, ours)),
                },
            ),
            Part(
                "What speaks against it lies on the other animal.",
                "the interval of its share lies above one half, and what the other animal sums to below 0",
                against_other.low > 0.5 and other_says.high < 0,
                {"share of negative on the other": against_other, "balance of the other (-1 to 1)": other_says},
            ),
            Part(
                "GAE gives the other animal more positive attention.",
                "share of positive on the other: the interval of the difference lies above 0",
                spared.low > 0,
                {**{name: mean(values) for name, values in to_other.items()}, "GAE less heed": spared},
            ),
            Part(
                "GAE leaves more on the background.",
                "share of all relevance, of either sign, on the ground: the interval of the difference lies above 0",
                quieter.low > 0,
                {**{name: mean(values) for name, values in noise.items()}, "GAE less heed": quieter},
            ),
        ],
        rows(model, drawn[:4], [Ask(who, method=name) for who in (first, second) for name in (OURS, GAE)]),
    )


def figure_13(setting: Setting) -> Finding:
    """Many methods side by side, on a smaller and a larger model."""
    claim = "Only complete correction gives both signs, so it keeps the target from the other class best."
    asks = [Ask(first, method=name) for name in COMPARED]
    if setting.images:
        model = setting.loaded("zoo:vit")
        return Finding(claim, rows=photographs(model, setting.images, [{"method": name} for name in COMPARED]))
    drawn = pairs(setting.scenes, SEEDS + 13_000)
    models = (setting.model,) if setting.model else ("zoo:vit", "zoo:vit-deep")
    found, shown = [], {}
    for i, source in enumerate(models):
        model = setting.own(source)
        maps = relevance(model, drawn, asks, lambda done, i=i: setting.step((i + done) / len(models)))
        found += _compared(source, drawn, dict(zip(COMPARED, maps, strict=True)))
        shown |= {f"{name}, {source}": row for name, row in rows(model, drawn[:3], asks).items()}
    return Finding(claim, found, dict(sorted(shown.items())), note=f"Methods compared: {', '.join(COMPARED)}.")


def _compared(source: str, drawn: Sequence[Scene], maps: Mapping[str, Maps]) -> list[Part]:
    on_target, on_other = (_over(drawn, part) for part in (_target, _other))
    shares = {name: on_target(share, each) for name, each in maps.items()}
    others = {name: mean(on_other(balance, each)) for name, each in maps.items()}
    ahead = {name: difference(shares[OURS], values) for name, values in shares.items() if name != OURS}
    return [
        Part(
            f"{source}: of all methods, most of what complete correction calls positive lies on the target.",
            "share of positive on the target: the interval of the difference to each other method lies above 0",
            all(each.low > 0 for each in ahead.values()),
            {
                **{name: mean(values) for name, values in shares.items()},
                **{f"heed less {name}": d for name, d in ahead.items()},
            },
        ),
        Part(
            f"{source}: only complete correction lets the other animal speak against the target.",
            "what the other animal sums to (-1 to 1): the interval lies below 0 for it, for no other",
            [name for name, each in others.items() if each.high < 0] == [OURS],
            others,
        ),
    ]


def _target(drawn: Scene) -> np.ndarray:
    return drawn.animals[0].mask


def _other(drawn: Scene) -> np.ndarray:
    return drawn.animals[1].mask


def _against(values: np.ndarray, mask: np.ndarray) -> float:
    return share(values, mask, -1)


def _either(values: np.ndarray, mask: np.ndarray) -> float:
    return share(np.abs(values), mask)


def _over(drawn: Sequence[Scene], part: Callable[[Scene], np.ndarray]) -> Callable[..., list[float]]:
    """A measure of maps, taken scene by scene on one part of each."""
    masks = [part(each) for each in drawn]
    return lambda measure, maps: [measure(m, mask) for m, mask in zip(maps, masks, strict=True)]
