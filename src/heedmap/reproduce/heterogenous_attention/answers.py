"""Figure 5: the words and regions that speak for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from heedmap.errors import InputError
from heedmap.evaluation import stores
from heedmap.evaluation.asked import Asked
from heedmap.evaluation.drawn import SAME, cosine, deciding
from heedmap.evaluation.localisation import share
from heedmap.evaluation.statistics import difference, mean
from heedmap.layouts import Regions, Words
from heedmap.menagerie import KINDS, Question, Scene
from heedmap.menagerie import questions as questions_drawn
from heedmap.reproduce.findings import Finding, Part, Setting

if TYPE_CHECKING:
    from heedmap.evaluation.stores import Store
    from heedmap.families import Model
    from heedmap.records import Explanation

ZOO = "zoo:lxmert"
SEED = 905_000
OURS, GAE, ODAM = "heed:positive", "gae", "odam"
METHODS = (GAE, ODAM, OURS, "heed:absolute", "heed")
SHOWN = 5  # questions, as in the paper
BATCH = 32
ALIKE = 0.9  # cosine of two maps that are much alike
ASKS = {word for kind in KINDS for word in kind.split()} | {"colour", "many", "left"}  # words that decide an answer


def figure_5(setting: Setting) -> Finding:
    """Words and regions for an answer, by every method."""
    claim = (
        "ODAM gives the worst maps. Positive correction and GAE are much alike, and positive correction leaves less on "
        "what does not decide the answer."
    )
    model = setting.loaded(ZOO)
    if setting.questions is not None or setting.images:
        return Finding(claim, rows=_shown(setting, model))
    drawn = list(questions_drawn(setting.scenes, SEED))
    rows = {
        f"{question.text} (question {scene.seed})": [
            model.explain(scene.image, question.text, method=name) for name in METHODS
        ]
        for scene, question in drawn[:SHOWN]
    }
    regions, words, alike = _measured(model, drawn, setting)
    pointed = {name: np.nan_to_num(values) for name, values in regions.items()}
    best, better = (difference(pointed[name], pointed[ODAM]) for name in (OURS, GAE))
    ours, gae = regions[OURS], regions[GAE]
    quieter = difference(_rest(gae), _rest(ours))
    clearer = difference(words[OURS], words[GAE])
    return Finding(
        claim,
        [
            Part(
                "ODAM is the worst.",
                "share of what speaks for the answer on the regions that decide it, 0 where nothing speaks for it: the "
                "intervals of the differences of positive correction and of GAE to ODAM lie above 0",
                best.low > 0 and better.low > 0,
                {
                    **{name: mean(values) for name, values in pointed.items()},
                    "heed:positive less odam": best,
                    "gae less odam": better,
                    "odam where something speaks for it": mean(regions[ODAM]),
                },
            ),
            Part(
                "Positive correction and GAE are much alike.",
                f"cosine of the two maps, of regions and of words: the intervals lie above {ALIKE:g}",
                all(mean(each).low > ALIKE for each in alike.values()),
                {f"cosine, {of}": mean(each) for of, each in alike.items()},
            ),
            Part(
                "Positive correction leaves less on other regions than GAE.",
                "share of what speaks for the answer on regions that do not decide it: the interval of the difference "
                "lies above 0",
                quieter.low > 0,
                {"gae": mean(_rest(gae)), "heed:positive": mean(_rest(ours)), "gae less heed:positive": quieter},
            ),
            Part(
                "Its words are better too (the paper infers it from the pictures).",
                "share of what speaks for the answer on the kinds, and on colour, many and left: the interval of the "
                "difference lies above 0",
                clearer.low > 0,
                {**{name: mean(values) for name, values in words.items()}, "heed:positive less gae": clearer},
            ),
        ],
        rows,
        note=(
            "Regions that decide are the animals that the question is about, matched by their boxes (intersection over "
            f"union of {SAME:g}). For regions, questions count where some decide and some do not; not where a missing "
            "one of two decides. ODAM says nothing of words."
        ),
    )


def given(setting: Setting, model: Model) -> tuple[list[Asked], Store]:
    """The questions of the files that are named, about pictures whose regions are known."""
    if setting.questions is None:
        raise InputError("The figure asks questions. Give a file of them (--questions), beside the pictures.")
    if setting.regions is not None:
        store: Store = stores.store(setting.regions)
    elif setting.images and model.source == ZOO:
        store = stores.Described(stores.files(setting.images))
    else:
        raise InputError(
            f"{model.source!r} reads regions of pictures, not pixels. Name the file that has them (--regions); for "
            f"{ZOO} the pictures will do (--images)."
        )
    return stores.asked_about(store, setting.questions, setting.annotations)[0], store


def _shown(setting: Setting, model: Model) -> dict[str, list[Explanation]]:
    """The first questions about the pictures that are named."""
    questions, store = given(setting, model)
    files = stores.files(setting.images)
    seen = [one for one in questions if one.picture in files][:SHOWN]
    if not seen:
        raise InputError(f"None of the {len(questions)} questions is about a picture that is named. Give --images.")
    rows = {}
    for one in seen:
        (found,) = store.read([one.picture])
        picture = str(files[one.picture])
        rows[f"{one.text} ({one.name})"] = [
            model.explain(picture, one.text, regions=found, method=name) for name in METHODS
        ]
    return rows


# ---- measuring


def _measured(
    model: Model, drawn: Sequence[tuple[Scene, Question]], setting: Setting
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, list[float]]]:
    """By method: the shares on regions that decide, and on words; and how alike ours and GAE are."""
    regions: dict[str, list[float]] = {name: [] for name in METHODS}
    words: dict[str, list[float]] = {name: [] for name in METHODS if name != ODAM}
    alike: dict[str, list[float]] = {"regions": [], "words": []}
    for start in range(0, len(drawn), BATCH):
        together = drawn[start : start + BATCH]
        images, texts = [scene.image for scene, _ in together], [question.text for _, question in together]
        found = {name: model.explain(images, texts, method=name) for name in METHODS}
        for i, (scene, question) in enumerate(together):
            layouts = found[OURS].shown[i].layouts
            boxes, text = layouts["visual_feats"], layouts["input_ids"]
            assert isinstance(boxes, Regions)
            assert isinstance(text, Words)
            real = [token for token in range(len(boxes.boxes)) if token not in boxes.special]
            decides = deciding(scene, question, np.array(boxes.boxes)[real])
            asks = np.array([each in ASKS for each in text.texts])
            spoken = [token for token in range(len(asks)) if token not in text.special]
            maps = {name: _tokens(each, "visual_feats", i, real) for name, each in found.items()}
            said = {name: _tokens(found[name], "input_ids", i, spoken) for name in words}
            if decides.any() and not decides.all() and not _absent(question):
                for name, values in maps.items():
                    regions[name].append(share(values, decides))
            for name, values in said.items():
                words[name].append(share(values, asks[spoken]))
            alike["regions"].append(cosine(maps[OURS], maps[GAE]))
            alike["words"].append(cosine(said[OURS], said[GAE]))
        setting.step((start + len(together)) / len(drawn))
    return regions, words, alike


def _absent(question: Question) -> bool:
    """Whether an animal decides that is not there: of the two that are asked about, the other speaks for yes."""
    return question.type == "both" and question.answer == "no"


def _tokens(explanation: Explanation, stream: str, example: int, tokens: Sequence[int]) -> np.ndarray:
    return explanation[stream][example].detach().double().cpu().numpy()[list(tokens)]


def _rest(shares: Sequence[float]) -> list[float]:
    """What lies elsewhere."""
    return [1 - value for value in shares]
