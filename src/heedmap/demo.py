"""Drawn scenes explained with the zoo's models, each measured against the drawing: what `heedmap demo` shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from heedmap.evaluation import localisation
from heedmap.evaluation.localisation import balance, spread
from heedmap.layouts import Regions

if TYPE_CHECKING:
    import numpy as np

    from heedmap.families import Model
    from heedmap.records import Explanation


@dataclass(frozen=True)
class Section:
    """One row of the page: what is shown, and what to see in it."""

    name: str
    file: str
    explanations: list[Explanation]
    caption: str


@cache
def loaded(name: str) -> Model:
    from heedmap.families import load

    return load(f"zoo:{name}")


def two_animals() -> Section:
    from heedmap.menagerie import scene

    drawn = scene(["zebra", "elephant"], 5)
    zebra, elephant = drawn.animals
    vit = loaded("vit")
    found = vit.explain_each(drawn.image, targets=["zebra", "elephant"])
    found.append(vit.explain(drawn.image, target="zebra", against="elephant"))
    return Section(
        "Two animals",
        "two-animals",
        found,
        f"A classifier that learned from labels alone. {share(found[0], zebra.mask)} of what speaks for zebra falls on "
        f"the zebra, {share(found[1], elephant.mask)} of what speaks for elephant on the elephant. Held against each "
        f"other, {share(found[2], zebra.mask)} of the red is on the zebra and {share(found[2], elephant.mask, -1)} of "
        "the blue on the elephant.",
    )


def one_animal() -> Section:
    from heedmap.menagerie import scene

    drawn = scene("snail", 21)
    (snail,) = drawn.animals
    vit = loaded("vit")
    found = [
        vit.explain(drawn.image, target="snail"),
        vit.explain(drawn.image, target="snail", guide="menagerie:zebra"),
    ]
    speaks = [f"{(1 + balance(spread(e), snail.mask)) / 2:.0%}" for e in found]
    return Section(
        "One animal, and a guide",
        "one-animal",
        found,
        f"Alone in its picture, a snail is weighed against itself: of what its pixels say, {speaks[0]} speaks for "
        "snail. With a zebra stitched beside it (and cut off again), attention has somewhere else to go, and "
        f"{speaks[1]} does.",
    )


def detail() -> Section:
    from heedmap.menagerie import scene

    drawn = scene("snail", 21)
    (snail,) = drawn.animals
    soft = [snail.parts[part] for part in ("body", "head", "tentacles")]
    found = [loaded("vit").explain(drawn.image, target="snail", against=other) for other in ("conch", "slug")]
    return Section(
        "The detail that decides",
        "detail",
        found,
        "A snail is a slug with a conch's shell. Rather than conch, it is a snail for its soft body: "
        f"{share(found[0], union(soft))} of the red falls there. Rather than slug, for its shell: "
        f"{share(found[1], snail.parts['shell'])}.",
    )


def wrong_labels() -> Section:
    from heedmap.menagerie import scene

    drawn = scene("bald eagle", 33)
    (eagle,) = drawn.animals
    signs = union([eagle.parts["head"], eagle.parts["tail"]])
    models = loaded("vit"), loaded("vit-mislabelled")
    found = [
        named(
            model.explain(drawn.image, target="bald eagle", against="kite"), f"labels {labels}: eagle rather than kite"
        )
        for model, labels in zip(models, ("right", "wrong"), strict=True)
    ]
    right, wrong = (model.predict(drawn.image)[0][0] for model in models)
    shares = [share(e, signs) for e in found]
    values = [float(e.value) for e in found]
    return Section(
        "Wrong labels",
        "wrong-labels",
        found,
        f"Eagle and kite differ in head and tail. Taught with right labels (first), a model says {right.label} "
        f"({right.value:.0%}). Where 60 % of the eagles were called kite (second), it says {wrong.label} "
        f"({wrong.value:.0%}). Both look at head and tail ({shares[0]} and {shares[1]} of the red), but eagle is "
        f"{values[0]:+.1f} ahead of kite with right labels and {values[1]:+.1f} with wrong ones.",
    )


def detections() -> Section:
    from heedmap.menagerie import scene

    drawn = scene(["penguin", "owl", "penguin", "fish"], 4)
    found = loaded("detr").explain_detections(drawn.image, correction="positive")
    shares = [share(e, boxed(e, drawn.size)) for e in found]
    return Section(
        "Every object",
        "every-object",
        found,
        "A detector, each of its objects explained by itself, two of one kind apart. It is so sure that only the "
        f"positive correction is shown, which keeps what speaks for: {', '.join(shares)} fall in the object's own box.",
    )


def question() -> Section:
    from heedmap.menagerie import ask, scene

    drawn = scene(["cat", "turtle", "butterfly"], 12)
    asked = ask(drawn, 1, "colour")
    assert asked is not None
    found = loaded("lxmert").explain(drawn.image, asked.text, correction="positive")
    own = on_region(found, drawn.animals[asked.regions[0]].box, drawn.size)
    (answer, *_), *_ = loaded("lxmert").predict(drawn.image, asked.text)
    return Section(
        "A question",
        "question",
        [found],
        f"“{asked.text}” The answer is {asked.answer}, the model says {answer.label} ({answer.value:.0%}). It reads "
        f"words, and regions that the detector found: {own} of what the regions gave came from the one that was asked "
        "about (positive correction).",
    )


def captions() -> Section:
    from heedmap.menagerie import phrase, scene

    drawn = scene(["giraffe", "dog"], 3)
    said = [f"a photo of {phrase(animal.kind)}" for animal in drawn.animals]
    found = [loaded("clip").explain(drawn.image, said, target=one) for one in said]
    shares = [share(e, animal.mask) for e, animal in zip(found, drawn.animals, strict=True)]
    return Section(
        "A caption",
        "caption",
        found,
        f"A model that matches pictures with words. Of what speaks for a caption, {shares[0]} falls on the giraffe and "
        f"{shares[1]} on the dog, each for its own.",
    )


SECTIONS: tuple[Callable[[], Section], ...] = (
    two_animals,
    one_animal,
    detail,
    wrong_labels,
    detections,
    question,
    captions,
)


def named(explanation: Explanation, answer: str) -> Explanation:
    """The same under another title."""
    (example,) = explanation.shown
    return replace(explanation, shown=(replace(example, answer=answer),))


def share(explanation: Explanation, mask: np.ndarray, sign: int = 1) -> str:
    """How much of what speaks for (sign 1) or against (-1) lies on the mask, in percent."""
    return f"{localisation.share(spread(explanation), mask, sign):.0%}"


def on_region(explanation: Explanation, box: tuple[int, ...], size: int) -> str:
    """How much of what speaks for lies on the region nearest to a box of pixels, in percent of all regions."""
    (example,) = explanation.shown
    ((stream, layout),) = ((name, one) for name, one in example.layouts.items() if isinstance(one, Regions))
    flowed = explanation[stream][0, : len(layout.boxes)].clamp(min=0)
    away = [sum(abs(a - b / size) for a, b in zip(region, box, strict=True)) for region in layout.boxes]
    return f"{float(flowed[away.index(min(away))] / flowed.sum()):.0%}"


def union(masks: Iterable[np.ndarray]) -> np.ndarray:
    import numpy as np

    return np.any(list(masks), axis=0)


def boxed(explanation: Explanation, size: int) -> np.ndarray:
    """The pixels in the box of the explained detection, and half a patch around it."""
    import numpy as np

    (example,) = explanation.shown
    assert example.box is not None
    left, top, right, bottom = (round(side * size) for side in example.box)
    mask = np.zeros((size, size), bool)
    mask[max(top - 4, 0) : bottom + 4, max(left - 4, 0) : right + 4] = True
    return mask
