"""Texts as tokens, and tokens as the words they are pieces of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from heedmap.errors import InputError, LabelError, ModelError
from heedmap.families import conversations
from heedmap.families.conversations import Conversation, Laid
from heedmap.layouts import Words

WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]+")
RAW = ("Ġ", "▁", "##")  # how tokenizers mark the beginning of a word, or its continuation
ENDLESS = 10**6  # what a tokenizer says that knows no limit
ENDLESS_POSITIONS = ("t5", "mt5", "umt5", "longt5")  # theirs are relative
PAD = "[PAD]"
UNREADABLE = "\N{REPLACEMENT CHARACTER}"  # what bytes read as that are no whole letter


def encode(
    tokenizer: Any, given: Sequence[str | Conversation], config: Any
) -> tuple[dict[str, Tensor], tuple[Words, ...]]:
    """Tensors of the texts, or of conversations, padded on the right, and the words of each."""
    if tokenizer is None:
        raise ModelError("The model came without a tokenizer. heedmap expected one beside its weights.")
    texts = [conversations.laid_out(tokenizer, one) for one in given]
    rows = [_encoded(tokenizer, laid.text, special=not laid.turns) for laid in texts]
    most = _most(tokenizer, config)
    for laid, row in zip(texts, rows, strict=True):
        if most is not None and len(row["input_ids"]) > most:
            raise InputError(
                f"The text {brief(laid.text)!r} has {len(row['input_ids'])} tokens; this model takes {most}. "
                "Shorten it."
            )
    full = most if str(config.model_type).startswith("siglip") else None  # trained on texts of full length
    longest = full or max(len(row["input_ids"]) for row in rows)
    names = [name for name in rows[0] if name in ("input_ids", "attention_mask", "token_type_ids")]
    fill = {"input_ids": _pad(tokenizer)}
    tensors = {name: torch.tensor([_filled(row[name], longest, fill.get(name, 0)) for row in rows]) for name in names}
    if full:
        tensors.pop("attention_mask", None)
    return tensors, tuple(_read(tokenizer, laid, row, longest) for laid, row in zip(texts, rows, strict=True))


def begun(tokenizer: Any, openings: Sequence[Sequence[int]], prefix: str | None) -> tuple[Tensor, tuple[Words, ...]]:
    """What a decoder has written so far: the tokens that each of its answers opens with, and the words of `prefix`."""
    row = _encoded(tokenizer, prefix or "", special=False, target=True)
    rows = []
    for opening in openings:
        mask = [1] * len(opening) + row["special_tokens_mask"]
        spans = [(0, 0)] * len(opening) + row["offset_mapping"]
        ids = [*opening, *row["input_ids"]]
        rows.append({"input_ids": ids, "special_tokens_mask": mask, "offset_mapping": spans})
    layouts = tuple(_words(tokenizer, prefix or "", one, len(one["input_ids"])) for one in rows)
    return torch.tensor([one["input_ids"] for one in rows]), layouts


def pieces(tokenizer: Any, text: str, target: bool = False) -> list[int]:
    """The tokens of a text without special ones around it; `target`: in what a decoder writes."""
    return _encoded(tokenizer, text, special=False, target=target)["input_ids"]


def written(tokenizer: Any, ids: Sequence[int]) -> tuple[str, Words]:
    """The text of tokens that a model wrote, and its words: of each token what it adds to the text."""
    special = {i: str(tokenizer.convert_ids_to_tokens(one)) for i, one in enumerate(ids) if _special(tokenizer, one)}
    told, text, spans = [], "", []
    for i, one in enumerate(ids):
        before = text
        if i not in special:
            told.append(one)
            text = tokenizer.decode(told, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        same = shared(before, text)  # a letter of several tokens is not yet there with the first
        spans.append(None if i in special else (same, len(text)))
    texts, groups = words_of(text, spans)
    groups = tuple(part for word in groups for part in _apart(word, special))
    return text, Words(tuple(special.get(i, one) for i, one in enumerate(texts)), groups, special)


def _apart(word: Sequence[int], special: Mapping[int, str]) -> list[tuple[int, ...]]:
    """What stands on two sides of a special token, such as a picture, is no one word."""
    parts = [[word[0]]]
    for before, token in pairwise(word):
        if any(between in special for between in range(before + 1, token)):
            parts.append([])
        parts[-1].append(token)
    return [tuple(part) for part in parts]


def joined(first: Words, second: Words, parts: Sequence[tuple[str, int]] = ()) -> Words:
    """The tokens of one text, then those of another."""
    n = len(first.texts)
    words = (*first.words, *(tuple(n + token for token in word) for word in second.words))
    special = {**first.special, **{n + token: name for token, name in second.special.items()}}
    return Words((*first.texts, *second.texts), words, special, tuple(parts))


def between(layout: Words, first: int, last: int) -> Words:
    """The tokens of a text from one on to before another, counted anew; a word that reaches over is cut."""
    words = (tuple(token - first for token in word if first <= token < last) for word in layout.words)
    special = {token - first: name for token, name in layout.special.items() if first <= token < last}
    parts, start = [], 0
    for name, tokens in layout.parts:
        parts.append((name, max(0, min(start + tokens, last) - max(start, first))))
        start += tokens
    kept = tuple(part for part in parts if part[1])
    return Words(layout.texts[first:last], tuple(filter(None, words)), special, kept)


def hiding(layout: Words, names: Mapping[int, str]) -> Words:
    """The same text with more of its tokens special."""
    groups = (tuple(token for token in word if token not in names) for word in layout.words)
    texts = tuple(names.get(i, text) for i, text in enumerate(layout.texts))
    return Words(texts, tuple(filter(None, groups)), {**layout.special, **names}, layout.parts)


def begins(layout: Words, tokens: int) -> Words:
    """The first tokens of a text; a word that goes on after them is cut."""
    return between(layout, 0, tokens)


def token(tokenizer: Any, word: str, target: bool = False) -> int:
    """The one token that a word is, as it stands within a sentence or by itself; `target`: in what a decoder writes."""
    known = tokenizer.get_vocab()
    if word in known and (word.startswith(RAW) or word in tokenizer.all_special_tokens):
        return known[word]
    given = "text_target" if target else "text"
    pieces = [tokenizer(**{given: text}, add_special_tokens=False)["input_ids"] for text in (f" {word}", word)]
    unknown = getattr(tokenizer, "unk_token_id", None)
    for ids in pieces:
        if len(ids) == 1 and ids[0] != unknown:
            return ids[0]
    if word in known:
        return known[word]
    parts = ", ".join(repr(said(tokenizer, one)) for one in pieces[1])
    if unknown in pieces[1]:
        raise LabelError(f"{word!r} is not in this model's vocabulary of {len(known)} tokens. Choose another word.")
    raise LabelError(
        f"{word!r} is {len(pieces[1])} tokens of this model: {parts}. heedmap explains one at a time: give one of them."
    )


def said(tokenizer: Any, index: int) -> str:
    """A token as it reads; where that cannot be seen (a new line, part of a letter) as the tokenizer calls it."""
    text = tokenizer.decode([index]).strip()
    if text and text.isprintable() and UNREADABLE not in text:
        return text
    return str(tokenizer.convert_ids_to_tokens(index) or index)


def words_of(text: str, spans: Sequence[tuple[int, int] | None]) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Of each token the stretch of text that it adds, and the tokens of each whole word in reading order.

    `spans` has what each token covers, None where it covers nothing. Joined, the stretches of a word's tokens are the
    word. Tokens that reach into two words make one of them.
    """
    bounds = [match.span() for match in WORD.finditer(text)]
    texts, reached, homes = [], 0, []
    for span in spans:
        start, end = span or (0, 0)
        new = text[max(start, reached) : end] if span else ""
        reached = max(reached, end) if span else reached
        texts.append(new.strip())
        homes.append([i for i, (low, high) in enumerate(bounds) if span and start < high and low < end])
    return tuple(texts), _grouped(homes, [span is not None for span in spans], len(bounds))


def _grouped(homes: Sequence[Sequence[int]], covering: Sequence[bool], count: int) -> tuple[tuple[int, ...], ...]:
    """The tokens of each word; a token of white space belongs to the word after it, at the end to the one before."""
    same = list(range(count))
    for several in homes:
        for one in several:
            same[one] = min(same[home] for home in several)
    for i in range(count):
        same[i] = same[same[i]]
    groups: dict[int, list[int]] = {}
    waiting: list[int] = []
    for index, several in enumerate(homes):
        if several:
            home = same[several[0]]
            groups.setdefault(home, []).extend([*waiting, index])
            waiting = []
        elif covering[index]:
            waiting.append(index)
    if waiting and groups:
        groups[list(groups)[-1]].extend(waiting)
    return tuple(tuple(tokens) for tokens in groups.values())


def _encoded(tokenizer: Any, text: str, special: bool = True, target: bool = False) -> dict[str, list]:
    """One text; a tokenizer that does not tell what its tokens cover is asked for the tokens themselves.

    `target`: in the language that the model writes, which may have pieces of its own (Marian).
    """
    fast = getattr(tokenizer, "is_fast", False)
    row = dict(
        tokenizer(
            **{"text_target" if target else "text": text},
            add_special_tokens=special,
            return_special_tokens_mask=True,
            return_offsets_mapping=fast,
            return_attention_mask=True,
            verbose=False,
        )
    )
    if not fast:
        row["offset_mapping"] = _found(tokenizer.convert_ids_to_tokens(row["input_ids"]), text)
    return row


def _found(tokens: Sequence[str], text: str) -> list[tuple[int, int]]:
    """Where each token stands in the text, looked for from left to right."""
    spans, at, lower = [], 0, text.lower()
    for one in tokens:
        plain = re.sub(r"^(##|[▁Ġ ]+)|</w>$|@@$", "", one).lower()
        place = lower.find(plain, at) if plain else -1
        spans.append((place, place + len(plain)) if place >= 0 else (0, 0))
        at = spans[-1][1] or at
    return spans


def _read(tokenizer: Any, laid: Laid, row: Mapping[str, list], longest: int) -> Words:
    """The words of a text; of a conversation those that were said, and by whom: the template's own are special."""
    if not laid.turns:
        return _words(tokenizer, laid.text, row, longest)
    ids, spans = row["input_ids"], row["offset_mapping"]
    mask = [
        hides or _special(tokenizer, one) for hides, one in zip(conversations.hidden(laid, spans), ids, strict=True)
    ]
    found = _words(tokenizer, laid.text, {**row, "special_tokens_mask": mask}, longest)
    names = {i: said(tokenizer, ids[i]) if i < len(ids) else PAD for i in found.special}
    texts = tuple(names.get(i, text) for i, text in enumerate(found.texts))
    return Words(texts, found.words, names, conversations.parts(laid, spans, longest))


def _words(tokenizer: Any, text: str, row: Mapping[str, list], longest: int) -> Words:
    ids = row["input_ids"]
    hidden = [bool(one) for one in row["special_tokens_mask"]]
    spans = [None if skip else tuple(span) for span, skip in zip(row["offset_mapping"], hidden, strict=True)]
    texts, groups = words_of(text, spans)
    names = tokenizer.convert_ids_to_tokens(ids)
    special = {i: str(names[i]) for i, skip in enumerate(hidden) if skip}
    special |= dict.fromkeys(range(len(ids), longest), PAD)
    return Words(
        (*(special.get(i, one) for i, one in enumerate(texts)), *[PAD] * (longest - len(ids))), groups, special
    )


def _filled(row: Sequence[int], longest: int, fill: int) -> list[int]:
    return [*row, *[fill] * (longest - len(row))]


def _pad(tokenizer: Any) -> int:
    choices = (getattr(tokenizer, name, None) for name in ("pad_token_id", "eos_token_id"))
    return next((one for one in choices if one is not None), 0)


def _most(tokenizer: Any, config: Any) -> int | None:
    """How many tokens a text may have."""
    inner = getattr(config, "text_config", config)
    rows = getattr(inner, "max_position_embeddings", None) or getattr(inner, "n_positions", None)
    if rows is not None and inner.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer"):
        rows -= (inner.pad_token_id or 0) + 1  # their positions begin after the padding's
    told = getattr(tokenizer, "model_max_length", None)
    limits = [one for one in (rows, told) if one is not None and one < ENDLESS]
    if inner.model_type in ENDLESS_POSITIONS:
        return None
    return min(limits, default=None)


def shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many letters, or tokens, two texts have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _special(tokenizer: Any, index: int) -> bool:
    added = getattr(tokenizer, "added_tokens_decoder", {}).get(index)
    return index in tokenizer.all_special_ids or bool(added is not None and added.special)


def brief(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
