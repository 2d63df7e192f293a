"""What is measured of a method on one model: a list of numbers, one a scene, for each column of the board."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from heedmap.evaluation import asked, questions, stores
from heedmap.evaluation.drawn import cosine
from heedmap.evaluation.leaderboard.answered import Answerer
from heedmap.evaluation.leaderboard.cascade import layers, randomised
from heedmap.evaluation.leaderboard.cases import Case, Fed, worth
from heedmap.evaluation.leaderboard.trials import SEEDS, Pictures, Trial, grid_of
from heedmap.evaluation.localisation import balance, points, share
from heedmap.evaluation.masking import ORDERS, counts, fill, hidden, places
from heedmap.evaluation.perturbation import STEPS, area

Found: TypeAlias = dict[str, list[float]]

TINY = 0.01  # of a tensor's own spread: the noise under which a map should stay
LOOKS = 4  # of a map on the way down, evenly: from the top layer to all of them
FALLS = 0.5  # a rank correlation whose interval reaches this high has not fallen


@dataclass(frozen=True)
class Measure:
    """`columns` are what `run(trial, method, count)` gives numbers of."""

    run: Callable[[Trial, str, int], Found]
    columns: tuple[str, ...]


def place(trial: Trial, method: str, count: int) -> Found:
    """Where relevance lies: on what the answer is about, and, where it speaks against, on what it is not about."""
    cases, maps = _mapped(trial, trial.cases("placed", count), method)
    measured = {
        "pointing": [points(m, case.target) for case, m in zip(cases, maps, strict=True)],
        "on target": [share(m, case.target) for case, m in zip(cases, maps, strict=True)],
        "against others": [share(m, case.others, -1) for case, m in zip(cases, maps, strict=True)],
    }
    return {name: scenewise(cases, values) for name, values in measured.items()}


def detail(trial: Trial, method: str, count: int) -> Found:
    """How often what a map sums to on the deciding part has the sign of what that part does, asked both ways round.

    What it does is what the target loses without it. Asked the other way round its sign must turn: a map without sign
    is right half of the time.
    """
    kept, right = [], []
    for some in trial.batches(trial.cases("details", count), trial.detailed):
        hidden = trial.hidden(some, [case.part for case in some])
        for turned in (False, True):
            one = trial.fed(some, turned)
            does = worth(one, trial.model.module, hidden)
            explanation = one.explained(trial.model.module, method)
            says = [balance(trial.units(explanation, i), case.part) for i, case in enumerate(some)]
            kept += some
            right += agrees(says, does)
    return {"detail": scenewise(kept, right)}


def hide(trial: Trial, method: str, count: int) -> Found:
    """The area under the accuracy while what a method ranks highest, or lowest, is hidden."""
    if isinstance(trial, Answerer):
        return _removed(trial, method, count)
    assert isinstance(trial, Pictures)
    cases, curves = trial.cases("single", count), []
    for start in range(0, len(cases), trial.batch):
        some = cases[start : start + trial.batch]
        curves.append(_hidden(trial, trial.fed(some), method, range(start, start + len(some))))
    areas = area(STEPS, np.concatenate(curves))  # (case, order)
    return {order: scenewise(cases, areas[:, i].tolist()) for i, order in enumerate(ORDERS)}


def _hidden(trial: Pictures, one: Fed, method: str, numbers: Sequence[int]) -> np.ndarray:
    """Whether the model still knows (case, order, step)."""
    explanation = one.explained(trial.model.module, method)
    _, grid = grid_of(explanation, 0)
    scores = np.stack([trial.tokens(explanation, i) for i in range(len(one.cases))])
    chance = np.stack([np.random.default_rng([0, i]).random(scores.shape[1]) for i in numbers])
    colour = fill(trial.model.processor.image, "mean")
    pixels = one.inputs["pixel_values"]
    with torch.no_grad():
        clean = trial.knows(one, pixels)
        curves = []
        for order in ORDERS:
            when = (
                torch.from_numpy(places(scores, chance, order)).reshape(-1, grid.rows, grid.columns).to(pixels.device)
            )
            steps = counts(scores.shape[1], STEPS)
            curves.append([trial.knows(one, hidden(pixels, when < n, colour)) if n else clean for n in steps])
    return np.asarray(curves, dtype=np.float64).transpose(2, 0, 1)


def _removed(trial: Answerer, method: str, count: int) -> Found:
    """Regions removed from what a question is answered by (evaluation.questions)."""
    posed, pictures = asked.drawn(count, SEEDS + 10_000)
    result = questions.removal(trial.model, posed, stores.Described(pictures), [method], ["image"])
    return {order: result.curve(method, "image", order).areas.tolist() for order in ORDERS}


def sanity(trial: Trial, method: str, count: int, looks: int = LOOKS) -> Found:
    """How alike the ranks of a map stay while weights are drawn anew; looked at so often on the way down.

    The last numbers, with all of them new, are the column's; `cascade 1` and so on are those on the way.
    """
    cases = trial.cases("placed", count)[:count]
    one = trial.fed(cases)
    module = copy.deepcopy(trial.model.module)

    def told() -> list[np.ndarray]:
        explanation = one.explained(module, method)
        return [trial.tokens(explanation, i) for i in range(len(cases))]

    first = told()
    groups = list(layers(module, lambda: module(**one.inputs)).values())
    looked = np.linspace(1, len(groups), min(looks, len(groups))).round().astype(int).tolist()
    found: Found = {}
    for done in randomised(groups):
        if done in looked:
            values = [ranked(a, b) for a, b in zip(first, told(), strict=True)]
            found["sanity" if done == len(groups) else f"cascade {done} of {len(groups)}"] = scenewise(cases, values)
    return found


def stable(trial: Trial, method: str, count: int) -> Found:
    """How alike a map stays (cosine) when what the model is given is changed by next to nothing."""
    cases = trial.cases("placed", count)[:count]
    values = []
    for some in trial.batches(cases):
        one = trial.fed(some)
        noisy = Fed(one.cases, shaken(one), one.shown, one.target)
        before, after = (each.explained(trial.model.module, method) for each in (one, noisy))
        values += [unmoved(trial.tokens(before, i), trial.tokens(after, i)) for i in range(len(some))]
    return {"stability": scenewise(cases, values)}


def cost(trial: Trial, method: str, count: int, together: int = 2) -> Found:
    """Its time over that of one forward and one backward pass, measured side by side; the same few cases each time."""
    cases = trial.cases("placed", together)[:together]
    one, module = trial.fed(cases), trial.model.module
    given = {name: tensor for name, tensor in one.inputs.items() if tensor.is_floating_point()}

    def passes() -> None:
        leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in given.items()}
        value = one.value(module, {**one.inputs, **leaves})
        torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)

    def explained() -> None:
        one.explained(module, method)

    explained()  # what a model is looked at for once is no part of it
    passes()
    pairs = [(_seconds(explained), statistics.median(_seconds(passes) for _ in range(3))) for _ in range(count)]
    return {"cost": [a / b for a, b in pairs]}


MEASURES: Mapping[str, Measure] = {
    "place": Measure(place, ("pointing", "on target", "against others")),
    "detail": Measure(detail, ("detail",)),
    "hide": Measure(hide, tuple(ORDERS)),
    "sanity": Measure(sanity, ("sanity",)),
    "stable": Measure(stable, ("stability",)),
    "cost": Measure(cost, ("cost",)),
}


# ---- how two maps are compared


def agrees(says: Sequence[float], does: Sequence[float] | np.ndarray) -> list[float]:
    """Whether what a map says of some part has the sign of what the part does; NaN where it says nothing."""
    return [float(a * b > 0) if a and not np.isnan(a) else float("nan") for a, b in zip(says, does, strict=True)]


def ranked(a: np.ndarray, b: np.ndarray) -> float:
    """The rank correlation of two maps, where both say something: 1 where they are equal, 0 where one is constant."""
    a, b = _both(a, b)
    if len(a) < 2:
        return float("nan")
    if np.array_equal(a, b):
        return 1.0
    ranks = [_ranks(each) for each in (a, b)]
    spreads = [each.std() for each in ranks]
    if not all(spreads):
        return 0.0
    return float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())) / np.prod(spreads))


def unmoved(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of two maps, where both say something: 1 where they are equal, 0 where one says nothing."""
    a, b = _both(a, b)
    if not len(a):
        return float("nan")
    return 1.0 if np.array_equal(a, b) else float(np.nan_to_num(cosine(a, b)))


def shaken(one: Fed) -> dict[str, Tensor]:
    """What the model is given, with a little noise on pictures or regions; each scene has its own."""
    inputs = dict(one.inputs)
    for name in ("pixel_values", "visual_feats"):
        if name in inputs:
            noise = [
                torch.randn(row.shape, generator=torch.Generator().manual_seed(case.scene))
                for case, row in zip(one.cases, inputs[name], strict=True)
            ]
            inputs[name] = inputs[name] + TINY * inputs[name].std() * torch.stack(noise).to(inputs[name])
    return inputs


def scenewise(cases: Sequence[Case], values: Sequence[float]) -> list[float]:
    """One number for each scene: the mean of its cases, NaN where none says anything."""
    scenes: dict[int, list[float]] = {}
    for case, value in zip(cases, values, strict=True):
        scenes.setdefault(case.scene, []).append(value)
    told = ([value for value in some if not np.isnan(value)] for some in scenes.values())
    return [float(np.mean(some)) if some else float("nan") for some in told]


def _mapped(trial: Trial, cases: Sequence[Case], method: str) -> tuple[Sequence[Case], list[np.ndarray]]:
    maps = []
    for some in trial.batches(cases):
        explanation = trial.fed(some).explained(trial.model.module, method)
        maps += [trial.units(explanation, i) for i in range(len(some))]
    return cases, maps


def _both(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = ~(np.isnan(a) | np.isnan(b))
    return a[there], b[there]


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each number; those that are equal share the middle of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
