"""What the worked pages say in numbers: is a written word read off the word, or the tone, that it stands for?

`python docs/worked/measured.py 200` asks 200 examples of each kind.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from typing import Any

import numpy as np
import toys

import heedmap
from heedmap.evaluation.statistics import mean

FIRST = 10_000  # seeds of the examples; none was learned from
HOW: dict[str, dict[str, Any]] = {
    "heed": {},
    'heed, against="next best"': {"against": "next best"},
    "heed:absolute": {"correction": "absolute"},
    "gae": {"method": "gae"},
    'gae, against="next best"': {"method": "gae", "against": "next best"},
}
Found = tuple[bool, float]  # whether the loudest place is right, and what flowed from the right places


def translations(model: Any, seed: int, how: dict[str, Any]) -> list[Found]:
    """Each word but "le" that a sentence has once."""
    back = {theirs: ours for table in (toys.ANIMALS, toys.LOOKS, toys.DOES) for ours, theirs in table.items()}
    text, wanted = toys.sentence(random.Random(seed))
    written = model.explain_produced(text=text, tokens=12, **how)
    _check(written.text, wanted)
    asked = [word for word in written.words if word.text in back and wanted.split().count(word.text) == 1]
    return [_found(word.explanation["input_ids"], [text.split().index(back[word.text])]) for word in asked]


def summaries(model: Any, seed: int, how: dict[str, Any]) -> list[Found]:
    """The two animals of each."""
    text, wanted = toys.story(random.Random(seed))
    written = model.explain_produced(text=text, tokens=12, **how)
    _check(written.text, wanted)
    asked = (written.words[0], written.words[2])
    return [_found(word.explanation["input_ids"], [text.split().index(word.text)]) for word in asked]


def tunes(model: Any, seed: int, how: dict[str, Any]) -> list[Found]:
    """Each tone: the stretches whose middle lies in it."""
    wave, wanted, heard = toys.tune(random.Random(seed))
    written = model.explain_produced(sound=wave, tokens=6, **how)
    _check(written.text, wanted)
    told = []
    for word, (start, end) in zip(written.words, heard, strict=False):
        row = word.explanation["input_features"]
        middles = (np.arange(row.shape[1]) + 0.5) / row.shape[1] * toys.SECONDS
        told.append(_found(row, np.flatnonzero((middles >= start) & (middles < end)).tolist()))
    return told


class Wrong(Exception):
    """The model wrote something else than it should: there is no right place."""


def _check(text: str, wanted: str) -> None:
    if text != wanted:
        raise Wrong


def _found(flowed: Any, places: list[int]) -> Found:
    row = flowed[0].numpy()
    return int(np.abs(row).argmax()) in places, float(row[places].sum())


def main(count: int) -> None:
    for make, measure in ((toys.translator, translations), (toys.summariser, summaries), (toys.listener, tunes)):
        with tempfile.TemporaryDirectory() as folder:
            for part in make():
                part.save_pretrained(folder)
            model = heedmap.load(folder)
        for name, how in HOW.items():
            found = []
            for seed in range(FIRST, FIRST + count):
                with contextlib.suppress(Wrong):
                    found.append(measure(model, seed, how))
            right = mean([float(np.mean([hit for hit, _ in one])) for one in found])
            speaks = mean([float(np.mean([flowed > 0 for _, flowed in one])) for one in found])
            print(f"{make.__name__}  {name:26}  loudest right {right}  speaks for {speaks}  {len(found)} of {count}")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
