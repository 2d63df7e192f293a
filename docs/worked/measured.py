"""What the worked pages say in numbers: is a written word read off the word, or the tone, that it stands for?

`python docs/worked/measured.py 200` asks 200 examples of each kind; with a second word, `talker` alone and the like.
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
from heedmap.render.views import panels

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


def exchanges(model: Any, seed: int, how: dict[str, Any]) -> list[Found]:
    """Each word but "le" and "the" that a sentence has once, among the words of the conversation."""
    back = {theirs: ours for table in (toys.ANIMALS, toys.LOOKS, toys.DOES) for ours, theirs in table.items()}
    messages, wanted = toys.exchange(random.Random(seed))
    text = messages[1]["content"]
    written = model.explain_produced(text=messages, tokens=12, **how)
    _check(written.text, wanted)
    found = []
    for word in written.words:
        source = back.get(word.text, word.text)
        if not word.special and source not in ("le", "the") and text.split().count(source) == 1:
            said = _said(word.explanation)
            right = [i for i, (part, name, _) in enumerate(said) if (part, name) == ("user", source)]
            found.append(_found(np.array([[flowed for *_, flowed in said]]), right))
    return found


def decided(model: Any, seed: int, how: dict[str, Any]) -> list[Found]:
    """The first word against that of the answer in the other language: does the system prompt decide it?"""
    messages, wanted = toys.exchange(random.Random(seed))
    other = next(answer for answer in toys.sentence(random.Random(seed)) if answer != wanted)
    written = model.explain_produced(text=messages, tokens=12, **{**how, "against": other})
    _check(written.text, wanted)
    said = _said(written.words[0].explanation)
    right = [i for i, (part, *_) in enumerate(said) if part == "system"]
    return [_found(np.array([[flowed for *_, flowed in said]]), right)]


def _said(explanation: Any) -> list[tuple[str, str, float]]:
    """Who said which word, and what flowed from it."""
    (panel,) = panels(explanation)
    views = [view for view in panel.views if view.part in ("system", "user")]
    return [(view.part, unit.name, unit.value) for view in views for unit in view.units]


class Wrong(Exception):
    """The model wrote something else than it should: there is no right place."""


def _check(text: str, wanted: str) -> None:
    if text != wanted:
        raise Wrong


def _found(flowed: Any, places: list[int]) -> Found:
    row = np.asarray(flowed[0])
    return int(np.abs(row).argmax()) in places, float(row[places].sum())


ASKED = {
    "translator": (toys.translator, translations, HOW),
    "summariser": (toys.summariser, summaries, HOW),
    "listener": (toys.listener, tunes, HOW),
    "talker": (toys.talker, exchanges, HOW),
    "decided": (toys.talker, decided, {name: HOW[name] for name in ("heed", "heed:absolute", "gae")}),
}


def main(count: int, names: list[str]) -> None:
    for name in names or ASKED:
        make, measure, ways = ASKED[name]
        with tempfile.TemporaryDirectory() as folder:
            for part in make():
                part.save_pretrained(folder)
            model = heedmap.load(folder)
        for way, how in ways.items():
            found = []
            for seed in range(FIRST, FIRST + count):
                with contextlib.suppress(Wrong):
                    found.append(measure(model, seed, how))
            right = mean([float(np.mean([hit for hit, _ in one])) for one in found if one])
            speaks = mean([float(np.mean([flowed > 0 for _, flowed in one])) for one in found if one])
            print(f"{name}  {way:26}  loudest right {right}  speaks for {speaks}  {len(found)} of {count}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
