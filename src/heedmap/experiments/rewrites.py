"""Many drawn scenes rewritten: how little it takes, what outlives what, and whether the explanation gives it away."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from heedmap.evaluation.localisation import share, spread
from heedmap.evaluation.statistics import ROUNDS, Mean, difference, mean, outranks
from heedmap.experiments.rewrite import rewrite
from heedmap.experiments.surviving import survival
from heedmap.menagerie import draws, scene

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.menagerie import Scene
    from heedmap.records import Explanation

ELSEWHERE = 100_000  # from a scene's seed to that of a genuine picture of the category that is written
STRONGEST = 0.1  # share of the pixels that concentration looks at
SIGNS = ("share", "concentration", "probability")
SIZES = ("steps", "psnr", "ssim", "largest", "mean", "touched")


def measure(
    model: Model, scenes: Iterable[Scene], others: Sequence[Model] = (), **options: Any
) -> list[dict[str, Any]]:
    """One record for each scene: its first animal's kind rewritten as another, which the scene's seed draws.

    `signs` are what the explanation of the written category says of the rewritten picture and of a genuine one.
    `options` are those of `rewrite`.
    """
    return [_measured(model, drawn, others, options) for drawn in scenes]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the records of `measure` come to: means with their 95 % intervals, over the scenes that were rewritten;
    `reached` and `seconds` over all, but for those of which the model said the category to begin with.

    `told_apart` is, for each sign, how often it is larger for a genuine picture than for a rewritten one (AUC).
    """
    changed = [row for row in rows if row["steps"]]
    done = [row for row in changed if row["reached"]]
    signs = {sign: tuple([row[which][sign] for row in done] for which in ("genuine", "rewritten")) for sign in SIGNS}
    names = list(done[0]["survived"]) if done else []
    return {
        "scenes": len(rows),
        "reached": mean([float(row["reached"]) for row in changed]),
        "seconds": mean([row["seconds"] for row in changed]),
        **{name: mean([row[name] for row in done]) for name in SIZES},
        "survived": {name: mean([float(row["survived"][name]) for row in done]) for name in names},
        "signs": {
            sign: {"genuine": mean(a), "rewritten": mean(b), "difference": difference(a, b)}
            for sign, (a, b) in signs.items()
        },
        "told_apart": {sign: apart(a, b) for sign, (a, b) in signs.items()},
    }


def auc(larger: Sequence[float] | np.ndarray, smaller: Sequence[float] | np.ndarray) -> float:
    """`outranks`, of what is a number."""
    return outranks(*(np.asarray(values, np.float64)[~np.isnan(values)] for values in (larger, smaller)))


def apart(larger: Sequence[float], smaller: Sequence[float], seed: int = 0, rounds: int = ROUNDS) -> Mean:
    """`auc` of two numbers for each scene, with the middle 95 % of what resampled scenes give."""
    a, b = np.asarray(larger, np.float64), np.asarray(smaller, np.float64)
    whole = auc(a, b)
    if np.isnan(whole):
        return mean([])
    if len(a) < 2:
        return Mean(whole, math.nan, math.nan, len(a))
    picks = np.random.default_rng(seed).integers(0, len(a), (rounds, len(a)))
    low, high = np.nanquantile([auc(a[pick], b[pick]) for pick in picks], (0.025, 0.975))
    return Mean(whole, float(low), float(high), len(a))


def _measured(model: Model, drawn: Scene, others: Sequence[Model], options: Mapping[str, Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    animal = drawn.animals[0]
    to = draws(drawn.seed, "rewrite").choice([kind for kind in model.labels if kind != animal.kind])
    rewriting = rewrite(model, drawn.image, to, animal.kind, **options)
    seconds = time.perf_counter() - begun
    real = scene(to, drawn.seed + ELSEWHERE, drawn.size)
    genuine = model.explain(real.image, target=to)
    first = model.predict(real.image, top=len(model.labels))[0]
    return {
        "seed": drawn.seed,
        "source": animal.kind,
        "to": to,
        "said": rewriting.before.answers[0].label,
        "reached": rewriting.reached,
        "steps": rewriting.steps,
        **rewriting.numbers,
        "before": rewriting.before.probabilities,
        "after": rewriting.after.probabilities,
        "survived": {trial.name: trial.survived for trial in survival(rewriting, model, others)},
        "rewritten": _signs(rewriting.explained_after[1], animal.mask, rewriting.after.probabilities[1]),
        "genuine": _signs(genuine, real.animals[0].mask, next(answer.value for answer in first if answer.label == to)),
        "seconds": seconds,
    }


def _signs(explanation: Explanation, mask: np.ndarray, probability: float) -> dict[str, float]:
    """What may tell a rewritten picture: how much of what speaks for the category lies on the animal (which a drawing
    knows), how much of it in the strongest tenth of the picture (which anyone can tell), and how sure the model is.
    """
    placed = spread(explanation)
    return {"share": share(placed, mask), "concentration": _concentration(placed), "probability": probability}


def _concentration(values: np.ndarray) -> float:
    kept = np.sort(np.clip(values, 0, None).ravel())[::-1]
    total = kept.sum()
    return float(kept[: round(STRONGEST * kept.size)].sum() / total) if total > 0 else float("nan")
