"""How often questions about held-out scenes are answered right, over all and per type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL.Image import Image

from heedmap.menagerie.asking import TYPES, questions
from heedmap.zoo.describing import describe, padded
from heedmap.zoo.regions import Regions

HELD_OUT = 300_000  # the first scene seed of the figures
QUESTIONS = 2000
BATCH = 50


def measure(
    path: Path, n: int = QUESTIONS, describe: Callable[[Sequence[Image]], list[Regions]] = describe
) -> dict[str, float]:
    """The share of right answers to n questions; regions are those of the zoo's detector."""
    from transformers import AutoTokenizer, LxmertForQuestionAnswering

    model = LxmertForQuestionAnswering.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    right: dict[str, list[bool]] = defaultdict(list)
    asked = list(questions(n, HELD_OUT))
    for start in range(0, n, BATCH):
        some = asked[start : start + BATCH]
        words = tokenizer([question.text for _, question in some], padding=True, return_tensors="pt")
        regions = padded(describe([scene.image for scene, _ in some]))
        with torch.no_grad():
            scores = model(**words, **regions).question_answering_score
        for (_, question), label in zip(some, scores.argmax(-1).tolist(), strict=True):
            right[question.type].append(model.config.id2label[label] == question.answer)
    share = {type: sum(right[type]) / len(right[type]) for type in TYPES if right[type]}
    return {"right": sum(map(sum, right.values())) / n} | share
