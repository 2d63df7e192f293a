"""Figure 6: regions, or words, removed from what an answer is given by."""

from __future__ import annotations

from heedmap.evaluation import asked, stores
from heedmap.evaluation.panels import panels
from heedmap.evaluation.questions import Removal, classes, removal
from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.heterogenous_attention.answers import ZOO, given

SEED = 906_000
OURS, GAE = "heed:positive", "gae"
METHODS = (OURS, GAE, "heed:absolute", "heed", "odam", "random")
SIMILAR = 2.0  # points of the area under the curve
LEAST = 30  # fewer questions decide nothing
CONTRADICTS = ("image", "negative")  # the panel of which the paper says that it contradicts its maps
REMOVED = {"image": "Regions", "text": "Words"}
FIRST = {"positive": "most relevant first", "negative": "least relevant first"}


def figure_6(setting: Setting) -> Finding:
    """Regions and words removed from most to least relevant, and the other way round."""
    claim = (
        "Removing regions or words, positive correction does no worse than GAE, except where regions go least relevant "
        "first: there the numbers contradict its maps. The paper shows them for reference only."
    )
    model = setting.loaded(ZOO)
    if setting.questions is not None or setting.images:
        found, store = given(setting, model)
        found = asked.some(found, setting.scenes, 0)
    else:
        found, pictures = asked.drawn(setting.scenes, SEED)
        store = stores.Described(pictures)
    labels = asked.labels(model.labels, classes(model), None, setting.questions)
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        setting.step(done / len(found))

    result = removal(model, found, store, METHODS, labels=labels, progress=told)
    parts = [_part(result, modality, order) for modality, order in result.panels]
    return Finding(
        claim,
        parts if result.questions >= LEAST else [],
        drawings={"panels": panels(result)},
        note="The answer that the model finds likeliest is explained. ODAM says nothing of words.",
        more=result.record(),
    )


def _part(result: Removal, modality: str, order: str) -> Part:
    gap = result.difference(OURS, GAE, modality, order)
    numbers = {
        **{f"area, {one.method}": one.auc for one in result.panel(modality, order)},
        f"{OURS} less {GAE}": gap,
    }
    what = f"{REMOVED[modality]}, {FIRST[order]}"
    if (modality, order) == CONTRADICTS:
        return Part(
            f"{what}: positive correction is not ahead of GAE, though its maps are the cleaner ones.",
            "the interval of the difference of the areas does not lie above 0",
            gap.low <= 0,
            numbers,
        )
    lower = order == "positive"
    return Part(
        f"{what}: positive correction is no worse than GAE.",
        f"the interval of the difference of the areas lies {'below' if lower else 'above'} "
        f"{'' if lower else '−'}{SIMILAR:g} points",
        gap.high < SIMILAR if lower else gap.low > -SIMILAR,
        numbers,
    )
