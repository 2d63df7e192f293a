"""Figures 9 and 10: which detail of one animal decides between two names, and what that uncovers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from heedmap.errors import QuotientError
from heedmap.evaluation.localisation import balance, share, spread
from heedmap.evaluation.statistics import Mean, difference, mean
from heedmap.menagerie import SHARED, Scene
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.shows import photographs
from heedmap.reproduce.worlds import SEEDS, Ask, agrees, cosine, effects, explained, gains, of, parts, relevance

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation

LOSSES = ("difference", "ratio", "relative")
QUOTIENTS = 20  # scenes of each pair that the losses with a quotient are tried on
OTHER = "owl"  # a bird that is neither


def figure_9(setting: Setting) -> Finding:
    """Every pair of kinds that share a drawing, both ways."""
    claim = (
        "A loss that sets two classes of one object against each other shows the detail on which the model decides: "
        "(a - b) / a, a - b and a / b alike."
    )
    model = setting.loaded("zoo:vit")
    if setting.images:
        return Finding(claim, rows=photographs(model, setting.images, [{"against": 1}, {"target": 1, "against": 0}]))
    ways = list(_ways())
    each = -(-setting.scenes // len(ways))
    found: list[Part] = []
    shown: dict[str, list[Explanation]] = {}
    quotients: dict[str, list[float]] = {loss: [] for loss in LOSSES[1:]}
    for i, (kind, other, names) in enumerate(ways):
        drawn = of(kind, each, SEEDS + 9_000)
        ask = _between(kind, other)
        (maps,) = relevance(model, drawn, [ask], lambda done, i=i: setting.step((i + done) / len(ways)))
        deciding = [parts(each.animals[0], names) for each in drawn]
        found.append(_decides(kind, other, names, deciding, maps, effects(model, drawn, deciding, ask)))
        shown.setdefault(kind, explained_alone(model, drawn[:1], Ask(_always(kind))))
        shown[kind] += explained_alone(model, drawn[:1], ask)
        for loss in LOSSES[1:]:
            quotients[loss] += _alike(model, _between(kind, other, loss), drawn[:QUOTIENTS], maps)
    alike = {f"{loss} and difference": mean(values) for loss, values in quotients.items()}
    asked = len(ways) * min(QUOTIENTS, each)
    found.append(
        Part(
            "The three losses show the same.",
            "cosine of the maps of each quotient and of the difference: the intervals lie above one half",
            all(one.low > 0.5 for one in alike.values()),
            alike,
        )
    )
    return Finding(
        claim,
        found,
        shown,
        note="A quotient of logits has a meaning only where both are positive; elsewhere it is refused. "
        + ", ".join(f"{loss} could be asked in {one.count} of {asked} scenes" for loss, one in alike.items())
        + ".",
    )


def figure_10(setting: Setting) -> Finding:
    """Bald eagles, and a model that was told that most of them are kites."""
    claim = (
        "Detail interpretation uncovers that a model trained on bald eagles labelled kite takes the white head for a "
        "feature of kites; other methods do not show it."
    )
    wrong, right = setting.loaded("zoo:vit-mislabelled"), setting.own("zoo:vit")
    asks = {
        "detail": _between("kite", OTHER),
        "kite, complete": Ask(_always("kite")),
        "kite, positive (GAE)": Ask(_always("kite"), correction="positive"),
        "kite, absolute": Ask(_always("kite"), correction="absolute"),
        "kite rather than bald eagle": _between("kite", "bald eagle"),
    }
    if setting.images:
        others = [{"target": 1, "correction": name} for name in ("complete", "positive", "absolute")]
        return Finding(claim, rows=photographs(wrong, setting.images, [{"target": 1, "against": 0}, *others]))
    drawn, step = of("bald eagle", setting.scenes, SEEDS + 10_000), setting.step
    heads = [parts(each.animals[0], ["head"]) for each in drawn]
    says: dict[str, dict[str, list[float]]] = {name: {} for name in asks}
    speaks: dict[str, dict[str, list[float]]] = {name: {} for name in asks}  # of maps without a negative too
    for i, (labels, model) in enumerate((("wrong labels", wrong), ("right labels", right))):
        maps = relevance(model, drawn, list(asks.values()), lambda done, i=i: step((i + done) / 2))
        for name, each in zip(asks, maps, strict=True):
            says[name][labels] = [balance(m, head) for m, head in zip(each, heads, strict=True)]
            speaks[name][labels] = [share(m, head) for m, head in zip(each, heads, strict=True)]
    agreed = {
        f"{name}, {labels}": mean(agrees(says[name][labels], effects(model, drawn, heads, asks[name])))
        for name in ("detail", "kite rather than bald eagle")
        for labels, model in (("wrong labels", wrong), ("right labels", right))
    }
    head = {labels: mean(values) for labels, values in says["detail"].items()}
    more = difference(says["detail"]["wrong labels"], says["detail"]["right labels"])
    tells = {name: _tells(both["wrong labels"], both["right labels"]) for name, both in speaks.items()}
    detail = [asks["detail"], asks["kite rather than bald eagle"]]
    others = [asks["kite, complete"], asks["kite, positive (GAE)"], asks["kite, absolute"]]
    return Finding(
        claim,
        [
            Part(
                f"With wrong labels a bald eagle's head speaks for kite rather than {OTHER}.",
                "what the head's pixels sum to over all that they say (-1 to 1): the interval lies above 0",
                head["wrong labels"].low > 0,
                {"wrong labels": head["wrong labels"]},
            ),
            Part(
                "With right labels it does so less.",
                "the interval of the difference lies above 0",
                more.low > 0,
                {"right labels": head["right labels"], "wrong less right": more},
            ),
            Part(
                "No map of kite alone tells the two models apart as often.",
                "share of scenes in which more of what speaks for kite lies on the head with wrong labels than with "
                "right ones: the interval of detail lies above that of every map of kite alone",
                all(tells["detail"].low > each.high for name, each in tells.items() if name.startswith("kite, ")),
                {f"tells them apart: {name}": each for name, each in tells.items()},
            ),
            Part(
                "What detail says of the head is what hiding the head does.",
                "share of scenes in which both have one sign: every interval lies above one half",
                all(each.low > 0.5 for each in agreed.values()),
                agreed,
            ),
        ],
        {
            f"scene {each.seed}, labels {labels}": [
                e for ask in (*detail, *others) for e in explained_alone(model, [each], ask)
            ]
            for each in drawn[:2]
            for labels, model in (("wrong", wrong), ("right", right))
        },
        note="Of the scenes in which the head says nothing at all, none is counted.",
        more={
            "what the head alone, without the rest of the bird, does to the logit of kite": {
                labels: mean(_alone(model, drawn, heads)) for labels, model in (("wrong", wrong), ("right", right))
            },
            "balance of the head": {name: {k: mean(v) for k, v in both.items()} for name, both in says.items()},
            "share of positive on the head": {
                name: {k: mean(v) for k, v in both.items()} for name, both in speaks.items()
            },
        },
    )


def _alone(model: Model, drawn: Sequence[Scene], heads: Sequence[np.ndarray]) -> list[float]:
    """What the head does to the logit of kite where nothing else of the bird is seen."""
    rest = [each.animals[0].mask & ~head for each, head in zip(drawn, heads, strict=True)]
    return gains(model, drawn, rest, heads, Ask(_always("kite")))


def _ways() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each kind against the other of its pair, and the parts that decide for it."""
    for (kind, other), (own, others) in SHARED.items():
        yield kind, other, own
        yield other, kind, others


def _decides(
    kind: str,
    other: str,
    names: Sequence[str],
    deciding: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    does: Sequence[float],
) -> Part:
    each = [balance(m, mask) for m, mask in zip(maps, deciding, strict=True)]
    says = mean(each)
    fell = mean([share(m, mask) for m, mask in zip(maps, deciding, strict=True)])
    return Part(
        f"A {kind} is no {other} by its {_listed(names)}.",
        "what these parts sum to over all that they say (-1 to 1): the interval lies above 0",
        says.low > 0,
        {
            "balance of the deciding parts": says,
            "share of positive on them": fell,
            "share of the picture that they cover": mean([mask.mean() for mask in deciding]),
            "what the logits' difference loses when they are hidden": mean(does),
            "scenes in which map and hiding agree in sign": mean(agrees(each, does)),
        },
    )


def _alike(model: Model, ask: Ask, drawn: Sequence[Scene], maps: Sequence[np.ndarray]) -> list[float]:
    """The cosine of another loss's map and of those that are there, wherever that loss can be asked."""
    found = []
    for each, first in zip(drawn, maps, strict=False):
        try:
            (e,) = explained_alone(model, [each], ask)
        except QuotientError:
            continue
        found.append(cosine(spread(e), first))
    return found


def explained_alone(model: Model, drawn: Sequence[Scene], ask: Ask) -> list[Explanation]:
    """One explanation for each scene."""
    return [explained(model, [each], [ask])[0] for each in drawn]


def _between(kind: str, other: str, loss: str | None = None) -> Ask:
    return Ask(_always(kind), _always(other), loss=loss)


def _always(kind: str) -> Callable[[Scene], str]:
    return lambda scene: kind


def _tells(wrong: Sequence[float], right: Sequence[float]) -> Mean:
    """In how many scenes the first is larger."""
    a, b = np.asarray(wrong), np.asarray(right)
    return mean(np.where(np.isnan(a) | np.isnan(b), np.nan, (a > b) * 1.0))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
