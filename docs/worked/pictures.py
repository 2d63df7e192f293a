"""Makes the pictures of the worked pages: python docs/worked/pictures.py"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import toys

import heedmap
from heedmap import menagerie, render

HERE = Path(__file__).parent
QUESTION = "is there a zebra in the picture?"
SEED = 7
TALK = 10_003


def learned(make: Callable[[], tuple[Any, ...]]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        for part in make():
            part.save_pretrained(folder)
        return heedmap.load(folder)


def texts() -> None:
    translator = learned(toys.translator)
    text, _ = toys.sentence(random.Random(SEED))
    translator.explain_produced(text=text, against="next best").save(HERE / "translation.png")
    text, _ = toys.story(random.Random(SEED))
    learned(toys.summariser).explain_produced(text=text, against="next best").save(HERE / "summarisation.png")


def talks() -> None:
    messages, _ = toys.exchange(random.Random(TALK))
    other = "the black dog hears the big zebra"
    learned(toys.talker).generate(messages, against=other).save(HERE / "language-models.png")


def sounds() -> None:
    wave, _, heard = toys.tune(random.Random(3))
    told = learned(toys.listener).explain_produced(sound=wave, correction="absolute")
    told.save(HERE / "speech.png")
    print(told.text, heard)  # noqa: T201


def pairs() -> None:
    model = heedmap.load("zoo:clip")
    image = menagerie.scene(["cat", "dog"], seed=5, size=480).image
    captions = ["a cat", "a dog"]
    alone = [model.explain(image, text=captions, target=caption) for caption in captions]
    both = model.explain(image, text=captions, target="a cat", against="a dog")
    render.picture([[*alone, both]], side=230).save(HERE / "pairs.png")


def questions() -> None:
    sys.path.append(str(HERE.parents[1] / "tests" / "loading"))
    import folders

    image = menagerie.scene(["zebra", "elephant"], seed=3, size=320).image
    row = []
    for name, more in (("vilt", {}), ("blip", {"prefix": "a zebra"})):
        with tempfile.TemporaryDirectory() as folder:
            row.append(heedmap.load(folders.make(name, folder)).explain(image, text=QUESTION, **more))
    render.picture([row], side=280).save(HERE / "questions-in-one-stream.png")


if __name__ == "__main__":
    texts()
    talks()
    sounds()
    pairs()
    questions()
