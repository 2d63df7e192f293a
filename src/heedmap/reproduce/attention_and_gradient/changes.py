"""Figures 6 and 11: what changes when attention, or the picture itself, follows its gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from heedmap.evaluation.localisation import share, spread
from heedmap.evaluation.statistics import Mean, difference, mean
from heedmap.experiments import filming, showing
from heedmap.experiments.rewrite import Rewriting, rewrite
from heedmap.experiments.rewrites import measure, summary
from heedmap.experiments.transfer import Transfer, transfer
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.worlds import SEEDS, cosine, first, pairs, second, singles

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.menagerie import Scene
    from heedmap.records import Explanation

SHOWN = 2
NAMES = ("target on target", "target on other", "other on other", "overlap")
LOGITS = ("target before", "target after", "other before", "other after")


def figure_6(setting: Setting) -> Finding:
    """Attention weights descend the logit of one of two animals."""
    claim = (
        "As attention weights descend the target's logit, positive attention shifts from the target to the other "
        "class, which keeps its own, until both are judged by the same region."
    )
    model = setting.loaded("zoo:vit")
    if setting.images:
        films = {path.stem: transfer(model, str(path)) for path in setting.images[:SHOWN]}
        charts = {f"{name}-logits": filming.chart(film) for name, film in films.items()}
        return Finding(claim, rows=_named({n: filming.rows(f) for n, f in films.items()}), columns=8, drawings=charts)
    drawn = pairs(setting.few, SEEDS + 6_000)
    drawings: dict[str, Image] = {}
    shown: dict[str, Mapping[str, Sequence[Explanation]]] = {}
    rows = []
    for i, each in enumerate(drawn):
        moved = transfer(model, each.image, first(each), second(each))
        rows.append(_moved(each, moved))
        if i < SHOWN:
            shown[f"scene {each.seed}"] = filming.rows(moved)
            drawings[f"{each.seed}-logits"] = filming.chart(moved)
        setting.step((i + 1) / len(drawn))
    told = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    before_after = {name: (mean(told[f"{name} before"]), mean(told[f"{name} after"])) for name in NAMES}
    change = {name: difference(told[f"{name} after"], told[f"{name} before"]) for name in NAMES}

    def numbers(name: str) -> dict[str, Mean]:
        before, after = before_after[name]
        return {"before": before, "after": after, "after less before": change[name]}

    return Finding(
        claim,
        [
            Part(
                "What speaks for the target leaves the target.",
                "its share on the target: the interval of the difference lies below 0",
                change["target on target"].high < 0,
                numbers("target on target"),
            ),
            Part(
                "It goes to the other animal.",
                "its share on the other: the interval of the difference lies above 0",
                change["target on other"].low > 0,
                numbers("target on other"),
            ),
            Part(
                "What speaks for the other animal stays on it.",
                "its share on the other, at the end: the interval lies above one half",
                before_after["other on other"][1].low > 0.5,
                numbers("other on other"),
            ),
            Part(
                "In the end both are judged by the same region.",
                "cosine of what speaks for one and what speaks for the other: the interval of the difference lies "
                "above 0, and that of the end above one half",
                change["overlap"].low > 0 and before_after["overlap"][1].low > 0.5,
                numbers("overlap"),
            ),
        ],
        _named(shown),
        columns=8,
        drawings=drawings,
        note="Logits of the target and of the other animal, mean: "
        + ", ".join(f"{name} {told[name].mean():.1f}" for name in LOGITS)
        + ".",
        more={"scenes": rows},
    )


def figure_11(setting: Setting) -> Finding:
    """Pixels follow their gradient until a classifier says something else."""
    claim = "The content of a picture can be rewritten to another category with almost no change that a person notices."
    model = setting.loaded("zoo:vit")
    if setting.images:
        made = {}
        for path in setting.images[:SHOWN]:
            likeliest, other, *_ = (answer.label for answer in model.predict(str(path), top=2)[0])
            made[path.stem] = rewrite(model, str(path), other, likeliest)
        return _sheets(Finding(claim), made)
    others = [setting.own("zoo:vit-deep")]
    drawn, rows = singles(setting.few, SEEDS + 11_000), []
    for i, each in enumerate(drawn):
        rows += measure(model, [each], others)
        setting.step((i + 1) / len(drawn))
    found = summary(rows)
    psnr, ssim = found["psnr"], found["ssim"]
    made = {
        f"scene {row['seed']}": rewrite(model, each.image, row["to"], row["source"])
        for row, each in zip(rows[:SHOWN], drawn, strict=False)
    }
    signs = {name: each["difference"] for name, each in found["signs"].items()}
    finding = Finding(
        claim,
        [
            Part(
                "The model says the category that is aimed at.",
                "with at least 50 %, of the picture as it is saved: the interval of the share of scenes lies above 0.9",
                found["reached"].low > 0.9,
                {"reached": found["reached"], "steps": found["steps"]},
            ),
            Part(
                "The picture looks the same.",
                "the interval of PSNR lies above 35 dB, that of SSIM above 0.95",
                psnr.low > 35 and ssim.low > 0.95,
                {
                    "PSNR, dB": psnr,
                    "SSIM": ssim,
                    "largest change, levels of 255": found["largest"],
                    "mean change": found["mean"],
                },
            ),
        ],
        note="Beyond the paper: "
        + ", ".join(f"after {name} {each.value:.0%} are still rewritten" for name, each in found["survived"].items())
        + ". A genuine picture of the category, less a rewritten one: "
        + ", ".join(f"{name} {each}" for name, each in signs.items())
        + ".",
        more={"summary": found, "scenes": rows},
    )
    return _sheets(finding, made)


def _sheets(finding: Finding, made: Mapping[str, Rewriting]) -> Finding:
    """The finding with what explains each rewriting, and a sheet of each."""
    rows = _named({name: showing.rows(found) for name, found in made.items()})
    drawings = {name.removeprefix("scene "): showing.sheet(found) for name, found in made.items()}
    return replace(finding, rows=rows, drawings=drawings)


def _named(rows: Mapping[str, Mapping[str, Sequence[Explanation]]]) -> dict[str, Sequence[Explanation]]:
    """The rows of several pictures, each under its picture's name too."""
    return {f"{name}: {each}": row for name, mine in rows.items() for each, row in mine.items()}


def _moved(drawn: Scene, moved: Transfer) -> dict[str, float]:
    """Where relevance lies before and after."""
    target, other = (animal.mask for animal in drawn.animals)
    found: dict[str, float] = {"steps": moved.steps[-1].number}
    for when, step in (("before", moved.steps[0]), ("after", moved.steps[-1])):
        own, others = spread(step.target), spread(step.other)
        a, b = (np.clip(each, 0, None) for each in (own, others))
        found |= {
            f"target on target {when}": share(own, target),
            f"target on other {when}": share(own, other),
            f"other on other {when}": share(others, other),
            f"overlap {when}": cosine(a, b),
            f"target {when}": step.logits[0],
            f"other {when}": step.logits[1],
        }
    return found
