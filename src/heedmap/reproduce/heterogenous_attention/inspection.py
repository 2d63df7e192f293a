"""Figure 8: logical inspection. Two answers to a question, and whether each animal speaks for the one that it must."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heedmap.evaluation.statistics import Mean, difference, mean
from heedmap.experiments.inspection import inspect
from heedmap.menagerie import questions
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.heterogenous_attention.roles import Posed, on_pictures, pose, removals, turned, voices
from heedmap.reproduce.worlds import SEEDS

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.families import Model
    from heedmap.records import Explanation

SEED = SEEDS + 108_000
SHOWN = 6
LOSSES = {"logit": False, "difference": True}
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # what attention to the deciding animal is multiplied by
SAYS = {
    "asked": "Animals that are asked about speak for yes.",
    "other": "Animals that are not asked about speak for no.",
    "colour": "The animal whose colour is asked for speaks for its colour.",
    "left": "Both animals that decide what is left of what speak for the answer.",
}
RULE = "held against the likeliest other answer: the interval of how often the sign is right lies above one half"


def figure_8(setting: Setting) -> Finding:
    """The logit of an answer, and its difference to another answer that fits the question."""
    claim = (
        "Explained by its logit alone, an answer is hard to understand; held against another answer that fits the "
        "question, every region speaks for the one that logic demands."
    )
    model = setting.loaded("zoo:lxmert")
    if setting.images or setting.questions:
        rows = {name: _shown(model, **what) for name, what in on_pictures(setting).items()}
        return Finding(claim, rows=rows, columns=2)
    drawn = questions(setting.scenes * 4 // 3 + 1, SEED)  # one in five counts, and a few are answered wrongly
    posed = pose(model, [pair for pair in drawn if pair[1].type != "count"], lambda share: setting.step(share / 3))
    told = [each for each in posed if each.right and each.roles][: setting.scenes]
    heard = listened(model, told, lambda share: setting.step((1 + share) / 3))
    curves, drawing = _turned(model, told, lambda share: setting.step((2 + share) / 3))
    return Finding(
        claim,
        [*(_of(part, heard) for part in SAYS), _better(heard), _alike(heard)],
        {each.name: _shown(model, **each.given, answers=(each.answer, each.other)) for each in told[:SHOWN]},
        columns=2,
        drawings=drawing,
        note=(
            f"The first {len(told)} questions that were answered rightly; {sum(not each.right for each in posed)} of "
            f"{len(posed)} were not. The answer is held against the likeliest other of its kind (yes and no, kinds, "
            "colours). Animals of one kind speak together."
        ),
        more={"by type": _by_type(heard), "attention to the deciding animal, times": curves},
    )


# ---- what was heard


@dataclass(frozen=True)
class Heard:
    """What regions say, and what is lost without them; of each loss, above 0 as logic demands."""

    question: int
    type: str
    part: str
    says: Mapping[str, float]
    does: Mapping[str, float]  # NaN where no region would be left


def listened(model: Model, posed: Sequence[Posed], step: Callable[[float], None]) -> list[Heard]:
    """Every role of every question, by the map and by removal."""
    jobs = [(i, role) for i, each in enumerate(posed) for role in each.roles]
    at, hidden = [posed[i] for i, _ in jobs], [role.rows for _, role in jobs]
    says, does = {}, {}
    for done, (loss, against) in enumerate(LOSSES.items(), start=1):
        flows = voices(model, posed, against)
        says[loss] = [role.sign * float(flows[i][list(role.rows)].sum()) for i, role in jobs]
        does[loss] = [
            role.sign * lost for (_, role), lost in zip(jobs, removals(model, at, hidden, against), strict=True)
        ]
        step(done / len(LOSSES))
    return [
        Heard(
            i,
            posed[i].question.type,
            role.part,
            {loss: says[loss][k] for loss in LOSSES},
            {loss: does[loss][k] for loss in LOSSES},
        )
        for k, (i, role) in enumerate(jobs)
    ]


def rates(heard: Iterable[Heard], tell: Callable[[Heard], float]) -> list[float]:
    """Of each question the mean over its roles."""
    found: dict[int, list[float]] = {}
    for each in heard:
        found.setdefault(each.question, []).append(tell(each))
    return [float(np.nanmean(told)) if not np.all(np.isnan(told)) else float("nan") for told in found.values()]


def _right(loss: str) -> Callable[[Heard], float]:
    return lambda each: _above(each.says[loss])


def _does(loss: str) -> Callable[[Heard], float]:
    return lambda each: _above(each.does[loss])


def _agrees(loss: str) -> Callable[[Heard], float]:
    return lambda each: _above(each.says[loss] * each.does[loss])


def _above(value: float) -> float:
    return float(value > 0) if value and not np.isnan(value) else float("nan")


# ---- what is said of it


def _of(part: str, heard: Sequence[Heard]) -> Part:
    some = [each for each in heard if each.part == part]
    signs = {loss: mean(rates(some, _right(loss))) for loss in LOSSES}
    return Part(
        SAYS[part],
        RULE,
        signs["difference"].low > 0.5,
        {
            "right sign, by the difference": signs["difference"],
            "right sign, by the logit alone": signs["logit"],
            "removal has that sign, by the difference": mean(rates(some, _does("difference"))),
        },
    )


def _better(heard: Sequence[Heard]) -> Part:
    signs = {loss: rates(heard, _right(loss)) for loss in LOSSES}
    gain = difference(signs["difference"], signs["logit"])
    return Part(
        "By the difference more regions carry the sign that they must than by the logit alone.",
        "the interval of the gain, question by question, lies above 0",
        gain.low > 0,
        {
            **{f"right sign, by the {loss}": mean(values) for loss, values in signs.items()},
            "difference less logit": gain,
        },
    )


def _alike(heard: Sequence[Heard]) -> Part:
    alike = {loss: mean(rates(heard, _agrees(loss))) for loss in LOSSES}
    return Part(
        "What the map says of a region has the sign of what the answer loses without it.",
        "by the difference: the interval of how often lies above one half",
        alike["difference"].low > 0.5,
        {f"same sign, by the {loss}": each for loss, each in alike.items()},
    )


def _by_type(heard: Sequence[Heard]) -> dict[str, dict[str, Mean]]:
    """The same, each type of question by itself."""
    found = {}
    for type_, part in dict.fromkeys((each.type, each.part) for each in heard):
        some = [each for each in heard if (each.type, each.part) == (type_, part)]
        name = type_ if type_ == part else f"{type_}, {part}"
        found[name] = {
            f"{what}, by the {loss}": mean(rates(some, tell(loss)))
            for loss in LOSSES
            for what, tell in (("right sign", _right), ("removal right", _does), ("same sign", _agrees))
        }
    return dict(sorted(found.items()))


def _shown(model: Model, **what: Any) -> list[Explanation]:
    found = inspect(model, **what)
    return [found.alone, found.difference]


# ---- why


def _turned(
    model: Model, posed: Sequence[Posed], step: Callable[[float], None]
) -> tuple[dict[str, Any], dict[str, Image]]:
    """Both logits while attention to the animals that are asked about is turned down and up: mean over questions."""
    from heedmap.render import curves

    some = [each for each in posed if each.question.type in ("exists", "colour") and _for(each)]
    if not some:
        return {}, {}
    logits = turned(model, some, [_for(each) for each in some], TIMES, step)
    lines = {
        "the answer": logits[..., 0].mean(0).tolist(),
        "the other": logits[..., 1].mean(0).tolist(),
        "difference": (logits[..., 0] - logits[..., 1]).mean(0).tolist(),
    }
    drawn = curves(
        {name: (TIMES, line) for name, line in lines.items()},
        title="A logit alone has its best behind it",
        across="attention to the animal that is asked about, times",
        up=f"mean logit over {len(some)} questions",
    )
    return {"times": TIMES, "questions": len(some), **lines}, {"attention": drawn}


def _for(posed: Posed) -> tuple[int, ...]:
    """The regions that must speak for the answer because they are asked about."""
    return tuple(row for role in posed.roles if role.part in ("asked", "colour") and role.sign > 0 for row in role.rows)
