"""What a model writes, and why: an answer word by word, each explained from what was given and from the words before.

The model writes by itself, once, always taking the likeliest token that its generation config admits. Then it is given
what it wrote, and one forward pass explains every token of it: the logit of a token where the token before it stands.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from heedmap.errors import InputError, ModelError
from heedmap.families import words
from heedmap.families.asking import Asked
from heedmap.families.feeding import Fed
from heedmap.families.looking import Look
from heedmap.families.tasks import WRITERS
from heedmap.installs import quiet, transformers
from heedmap.layouts import Words
from heedmap.records import Explanation
from heedmap.targets import Target
from heedmap.targets.expressions import Logit
from heedmap.targets.fields import logits_of

if TYPE_CHECKING:
    from heedmap.families.model import Model

NEXT = "next best"  # what a token may be held against: the one that the model liked best but for it
# Greedy, and no end forced where the tokens asked for run out.
GREEDY = {"do_sample": False, "num_beams": 1, "forced_eos_token_id": None, "return_dict_in_generate": False}


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
        answer = f"{text} rather than {self.held_against(tokens)}" if self.against else text
        return Word(text, tokens, special, _added([self.explanations[token] for token in tokens], text, answer))

    def held_against(self, tokens: Sequence[int]) -> str:
        """What the tokens of a word were held against, in a row."""
        return " ".join(self.against[token] for token in tokens)

    def __repr__(self) -> str:
        return f"Produced({self.text!r}, {len(self.indices)} tokens{'' if self.ended else ', not ended'})"


def produced(
    model: Model,
    fed: Fed,
    tokens: int,
    against: str | None,
    explain: Callable[[Fed, Sequence[Asked]], list[Explanation]],
) -> Produced:
    """`explain` gives the explanations of what is asked about inputs, with one forward pass for all of it."""
    _check(model, fed, tokens, against)
    stream = "decoder_input_ids" if "decoder_input_ids" in fed.inputs else "input_ids"
    begun = fed.inputs[stream].shape[1]
    ids = _written(model.module, fed.inputs, stream, _room(model.module.config, begun, tokens))
    text, told = words.written(model.processor.text, ids)
    layout = words.joined(_words(fed, stream), told)
    whole = _with(fed, stream, ids, layout)
    places = range(begun - 1, begun - 1 + len(ids))
    look = Look(model, whole)
    liked = logits_of(look.output(), look.context)[0, places].topk(2).indices.tolist()
    asked = [_asked(model, *one, against) for one in zip(ids, places, liked, strict=True)]
    found = explain(whole, asked)
    cut = tuple(_until(each, stream, place + 1) for each, place in zip(found, places, strict=True))
    return Produced(
        text,
        stream,
        begun,
        tuple(ids),
        layout,
        cut,
        tuple(i for i, (best, _) in enumerate(liked) if best != ids[i]),
        () if against is None else tuple(_name(model, _other(*one)) for one in zip(ids, liked, strict=True)),
        _ends(model.module, ids[-1]),
    )


def _asked(model: Model, index: int, place: int, liked: Sequence[int], against: str | None) -> Asked:
    """Why this token stands here, or why it and not the next best."""
    name = _name(model, index)
    target: Target = Logit(index, position=place, shown=name)
    words = name
    if against is not None:
        other = _name(model, _other(index, liked))
        target, words = target - Logit(_other(index, liked), position=place, shown=other), f"{name} rather than {other}"
    return Asked(target, (words,), (name,) if index == liked[0] else None)


def _other(index: int, liked: Sequence[int]) -> int:
    best, second = liked
    return second if index == best else best


def _name(model: Model, index: int) -> str:
    return words.said(model.processor.text, index)


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
    if against not in (None, NEXT):
        raise InputError(
            f"against={against!r}. What is written is held against the {NEXT!r} token of each place, or against "
            "nothing; for a word of your own explain one place with explain(prefix=..., target=..., against=...)."
        )


# ---- writing


def _written(module: Any, inputs: Mapping[str, Tensor], stream: str, tokens: int) -> list[int]:
    """The tokens that the model writes after those that are there."""
    hf = transformers()
    # Whisper's own cuts sounds into pieces and its output to size; here is one piece, and every token counts.
    generate: Any = hf.GenerationMixin.generate if isinstance(module, hf.GenerationMixin) else type(module).generate
    with quiet(hf), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        made = generate(module, **inputs, **GREEDY, max_new_tokens=tokens)[0].tolist()
    begun = inputs[stream][0].tolist()
    if made[: len(begun)] != begun or len(made) == len(begun):
        raise ModelError(
            f"The model was to write on after the tokens {begun}, and gave {made}. heedmap expected them and what "
            "comes after: look at its generation config."
        )
    return made[len(begun) :]


def _room(config: Any, begun: int, tokens: int) -> int:
    """No more tokens than the model has places for."""
    inner = getattr(config, "text_config", config)
    names = ("max_target_positions", "max_position_embeddings", "n_positions")
    relative = inner.model_type in words.ENDLESS_POSITIONS
    places = None if relative else next((getattr(inner, name) for name in names if getattr(inner, name, None)), None)
    if places is not None and begun >= places:
        raise InputError(f"{begun} tokens are there already, and this model takes {places}. Shorten what was given.")
    return tokens if places is None else min(tokens, places - begun)


def _ends(module: Any, last: int) -> bool:
    end = getattr(module.generation_config, "eos_token_id", None)
    return last in (end if isinstance(end, list | tuple) else [end])


# ---- what was written, given to the model


def _words(fed: Fed, stream: str) -> Words:
    layout = fed.layouts[stream][0]
    assert isinstance(layout, Words)
    return layout


def _with(fed: Fed, stream: str, ids: Sequence[int], layout: Words) -> Fed:
    """The same inputs with what was written, but for its last token: nothing comes after that."""
    before = fed.inputs[stream]
    more = before.new_tensor([ids[:-1]])
    inputs = {**fed.inputs, stream: torch.cat([before, more], dim=1)}
    if stream == "input_ids" and "attention_mask" in inputs:
        mask = inputs["attention_mask"]
        inputs["attention_mask"] = torch.cat([mask, mask.new_ones(more.shape)], dim=1)
    shown = words.begins(layout, inputs[stream].shape[1])
    return replace(fed, inputs=inputs, layouts={**fed.layouts, stream: (shown,)})


# ---- explanations


def _until(explanation: Explanation, stream: str, tokens: int) -> Explanation:
    """The explanation without the tokens that were not yet written."""
    later = explanation.relevance[stream][:, tokens:] if stream in explanation.relevance else None
    if later is None:
        return explanation
    if bool(later.any()):
        raise ModelError(
            "A token is explained by tokens that come after it: this model looks ahead. heedmap expected one that "
            "writes from left to right; explain it with heedmap.explain(module, inputs, ...)."
        )
    relevance = {**explanation.relevance, stream: explanation.relevance[stream][:, :tokens]}
    starts = {**explanation.starts, stream: explanation.starts[stream][:, :tokens]}
    return replace(explanation, relevance=relevance, starts=starts, shown=_shown(explanation, stream, tokens))


def _shown(explanation: Explanation, stream: str, tokens: int) -> tuple[Any, ...]:
    (shown,) = explanation.shown
    layout = shown.layouts[stream]
    assert isinstance(layout, Words)
    return (replace(shown, layouts={**shown.layouts, stream: words.begins(layout, tokens)}),)


def _added(parts: Sequence[Explanation], word: str, answer: str) -> Explanation:
    """The explanation of a word: those of its tokens added up, as what flowed is."""
    last = parts[-1]
    sums = {
        name: {stream: _sum([getattr(part, name)[stream] for part in parts]) for stream in last.relevance}
        for name in ("relevance", "starts")
    }
    return replace(
        last,
        target=" + ".join(part.target for part in parts),
        value=torch.stack([part.value for part in parts]).sum(0),
        readout=tuple(dict.fromkeys(row for part in parts for row in part.readout)),
        predicted=None if any(part.predicted is None for part in parts) else (word,),
        shown=tuple(replace(shown, answer=answer) for shown in last.shown),
        **sums,
    )


def _sum(rows: Sequence[Tensor]) -> Tensor:
    """Rows of which the later reach further."""
    total = torch.zeros_like(rows[-1])
    for row in rows:
        total[:, : row.shape[1]] += row
    return total
