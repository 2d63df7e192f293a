"""Questions about scenes, their answers, and the animals that decide them.

    exists   is there a zebra?                  yes, no
    both     is there a zebra and a cat?        yes, no
    colour   what colour is the zebra?          one of the four colours a zebra comes in
    count    how many animals are there?        1, 2, 3, 4
    left     which animal is left of the zebra? the kind of the nearest animal to its left

Balanced: types come in turn, and whatever the text, its answers are equally likely. Nor does the picture alone tell:
yes or no is decided first, then the kinds asked for are drawn from those that are there or from those that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from .cast import COLOURS, KINDS
from .chance import Draws, draws
from .stage import Animal, Scene, scene

MOST = 4  # animals that are counted
ONE_MISSING = 90  # percent of the "no" to "both" where one of the two is there, so that one look does not decide
MARGIN = 10  # percent of the picture's width by which centres must differ to be left and right of one another
TRIES = 1000


@dataclass(frozen=True)
class Question:
    """`regions` are the animals that decide the answer, by their place in `scene.animals`.

    For exists and both, the animals of the kinds asked for that are there (none where neither is); for colour, the
    animal; for count, all; for left, both animals.
    """

    type: str
    text: str
    answer: str
    regions: tuple[int, ...]

    def mask(self, scene: Scene) -> np.ndarray:
        """The pixels of the deciding animals, as booleans (size, size)."""
        seen = np.zeros((scene.size, scene.size), dtype=bool)
        for index in self.regions:
            seen |= scene.animals[index].mask
        return seen


def answers() -> tuple[str, ...]:
    """Every answer there is; the order gives the label ids."""
    return ("no", "yes", *(str(n) for n in range(1, MOST + 1)), *KINDS, *COLOURS)


def questions(n: int, seed: int, size: int = 96) -> Iterator[tuple[Scene, Question]]:
    """n scenes with a question each. Question i is drawn from seed + i alone, and its scene has that seed."""
    for own in range(seed, seed + n):
        yield _pose(own, size)


def ask(scene: Scene, seed: int, type: str | None = None) -> Question | None:
    """One question about a scene, of this type or of one drawn from seed; None where the scene allows none.

    Over scenes whose kinds are drawn evenly, what is asked is as balanced as `questions`.
    """
    if type is not None and type not in ASKING:
        near = get_close_matches(type, ASKING, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"'{type}' is not a type of question: they are {', '.join(ASKING)}.{hint}")
    draw = draws(seed, "question")
    types = draw.shuffled(TYPES) if type is None else [type]
    return next((question for each in types if (question := ASKING[each](scene, draw)) is not None), None)


def _pose(seed: int, size: int) -> tuple[Scene, Question]:
    kind_of_question = TYPES[seed % len(TYPES)]
    draw = draws(seed, "cast")
    fewest = 2 if kind_of_question in ("both", "left") else 1
    for _ in range(TRIES):
        drawn = scene([draw.choice(KINDS) for _ in range(draw.integer(fewest, MOST))], seed, size)
        question = ask(drawn, seed, kind_of_question)
        if question is not None:
            return drawn, question
    raise RuntimeError(f"No scene of seed {seed} allows a question of type '{kind_of_question}'.")  # never met


# ------------------------------------------------------------------------------------------------ one way to ask each


def _exists(scene: Scene, draw: Draws) -> Question | None:
    there, missing = _kinds(scene)
    yes = draw.chance(50)
    if not (there if yes else missing):
        return None
    kind = draw.choice(there if yes else missing)
    return Question("exists", f"is there {phrase(kind)}?", _yes(yes), _of(scene, kind))


def _both(scene: Scene, draw: Draws) -> Question | None:
    there, missing = _kinds(scene)
    if len(there) < 2 or len(missing) < 2:
        return None
    there, missing = draw.shuffled(there), draw.shuffled(missing)
    yes = draw.chance(50)
    one = draw.chance(ONE_MISSING)
    asked = there[:2] if yes else [there[0], missing[0]] if one else missing[:2]
    first, second = draw.shuffled(asked)
    return Question("both", f"is there {phrase(first)} and {phrase(second)}?", _yes(yes), _of(scene, first, second))


def _colour(scene: Scene, draw: Draws) -> Question | None:
    single = _single(scene)
    if not single:
        return None
    index = draw.choice(single)
    animal = scene.animals[index]
    return Question("colour", f"what colour is the {animal.kind}?", animal.colour, (index,))


def _count(scene: Scene, draw: Draws) -> Question | None:
    n = len(scene.animals)
    return Question("count", "how many animals are there?", str(n), tuple(range(n))) if 1 <= n <= MOST else None


def _left(scene: Scene, draw: Draws) -> Question | None:
    pairs = [(index, near) for index in _single(scene) if (near := _nearest_left(scene, index)) is not None]
    if not pairs:
        return None
    index, near = draw.choice(pairs)
    text = f"which animal is left of the {scene.animals[index].kind}?"
    return Question("left", text, scene.animals[near].kind, (index, near))


ASKING: dict[str, Callable[[Scene, Draws], Question | None]] = {
    "exists": _exists,
    "both": _both,
    "colour": _colour,
    "count": _count,
    "left": _left,
}
TYPES: tuple[str, ...] = tuple(ASKING)


# ------------------------------------------------------------------------------------------------------------ helpers


def _kinds(scene: Scene) -> tuple[list[str], list[str]]:
    """The kinds that are there, and those that are not."""
    there = {animal.kind for animal in scene.animals}
    return [kind for kind in KINDS if kind in there], [kind for kind in KINDS if kind not in there]


def _of(scene: Scene, *kinds: str) -> tuple[int, ...]:
    return tuple(index for index, animal in enumerate(scene.animals) if animal.kind in kinds)


def _single(scene: Scene) -> list[int]:
    """The animals that are the only ones of their kind."""
    kinds = [animal.kind for animal in scene.animals]
    return [index for index, kind in enumerate(kinds) if kinds.count(kind) == 1]


def _nearest_left(scene: Scene, index: int) -> int | None:
    """The nearest animal to the left; None where there is none, or where two centres are too close to tell."""
    centres = [_centre(animal) for animal in scene.animals]
    margin = 2 * scene.size * MARGIN // 100
    others = [other for other in range(len(centres)) if other != index]
    if any(abs(centres[other] - centres[index]) < margin for other in others):
        return None
    left = sorted((other for other in others if centres[other] < centres[index]), key=lambda other: -centres[other])
    if not left or (len(left) > 1 and centres[left[0]] - centres[left[1]] < margin):
        return None
    return left[0]


def _centre(animal: Animal) -> int:
    """Twice the middle of the box, so that it is whole."""
    return animal.box[0] + animal.box[2]


def phrase(kind: str) -> str:
    """The kind with its article: a zebra, an owl."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _yes(yes: bool) -> str:
    return "yes" if yes else "no"
