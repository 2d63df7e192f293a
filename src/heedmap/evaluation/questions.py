"""Questions: how fast a model forgets an answer while regions, or words, are removed as a map ranks them.

The answer that the model finds likeliest is explained once, with nothing removed. Positive order removes the most
relevant first: the faster the accuracy falls, the better the map. Negative order removes the least relevant first: the
longer it stays, the better (heterogenous-attention, section 5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from heedmap import api
from heedmap.errors import InputError
from heedmap.evaluation.asked import Asked, plain
from heedmap.evaluation.hiding import RANDOM
from heedmap.evaluation.masking import ORDERS, places
from heedmap.evaluation.perturbation import area, check_methods
from heedmap.evaluation.removing import MODALITIES, STEPS, Kept, Parts, answers, keeps, lead
from heedmap.evaluation.statistics import Mean, difference, mean
from heedmap.families import regions, words

if TYPE_CHECKING:
    from heedmap.evaluation.stores import Store
    from heedmap.families import Model

RULE = "trapezoid of the soft accuracy over the fractions removed, 0 to 1, times 100"
KIND = "lxmert"
TARGETS = {"answer": "the likeliest answer", "lead": "by how much the likeliest answer leads the next"}
METHODS = ("heed", "heed:positive", "heed:absolute", "gae", "odam", RANDOM)


@dataclass(frozen=True, eq=False)
class Curve:
    """`scores` (question, step): what the answer was worth when so much was removed."""

    method: str
    modality: str
    order: str
    scores: np.ndarray = field(repr=False)

    @cached_property
    def accuracy(self) -> tuple[Mean, ...]:
        return tuple(mean(column) for column in self.scores.T)

    @cached_property
    def areas(self) -> np.ndarray:
        """The area under each question's own curve, by RULE; their mean is the area under the accuracy."""
        return area(STEPS, self.scores)

    @cached_property
    def auc(self) -> Mean:
        return mean(self.areas)


@dataclass(frozen=True, eq=False)
class Removal:
    """Soft accuracy step by step for every method, modality and order, and how it was measured."""

    model: str
    curves: tuple[Curve, ...]
    target: str
    seed: int
    questions: int
    silent: Mapping[str, tuple[str, ...]]  # methods, and of what they say nothing
    skipped: Mapping[str, str]  # what could not be asked, and why

    def curve(self, method: str, modality: str, order: str) -> Curve:
        for one in self.curves:
            if (one.method, one.modality, one.order) == (method, modality, order):
                return one
        there = ", ".join(f"{one.method} {one.modality} {one.order}" for one in self.curves)
        raise InputError(f"There is no curve of {method!r} for {modality!r} in {order!r} order. There are {there}.")

    @property
    def panels(self) -> list[tuple[str, str]]:
        """Each modality and order that was measured."""
        return list(dict.fromkeys((one.modality, one.order) for one in self.curves))

    def panel(self, modality: str, order: str) -> list[Curve]:
        return [one for one in self.curves if (one.modality, one.order) == (modality, order)]

    def difference(self, a: str, b: str, modality: str, order: str) -> Mean:
        """By how much the area of one method exceeds another's, question by question."""
        return difference(self.curve(a, modality, order).areas, self.curve(b, modality, order).areas)

    def record(self) -> dict[str, Any]:
        """All of it as plain numbers and words."""
        return {
            "model": self.model,
            "questions": self.questions,
            "target": self.target,
            "seed": self.seed,
            "silent": {name: list(of) for name, of in self.silent.items()},
            "skipped": dict(self.skipped),
            "rule": RULE,
            "steps": list(STEPS),
            "curves": [
                {
                    "method": one.method,
                    "modality": one.modality,
                    "order": one.order,
                    "auc": _plain(one.auc),
                    "accuracy": [_plain(each) for each in one.accuracy],
                }
                for one in self.curves
            ],
            "differences": [
                {
                    "a": a.method,
                    "b": b.method,
                    "modality": modality,
                    "order": order,
                    "auc": _plain(difference(a.areas, b.areas)),
                }
                for modality, order in self.panels
                for a, b in combinations(self.panel(modality, order), 2)
            ],
        }


def removal(
    model: Model,
    asked: Sequence[Asked],
    found: Store,
    methods: Sequence[str] = METHODS,
    modalities: Sequence[str] = tuple(MODALITIES),
    orders: Sequence[str] = tuple(ORDERS),
    *,
    labels: Sequence[str] = (),
    target: str = "answer",
    batch: int = 32,
    seed: int = 0,
    progress: Callable[[int], None] = lambda questions: None,
) -> Removal:
    """Remove what each method ranks highest or lowest, step by step, and ask the model each time.

    `found` has the regions of the pictures that are asked about; `labels` are what the model's answers are called,
    where it does not say. What is explained is the logit of the likeliest "answer", or its "lead" over the next.
    `batch` questions are explained at once; `progress` is told how many more are done.
    """
    _check(model, methods, modalities, orders, target, batch)
    removing = Removing(model, found, tuple(methods), tuple(modalities), tuple(orders), target, seed, tuple(labels))
    scores: list[np.ndarray] = []
    skipped: dict[str, str] = {}
    for start in range(0, len(asked), batch):
        together = list(enumerate(asked[start : start + batch], start))
        scores += [removing.measured(some, parts) for some, parts in removing.fed(together, skipped)]
        progress(len(together))
    if not scores:
        first = f" ({next(iter(skipped.values()))})" if skipped else ""
        raise InputError(f"None of {len(asked)} questions could be asked{first}.")
    whole = np.concatenate(scores)
    silent = {name: tuple(of for of in modalities if of not in removing.says[name]) for name in methods}
    curves = [
        Curve(name, modality, order, whole[:, m, o, i])
        for m, modality in enumerate(modalities)
        for o, order in enumerate(orders)
        for i, name in enumerate(methods)
        if modality not in silent[name]
    ]
    told = {name: of for name, of in silent.items() if of}
    if not curves:
        say = "says" if len(methods) == 1 else "say"
        raise InputError(f"{' and '.join(methods)} {say} nothing of {' and '.join(modalities)}. Ask another method.")
    return Removal(model.source, tuple(curves), target, seed, len(whole), told, skipped)


class Removing:
    """How things are removed, whatever the questions; `says`: of which modalities each method was met to speak."""

    def __init__(
        self,
        model: Model,
        found: Store,
        methods: tuple[str, ...],
        modalities: tuple[str, ...],
        orders: tuple[str, ...],
        target: str,
        seed: int,
        labels: tuple[str, ...],
    ) -> None:
        self._model, self._store, self._seed = model, found, seed
        self._target = lead if target == "lead" else None
        self._methods, self._modalities, self._orders = methods, modalities, orders
        self._labels = [plain(label) for label in labels or model.labels]
        self.says: dict[str, set[str]] = {name: set(modalities) if name == RANDOM else set() for name in methods}

    def fed(
        self, some: Sequence[tuple[int, Asked]], skipped: dict[str, str]
    ) -> list[tuple[Sequence[tuple[int, Asked]], Parts]]:
        """Questions as the model takes them; what fails beside others is tried alone, what fails alone is told."""
        try:
            return [(some, self._parts([one for _, one in some]))]
        except (InputError, OSError) as error:
            if len(some) > 1:
                return [fed for each in some for fed in self.fed([each], skipped)]
            skipped[some[0][1].name] = " ".join(str(error).split())
            return []

    def _parts(self, asked: Sequence[Asked]) -> Parts:
        given = self._store.read([one.picture for one in asked])
        config = self._model.config
        texts, _ = words.encode(self._model.processor.text, [one.text for one in asked], config)
        boxes, _ = regions.tensors(given, config)
        first = next(self._model.module.parameters())
        inputs = {
            name: each.to(first.device, first.dtype if each.is_floating_point() else None)
            for name, each in {**texts, **boxes}.items()
        }
        lengths = texts["attention_mask"].sum(1).tolist()
        return Parts(inputs, tuple(len(one.boxes) for one in given), tuple(lengths))

    def measured(self, some: Sequence[tuple[int, Asked]], parts: Parts) -> np.ndarray:
        """What the answers are worth (question, modality, order, method, step)."""
        relevance = {name: self._relevance(name, parts) for name in self._methods if name != RANDOM}
        plans = [self._plans(place, i, parts, relevance) for i, (place, _) in enumerate(some)]
        found = answers(self._model.module, parts, [kept for plan in plans for kept in plan])
        shape = len(self._modalities), len(self._orders), len(self._methods), len(STEPS)
        return np.stack([
            np.reshape([one.worth.get(self._labels[found[kept]], 0.0) for kept in plan], shape)
            for (_, one), plan in zip(some, plans, strict=True)
        ])  # fmt: skip

    def _relevance(self, name: str, parts: Parts) -> dict[str, Tensor]:
        """What a method says of each modality."""
        explanation = api.explain(self._model.module, dict(parts.inputs), self._target, method=name)
        said = {of: explanation.relevance[stream] for of, stream in MODALITIES.items() if stream in explanation.streams}
        self.says[name] |= set(said)
        return {of: flowed.detach().double().cpu() for of, flowed in said.items()}

    def _plans(self, place: int, i: int, parts: Parts, relevance: Mapping[str, Mapping[str, Tensor]]) -> list[Kept]:
        """What stays of a question, for every modality, order, method and step."""
        plan = []
        for modality in self._modalities:
            units = parts.units(i, modality)
            # A question's chance is its own, whichever questions and modalities it is measured with.
            chance = np.random.default_rng([self._seed, place, list(MODALITIES).index(modality)]).random(len(units))
            for order in self._orders:
                for name in self._methods:
                    flowed = relevance.get(name, {}).get(modality)
                    scores = chance if flowed is None else flowed[i, list(units)].numpy()
                    gone = np.argsort(places(scores, chance, order))
                    for count in keeps(len(units)):
                        left = [units[one] for one in gone[len(units) - count :]]
                        plan.append(parts.kept(i, modality, left))
        return plan


def check_model(model: Model) -> None:
    """Refuse what does not answer from regions in a stream of their own."""
    if model.task != "visual-question-answering":
        raise InputError(f"{model.source!r} does {model.task}. heedmap expected a model that answers questions.")
    kind = model.config.model_type
    if kind == KIND:
        return
    why = ", which reads regions in the stream of the words" if kind == "visual_bert" else ""
    raise InputError(
        f"{model.source!r} is a {kind}{why}. heedmap expected an LXMERT, whose regions are a stream of their own: only "
        "for it is it known how regions and words are removed."
    )


def classes(model: Model) -> int:
    """Among how many answers a model chooses."""
    return model.config.num_qa_labels


def _check(
    model: Model, methods: Sequence[str], modalities: Sequence[str], orders: Sequence[str], target: str, batch: int
) -> None:
    check_model(model)
    check_methods(methods)
    for what, given, known in (
        ("modality", modalities, MODALITIES),
        ("order", orders, ORDERS),
        ("target", [target], TARGETS),
    ):
        for one in given:
            if one not in known:
                raise InputError(f"{what} is {one!r}. heedmap expected one of {', '.join(known)}.")
        if not given or len(set(given)) < len(given):
            raise InputError(f"{what} is {list(given)}. heedmap expected at least one, and each once.")
    if batch < 1:
        raise InputError(f"batch is {batch}. heedmap expected at least 1.")


def _plain(one: Mean) -> dict[str, float | None]:
    """As JSON has it: a single question has no interval."""
    low, high = (one.low, one.high) if one.count > 1 else (None, None)
    return {"value": one.value, "low": low, "high": high}
