"""Questions about pictures, and what each answer to them is worth: VQA v2's files, LXMERT's own, or drawn ones.

Ten people answered each question of VQA v2. What an answer is worth is the official rule: min(n / 3, 1), n of nine
people who gave it, the mean over the ten ways to leave one out. LXMERT's files say the worth themselves.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

ENOUGH = 3  # people who say the same make an answer right
NUMBERS = {word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())}
PLAINER = {**NUMBERS, "none": "0", "a": "", "an": "", "the": ""}
PUNCTUATION = re.compile(r"[;/\[\]\"{}()=+\\_\-><@`,?!]")
NAMES = ("trainval_label2ans.json", "answers.txt")  # what lists of a model's answers are called


@dataclass(frozen=True, eq=False)
class Asked:
    """A question about a picture; `worth` of each answer, as `plain` writes it."""

    text: str
    worth: Mapping[str, float]
    picture: str
    name: str  # what is said of it when it cannot be asked


def read(questions: str | Path, annotations: str | Path | None = None) -> tuple[list[Asked], int]:
    """The questions that have answers, in the file's order, and how many have none.

    Either VQA v2's questions and annotations, or the one list in which LXMERT's authors keep both.
    """
    path, held = Path(questions), _json(questions)
    if isinstance(held, list):
        if annotations is not None:
            raise InputError(f"{path.name} says itself what its answers are worth. Leave the annotations out.")
        return _kept([_from_lxmert(item, path) for item in held], path)
    if not isinstance(held, dict) or not isinstance(held.get("questions"), list):
        raise InputError(
            f"{str(path)!r} holds {_met(held)}. heedmap expected VQA v2's questions ({{'questions': [...]}}), or a "
            "list of LXMERT's with 'img_id', 'sent' and 'label'."
        )
    if annotations is None:
        raise InputError(f"{path.name} has questions alone. Give the annotations that answer them too.")
    answers = _answers(Path(annotations))
    found = [_from_vqa(item, answers, path) for item in held["questions"]]
    return _kept(found, path, f" in {Path(annotations).name}")


def drawn(count: int, seed: int) -> tuple[list[Asked], dict[str, Image]]:
    """Questions about drawn scenes, of the seeds from `seed` on, and the pictures by their ids."""
    from heedmap import menagerie

    asked, pictures = [], {}
    for scene, question in menagerie.questions(count, seed):
        picture = str(scene.seed)
        asked.append(Asked(question.text, {plain(question.answer): 1.0}, picture, f"question {picture}"))
        pictures[picture] = scene.image
    return asked, pictures


def some(asked: Sequence[Asked], limit: int | None, seed: int) -> list[Asked]:
    """So many of the questions, drawn by chance, in their order."""
    if limit is None or limit >= len(asked):
        return list(asked)
    return [asked[i] for i in sorted(random.Random(seed).sample(range(len(asked)), limit))]


# ---- answers


def worth(answers: Sequence[str]) -> dict[str, float]:
    """What each answer is worth by what people said."""
    people = len(answers)
    return {
        answer: (said * min((said - 1) / ENOUGH, 1) + (people - said) * min(said / ENOUGH, 1)) / people
        for answer, said in Counter(map(plain, answers)).items()
    }


def plain(answer: str) -> str:
    """An answer as answers are compared: digits for numbers, no articles, no punctuation, contractions by letters."""
    text = re.sub(r"(?<=\d),(?=\d)|(?<!\d)\.|\.(?!\d)|['’]", "", answer.lower())
    words = [PLAINER.get(word, word) for word in PUNCTUATION.sub(" ", text).split()]
    return " ".join(word for word in words if word)


def labels(own: Sequence[str], classes: int, given: str | Path | None, beside: str | Path | None) -> tuple[str, ...]:
    """What a model's answers are called: the list that is given, its own names, or a list of a usual name `beside`."""
    found = (Path(beside).parent / name for name in NAMES) if beside and not own else ()
    path = Path(given) if given else next((each for each in found if each.is_file()), None)
    if path is None and not own:
        raise InputError(
            "The model does not say what its answers are called. Give a list of them in its order: JSON, or one a "
            f"line ({NAMES[0]} of LXMERT's authors)."
        )
    names = tuple(own) if path is None else _list(path)
    if len(names) != classes:
        where = f"{str(path)!r} names" if path else "The model names"
        raise InputError(f"{where} {len(names)} answers, and the model chooses among {classes}. Give its own list.")
    return names


def _list(path: Path) -> tuple[str, ...]:
    if path.suffix.lower() == ".json":
        held = _json(path)
        if isinstance(held, list) and all(isinstance(each, str) for each in held):
            return tuple(held)
        raise InputError(f"{str(path)!r} holds {_met(held)}. heedmap expected a list of answers.")
    return tuple(_text(path).splitlines())


# ---- files


def _answers(path: Path) -> dict[Any, list[str]]:
    """What people answered, by question."""
    held = _json(path)
    if not isinstance(held, dict) or not isinstance(held.get("annotations"), list):
        raise InputError(f"{str(path)!r} holds {_met(held)}. heedmap expected VQA v2's {{'annotations': [...]}}.")
    found = {}
    for item in held["annotations"]:
        _check(item, ("question_id", "answers"), path)
        given = item["answers"] if isinstance(item["answers"], list) else [None]
        said = [each.get("answer") if isinstance(each, dict) else each for each in given]
        if not all(isinstance(each, str) for each in said):
            raise InputError(
                f"{path.name}: the answers to question {item['question_id']} are not words alone. heedmap expected "
                "VQA v2's [{'answer': 'yes'}, ...]."
            )
        if len(said) <= ENOUGH:
            raise InputError(
                f"{path.name}: question {item['question_id']} has {len(said)} answers. heedmap expected those of more "
                f"than {ENOUGH} people, as VQA v2 has of ten: fewer can never be wholly right."
            )
        found[item["question_id"]] = said
    return found


def _from_vqa(item: Any, answers: Mapping[Any, list[str]], path: Path) -> Asked | None:
    _check(item, ("question", "question_id", "image_id"), path)
    _check_words(item["question"], path)
    said = answers.get(item["question_id"])
    if said is None:
        return None
    return Asked(item["question"], worth(said), called(item["image_id"]), f"question {item['question_id']}")


def _from_lxmert(item: Any, path: Path) -> Asked | None:
    _check(item, ("sent", "img_id"), path)
    told = item.get("label")
    if not told:
        return None
    _check_words(item["sent"], path)
    if not isinstance(told, dict) or not all(isinstance(n, int | float) for n in told.values()):
        raise InputError(f"{path.name} has the label {told!r}. heedmap expected answers with their worth: {{...}}.")
    # Sorted: of two ways to write one answer the better counts.
    best = {plain(each): float(n) for each, n in sorted(told.items(), key=lambda one: one[1])}
    number = item.get("question_id")
    name = f"question {number}" if number is not None else f"question {item['sent']!r} about {item['img_id']}"
    return Asked(item["sent"], best, called(item["img_id"]), name)


def _kept(found: Sequence[Asked | None], path: Path, where: str = "") -> tuple[list[Asked], int]:
    kept = [one for one in found if one is not None]
    if not kept:
        raise InputError(f"None of the {len(found)} questions of {path.name} has an answer{where}.")
    return kept, len(found) - len(kept)


def called(picture: Any) -> str:
    """One name for all that a picture is called: COCO_val2014_000000000042 and 42 are one."""
    number = re.fullmatch(r"(?:.*_)?(\d+)", str(picture))
    return str(int(number[1])) if number else str(picture)


def _check(item: Any, needed: Sequence[str], path: Path) -> None:
    if not isinstance(item, dict) or any(name not in item for name in needed):
        raise InputError(f"{path.name} has an entry with {_met(item)}. heedmap expected {', '.join(needed)} in each.")


def _check_words(question: Any, path: Path) -> None:
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{path.name} has the question {question!r}. heedmap expected words.")


def _met(held: Any) -> str:
    return f"the names {', '.join(map(str, held))}" if isinstance(held, dict) else f"a {type(held).__name__}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}). heedmap expected a text file.") from error


def _json(path: str | Path) -> Any:
    try:
        return json.loads(_text(Path(path)))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} cannot be read as JSON ({error}).") from error
