"""Figure 7: semantic reading. What words and regions bring along, before either has heard of the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from heedmap.evaluation.statistics import Mean, difference, mean, outranks
from heedmap.experiments.reading import CORRECTION, reading
from heedmap.families.regions import Given
from heedmap.layouts import Words
from heedmap.menagerie import KINDS, Question, Scene, ask, questions
from heedmap.menagerie.asking import TYPES
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.heterogenous_attention import roles
from heedmap.reproduce.heterogenous_attention.roles import STREAM, WORDS, Posed
from heedmap.reproduce.worlds import SEEDS, cosine

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Explanation

SEED = SEEDS + 107_000
SHOWN = 5
TEXT = "input_ids"
FUNCTION = frozenset("a an the is are there and of what which how ?".split())
NAMED = frozenset(word for kind in KINDS for word in kind.split())
CELLS, EMPTY = 3, 2  # so many regions without anything, in cells of so many rows and columns


def figure_7(setting: Setting) -> Finding:
    """Words and regions read apart, under absolute correction."""
    claim = (
        "Before the first cross-attention, the reading of the words highlights what the question turns on, and that of "
        "the picture every object in it: the model extracts the features of either first, and aligns them later."
    )
    model = setting.loaded("zoo:lxmert")
    if setting.images or setting.questions:
        rows = {name: _shown(model, **what) for name, what in roles.on_pictures(setting).items()}
        return Finding(claim, rows=rows, columns=2)
    posed = roles.pose(model, list(questions(setting.scenes, SEED)), lambda share: setting.step(share / 4))
    apart, whole = (_heard(model, posed, how) for how in (_apart, _whole))
    setting.step(0.5)
    parts = [_words(model, posed, apart, whole), _animals(model, posed)]
    setting.step(0.75)
    parts += [_unasked(posed, apart, whole), _same(model, posed, apart, whole)]
    setting.step(1.0)
    right = mean([float(each.right) for each in posed])
    return Finding(
        claim,
        parts,
        {each.name: _shown(model, **each.given) for each in posed[:SHOWN]},
        columns=2,
        note=(
            f"{len(posed)} questions, {right.value:.1%} of them answered rightly. The first column is the reading, the "
            "second the whole explanation."
        ),
    )


# ---- readings


@dataclass(frozen=True, eq=False)
class Heard:
    """What flowed from the words and from the regions of one question."""

    words: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]  # of each word
    said: np.ndarray  # by each word
    regions: np.ndarray


def _apart(model: Model, **what: Any) -> Explanation:
    return reading(model, **what)


def _whole(model: Model, **what: Any) -> Explanation:
    return model.explain(**what, correction=CORRECTION)


def _heard(model: Model, posed: Sequence[Posed], how: Callable[..., Explanation]) -> list[Heard]:
    found: list[Heard] = []
    for _, together in roles.batches(posed):
        explained = how(model, **roles.given(together))
        for i, each in enumerate(together):
            layout = explained.shown[i].layouts[TEXT]
            assert isinstance(layout, Words)
            flow = explained[TEXT][i].double().cpu().numpy()
            found.append(
                Heard(
                    tuple("".join(layout.texts[token] for token in word) for word in layout.words),
                    layout.words,
                    np.array([flow[list(word)].sum() for word in layout.words]),
                    explained[STREAM][i, : len(each.found.boxes)].double().cpu().numpy(),
                )
            )
    return found


def _shown(model: Model, **what: Any) -> list[Explanation]:
    return [_apart(model, **what), _whole(model, **what)]


# ---- what is said of the words


def _words(model: Model, posed: Sequence[Posed], apart: Sequence[Heard], whole: Sequence[Heard]) -> Part:
    lost = _lost(model, posed, apart)
    first = [float(each.said[0] / each.said.sum()) for each in apart]
    told = _ahead(apart, [each.said for each in apart])
    return Part(
        "A word of content outranks a word of grammar.",
        "of pairs of such words in a question: the interval of how often lies above one half",
        told.low > 0.5,
        {
            "content outranks grammar": told,
            "a word of an animal's name outranks grammar": _ahead(apart, [each.said for each in apart], NAMED),
            "of the whole explanation": _ahead(whole, [each.said for each in whole]),
            "of what the answer loses without the word": _ahead(apart, lost),
            "share of the first word (is, what, how, which)": mean(first),
            "content outranks grammar, the first word left out": _ahead(apart, [each.said for each in apart], skip=1),
        },
    )


def _ahead(
    heard: Sequence[Heard], values: Sequence[np.ndarray], named: frozenset[str] | None = None, skip: int = 0
) -> Mean:
    """How often a word of content outranks one of grammar."""
    found = []
    for each, value in zip(heard, values, strict=True):
        grammar = np.array([word.lower() in FUNCTION for word in each.words])
        content = np.array([word.lower() in named for word in each.words]) if named else ~grammar
        found.append(outranks(value[skip:][content[skip:]], value[skip:][grammar[skip:]]))
    return mean(found)


def _lost(model: Model, posed: Sequence[Posed], heard: Sequence[Heard]) -> list[np.ndarray]:
    """By how much the difference to the other answer changes without each word, either way."""
    jobs = [(each, word) for each, one in zip(posed, heard, strict=True) for word in one.tokens]
    changes = roles.removals(model, [each for each, _ in jobs], [word for _, word in jobs], True, WORDS)
    ends = np.cumsum([len(each.tokens) for each in heard])[:-1]
    return np.split(np.abs(changes), ends)


# ---- what is said of the picture


def _animals(model: Model, posed: Sequence[Posed]) -> Part:
    """Regions of the ground are put beside the animals', where the ground leaves room for them."""
    filled = [one for _, some in roles.batches(posed) for one in _filled(some)]
    told, right = [], []
    for each, one in zip(filled, _heard(model, filled, _apart), strict=True):
        own = np.array([owner is not None for owner in roles.matched(each.found.boxes, each.scene)])
        told.append(outranks(one.regions[own], one.regions[~own]))
    for _, some in roles.batches(filled):
        said = model.predict(**roles.given(some), top=1)
        right += [float(ranked[0].label == each.question.answer) for ranked, each in zip(said, some, strict=True)]
    ahead = mean(told)
    return Part(
        "An animal's region outranks one of the ground.",
        "of pairs of such regions in a picture: the interval of how often lies above one half",
        ahead.low > 0.5,
        {"an animal outranks the ground": ahead, "answered rightly with regions of the ground": mean(right)},
    )


def _filled(posed: Sequence[Posed]) -> list[Posed]:
    """The same with regions of the ground: cells that no animal reaches, as the detector describes that it sees none.

    What it says of such a query's own box is of no use: those boxes lie about the middle, on the animals.
    """
    import torch

    from heedmap.zoo.describing import detector

    detr, processor = detector()
    with torch.no_grad():
        output = detr(**processor(images=[each.scene.image for each in posed], return_tensors="pt").to(detr.device))
    least = output.logits.softmax(-1)[..., -1].topk(EMPTY).indices  # surest that there is nothing
    found = []
    for each, queries, states in zip(posed, least, output.last_hidden_state, strict=True):
        cells = _free(each.scene)
        if len(cells) < EMPTY:
            continue
        features = np.concatenate([each.found.features, states[queries].cpu().numpy()])
        boxes = np.concatenate([each.found.boxes, np.array(cells[:EMPTY], dtype=np.float32)])
        names = (*each.found.names, *["ground"] * EMPTY)
        found.append(replace(each, found=Given(boxes, features, names)))
    return found


def _free(scene: Scene) -> list[tuple[float, float, float, float]]:
    """The cells of a picture that no animal reaches."""
    edges = [round(i * scene.size / CELLS) for i in range(CELLS + 1)]
    bare = ~np.any([animal.mask for animal in scene.animals], axis=0)
    sides = [(low, high) for low, high in pairwise(edges)]
    return [
        (left / scene.size, top / scene.size, right / scene.size, bottom / scene.size)
        for top, bottom in sides
        for left, right in sides
        if bare[top:bottom, left:right].all()
    ]


def _unasked(posed: Sequence[Posed], apart: Sequence[Heard], whole: Sequence[Heard]) -> Part:
    both = {"the reading": apart, "the whole explanation": whole}
    told = {name: [_asked_first(*pair) for pair in zip(posed, heard, strict=True)] for name, heard in both.items()}
    gain = difference(told["the whole explanation"], told["the reading"])
    return Part(
        "Which animal is asked about shows in the whole explanation, less in the reading of the picture.",
        "how often an animal that is asked about outranks another: the interval of the difference lies above 0",
        gain.low > 0,
        {**{f"{name}: asked outranks other": mean(values) for name, values in told.items()}, "difference": gain},
    )


def _asked_first(posed: Posed, heard: Heard) -> float:
    """How often a region that is asked about outranks another; NaN where there is none, or no other."""
    asked = {row for role in posed.roles if role.part != "other" for row in role.rows}
    rest = [row for row in range(len(heard.regions)) if row not in asked]
    return outranks(heard.regions[sorted(asked)], heard.regions[rest])


def _same(model: Model, posed: Sequence[Posed], apart: Sequence[Heard], whole: Sequence[Heard]) -> Part:
    """Another question about the same picture, of the next type that it allows."""
    several = [i for i, each in enumerate(posed) if len(each.found.boxes) > 1]
    others = [replace(posed[i], question=_next(posed[i])) for i in several]
    alike = {
        name: [
            cosine(before[i].regions, after.regions)
            for i, after in zip(several, _heard(model, others, how), strict=True)
        ]
        for name, before, how in (("the reading", apart, _apart), ("the whole explanation", whole, _whole))
    }
    gain = difference(alike["the reading"], alike["the whole explanation"])
    return Part(
        "Whatever is asked, the picture is read alike.",
        "cosine between the regions of two questions about a picture: the reading's exceeds the whole explanation's",
        gain.low > 0,
        {**{f"{name}: cosine": mean(values) for name, values in alike.items()}, "difference": gain},
    )


def _next(posed: Posed) -> Question:
    start = TYPES.index(posed.question.type) + 1
    turn = (*TYPES[start:], *TYPES[:start])
    return next(one for kind in turn if (one := ask(posed.scene, posed.scene.seed, kind)) is not None)
