"""What a model writes, and why: an answer word by word, each explained from what was given and from the words before.

The model writes by itself, once, always taking the likeliest token that its generation config admits. Then it is given
what it wrote, and one forward pass explains every token of it: the logit of a token where the token before it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from heedmap.errors import InputError, ModelError
from heedmap.families import adding, contrasting, words, writing
from heedmap.families.asking import Asked
from heedmap.families.between import mark_of
from heedmap.families.contrasting import Other
from heedmap.families.feeding import Fed
from heedmap.families.looking import Look
from heedmap.families.sinks import WRITTEN
from heedmap.families.tasks import DECODERS, WRITERS
from heedmap.layouts import Words
from heedmap.records import Explanation
from heedmap.targets import Target
from heedmap.targets.expressions import Logit
from heedmap.targets.fields import logits_of

if TYPE_CHECKING:
    from heedmap.families.model import Model

WHOLE = "all of it"
NEXT = "next best"  # what a token may be held against: the one that the model liked best but for it


@dataclass(frozen=True, eq=False)
class Word:
    """A word that was written: its tokens by their place in what was written, and their explanations added up."""

    text: str
    tokens: tuple[int, ...]
    special: bool
    explanation: Explanation


@dataclass(frozen=True, eq=False)
class Produced:
    """What a model wrote, and for each token of it an explanation that knows nothing of what came later.

    `stream` is where it stands, after `begun` tokens that were there before; `layout` says what all of them are.
    `overruled` are the tokens in whose place the model liked another better, which its generation config forbade.
    `against` is what each token was held against, nothing where the logit alone is explained.
    `other` is another continuation that all of it was held against, `contrast` the explanation of log p(what was
    written) - log p(other); each word is then what it adds to that, but for words that both begin with.
    `ended` says whether the model came to an end, or the tokens asked for did.
    """

    text: str
    stream: str
    begun: int
    indices: tuple[int, ...]
    layout: Words
    explanations: tuple[Explanation, ...]
    overruled: tuple[int, ...]
    against: tuple[str, ...]
    ended: bool
    other: str = ""
    contrast: Explanation | None = None

    @property
    def tokens(self) -> tuple[str, ...]:
        """Each token as the text has it."""
        return self.layout.texts[self.begun :]

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """The whole words in their order; tokens that are no part of a word by themselves."""
        groups = [tuple(token - self.begun for token in word) for word in self.layout.words if word[0] >= self.begun]
        held = {token for word in groups for token in word}
        groups += [(token,) for token in range(len(self.indices)) if token not in held]
        return tuple(self._word(tokens) for tokens in sorted(groups))

    @property
    def told(self) -> tuple[Word, ...]:
        """The words, and last all of it where it was held against another continuation."""
        return (*self.words, *(() if self.contrast is None else (Word(WHOLE, (), False, self.contrast),)))

    def save(self, path: str | Path, **options: Any) -> None:
        """Draw it: `.png` and `.svg` a table of written by read words, `.html` a page on which to choose a word."""
        from heedmap.render.produced import drawn
        from heedmap.storage import write

        path = Path(path)
        write(path, drawn(self, path.suffix.lower(), **options))

    def _word(self, tokens: tuple[int, ...]) -> Word:
        text = "".join(self.tokens[token] for token in tokens) or "␣"
        text = "".join(letter if letter.isprintable() else words.UNREADABLE for letter in text)
        special = self.begun + tokens[0] in self.layout.special
        held = self.held_against(tokens)
        answer = f"{text} rather than {held}" if held else text
        return Word(
            text, tokens, special, adding.together([self.explanations[token] for token in tokens], text, answer)
        )

    def held_against(self, tokens: Sequence[int]) -> str:
        """What the tokens of a word were held against, in a row; what all was, of no token."""
        if not tokens:
            return self.other
        return " ".join(filter(None, (self.against[token] for token in tokens))) if self.against else ""

    def __repr__(self) -> str:
        return f"Produced({self.text!r}, {len(self.indices)} tokens{'' if self.ended else ', not ended'})"


def written(model: Model, fed: Fed, tokens: int) -> str:
    """What the model writes, and no more."""
    _check(model, fed, tokens, None)
    return words.written(model.processor.text, _written(model, fed, tokens))[0]


def produced(
    model: Model,
    fed: Fed,
    tokens: int,
    against: str | None,
    explain: Callable[[Fed, Sequence[Asked]], list[Explanation]],
) -> Produced:
    """`explain` gives the explanations of what is asked about inputs, with one forward pass for all of it."""
    _check(model, fed, tokens, against)
    stream = _stream(fed)
    begun = fed.inputs[stream].shape[1]
    ids = _written(model, fed, tokens)
    ended = writing.ends(model.module, ids[-1])
    other = None
    if against is not None and _letters(against) != _letters(NEXT):
        other = contrasting.other(model.processor.text, against, ids, ended, model.task in DECODERS)
        writing.room(model.module.config, begun, len(other.indices), other.phrase)
    text, told = words.written(model.processor.text, ids)
    whole, layout = _with(model.module, fed, stream, ids, told)
    places = range(begun - 1, begun - 1 + len(ids))
    look = Look(model, whole)
    liked = logits_of(look.output(), look.context)[0, places].topk(2).indices.tolist()
    if other is None:
        beside = [None if against is None else _other(*one) for one in zip(ids, liked, strict=True)]
    else:
        beside = [other.indices[i] if i == other.parted else None for i in range(len(ids))]
    asked = [
        _asked(model, index, place, best, theirs, None if other is None else look)
        for index, place, (best, _), theirs in zip(ids, places, liked, beside, strict=True)
    ]
    found = explain(whole, asked)
    known: Any = found[-1].shown[0].layouts[stream]
    layout = words.hiding(layout, known.special)
    cut = tuple(adding.until(each, stream, place + 1) for each, place in zip(found, places, strict=True))
    return Produced(
        text,
        stream,
        begun,
        tuple(ids),
        layout,
        cut,
        tuple(i for i, (best, _) in enumerate(liked) if best != ids[i]),
        () if against is None else tuple("" if one is None else _name(model, one) for one in beside),
        ended,
        "" if other is None else other.phrase,
        None if other is None else _contrast(model, fed, stream, other, cut, explain, text),
    )


def _written(model: Model, fed: Fed, tokens: int) -> list[int]:
    module, stream = model.module, _stream(fed)
    most = writing.room(module.config, fed.inputs[stream].shape[1], tokens)
    ids = writing.continued(module, fed.inputs, stream, most)
    mark = mark_of(module.config) if fed.images else None
    if mark in ids:
        raise ModelError(
            f"The model wrote {_name(model, ids[ids.index(mark)])!r}, in whose place a picture stands, as token "
            f"{ids.index(mark) + 1} of its answer. heedmap expected words; let it write fewer tokens."
        )
    return ids


def _stream(fed: Fed) -> str:
    return "decoder_input_ids" if "decoder_input_ids" in fed.inputs else "input_ids"


def _asked(model: Model, index: int, place: int, best: int, other: int | None, look: Look | None) -> Asked:
    """Why this token stands here, or why it and not another; given a look, how probable it is."""
    name = said = _name(model, index)
    target: Target = Logit(index, position=place, shown=name)
    if other is not None:
        theirs = _name(model, other)
        target, said = target - Logit(other, position=place, shown=theirs), f"{name} rather than {theirs}"
    elif look is not None:
        target = contrasting.probability(index, place, name, look.context)
    return Asked(target, (said,), (name,) if index == best else None)


def _contrast(
    model: Model,
    fed: Fed,
    stream: str,
    other: Other,
    ours: Sequence[Explanation],
    explain: Callable[[Fed, Sequence[Asked]], list[Explanation]],
    text: str,
) -> Explanation:
    """What was written, from where the two part, less the other's tokens behind that place."""
    begun = fed.inputs[stream].shape[1]
    whole, layout = _with(
        model.module, fed, stream, other.indices, words.written(model.processor.text, other.indices)[1]
    )
    context = Look(model, whole).context
    places = range(begun + other.parted, begun - 1 + len(other.indices))
    names = [_name(model, index) for index in other.indices[other.parted + 1 :]]
    asked = [
        Asked(contrasting.probability(index, place, name, context, sign=-1), (name,))
        for index, place, name in zip(other.indices[other.parted + 1 :], places, names, strict=True)
    ]
    found = explain(whole, asked) if asked else []
    theirs = [adding.until(each, stream, place + 1) for each, place in zip(found, places, strict=True)]
    told = text, other.phrase
    return contrasting.contrast(ours[other.parted :], theirs, stream, begun + other.parted, told, layout)


def _other(index: int, liked: Sequence[int]) -> int:
    best, second = liked
    return second if index == best else best


def _name(model: Model, index: int) -> str:
    return words.said(model.processor.text, index)


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text.lower()))


def _check(model: Model, fed: Fed, tokens: int, against: str | None) -> None:
    if model.task not in WRITERS:
        raise InputError(
            f"{model.source!r} does {model.task}: it chooses an answer and writes none. heedmap expected a model that "
            f"does {', '.join(WRITERS[:-1])} or {WRITERS[-1]}; call explain for this one."
        )
    if fed.count > 1:
        raise InputError(f"{fed.count} examples were given. heedmap explains what is written of one at a time.")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise InputError(f"tokens is {tokens!r}. heedmap expected how many may be written, at least 1.")
    if against is not None and (not isinstance(against, str) or not against.strip()):
        raise InputError(
            f"against={against!r}. heedmap expected another continuation in words, from its first word on, or "
            f"{NEXT!r}: the token that the model liked best but for each that it wrote."
        )


# ---- what was written, given to the model


def _words(fed: Fed, stream: str) -> Words:
    layout = fed.layouts[stream][0]
    assert isinstance(layout, Words)
    return layout


def _with(module: Any, fed: Fed, stream: str, ids: Sequence[int], told: Words) -> tuple[Fed, Words]:
    """The same inputs with what was written, but for its last token: nothing comes after that. And all of its words."""
    before = fed.inputs[stream]
    more = before.new_tensor([list(ids[:-1])])
    inputs = {**fed.inputs, stream: torch.cat([before, more], dim=1)}
    if stream == "input_ids":
        inputs |= writing.lengthened(module, fed.inputs, len(ids) - 1)
    given = _words(fed, stream)
    parts = given.parts or ((("given", before.shape[1]),) if stream == "input_ids" else ())
    layout = words.joined(given, told, (*parts, (WRITTEN, len(ids))) if parts else ())
    shown = words.begins(layout, inputs[stream].shape[1])
    return replace(fed, inputs=inputs, layouts={**fed.layouts, stream: (shown,)}), layout
