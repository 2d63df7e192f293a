"""A text and its pictures as a model's template lays them out, and which of the tokens were said by whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from heedmap.errors import InputError
from heedmap.families import conversations, words
from heedmap.families.conversations import MARK, Conversation, Laid
from heedmap.layouts import Words

PICTURE = "\ue002"  # stands in a message where a picture does
EXPECTED = (
    'heedmap expected parts such as {"type": "image", "image": "savanna.png"} and {"type": "text", "text": "..."}'
)


@dataclass(frozen=True)
class Prompt:
    """A text as the processor gets it; of a text under a template the messages, and how others would be laid out."""

    text: str
    messages: Conversation = ()
    lay: Callable[[Conversation], str] | None = None
    several: bool = False  # several may have spoken: whose a word is is told


def unpacked(image: Any, text: Any) -> tuple[Any, Any]:
    """The pictures that stand in messages, in their order, and the messages with a mark for each of them."""
    if not conversations.is_conversation(text):
        return image, text
    found: list[Any] = []
    messages = [_unpacked(message, found) for message in text]
    if found and image is not None:
        raise InputError("Pictures were given in the messages, and others by themselves. Give all of them in one way.")
    return found or image, messages


def _unpacked(message: Any, found: list[Any]) -> Any:
    parts = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(parts, list | tuple):
        return message
    told = ""
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            told += part["text"]
        elif kind == "image":
            told += PICTURE
            found += [part[key] for key in ("image", "path", "url") if key in part][:1]
        else:
            raise InputError(f"A message has the part {part!r}. {EXPECTED}.")
    return {**message, "content": told}


def told(messages: Conversation, here: str) -> str:
    """What was said, for a person to read."""
    lines = conversations.told(messages).replace(PICTURE, f" {here} ").splitlines()
    return "\n".join(" ".join(line.split()) for line in lines)


def laid_out(
    processor: Any, given: str | Conversation, here: str, pictures: int, alone: Callable[[str], bool]
) -> Prompt:
    """A text with the pictures before it, or where `here` stands in it, under the model's template where it has one.

    Without a template `alone` says whether the processor puts the pictures before a text by itself.
    """
    template = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    if isinstance(given, str) and (here in given or not template):
        before = "" if here in given or alone(given) else f"{here * pictures}\n"
        return Prompt(before + given)
    if not template:
        raise InputError("The model has no chat template. heedmap expected the text as a string.")
    several = not isinstance(given, str)
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    messages = [{**one, "content": one["content"].replace(here, PICTURE)} for one in messages]
    places = sum(one["content"].count(PICTURE) for one in messages)
    if not places:
        first = next((i for i, message in enumerate(messages) if message["role"] == "user"), 0)
        messages[first] = {**messages[first], "content": PICTURE * pictures + messages[first]["content"]}
    elif places != pictures:
        had = f"{places} place{'s' * (places > 1)} for one"
        raise InputError(f"{pictures} pictures were given, and the messages have {had}. Give one for each place.")

    def lay(those: Conversation) -> str:
        return _rendered(processor.tokenizer, template, those)

    return Prompt(lay(messages), messages, lay, several)


def _rendered(tokenizer: Any, template: Any, messages: Conversation) -> str:
    begun = messages[-1]["role"] == "assistant"
    options = {"add_generation_prompt": not begun, "continue_final_message": begun, "tokenize": False}
    given = [{"role": one["role"], "content": _parts(one["content"])} for one in messages]
    try:
        return tokenizer.apply_chat_template(given, chat_template=template, **options)
    except Exception as error:  # a template raises what it likes, about roles that it does not know
        raise InputError(f"The model's chat template refuses this conversation: {error}") from error


def _parts(content: str) -> list[dict[str, str]]:
    texts = content.split(PICTURE)
    parts: list[dict[str, str]] = []
    for i, text in enumerate(texts):
        parts += [{"type": "image"}] if i else []
        parts += [{"type": "text", "text": text}] if text else []
    return parts


def labelled(
    layout: Words, prompt: Prompt, ids: Sequence[int], encode: Callable[[str], list[int]], tokenizer: Any
) -> Words:
    """The template's and the processor's own tokens among the special ones, and whose the others are.

    `encode` gives the tokens of another text with the same pictures.
    """
    layout = words.hiding(layout, _added(layout, prompt, ids, tokenizer))
    if prompt.lay is None:
        return layout
    spans = [_span(prompt, i, ids, encode) for i in range(len(prompt.messages))]
    if any(first >= last for first, last in spans) or any(a[1] > b[0] for a, b in pairwise(spans)):
        return layout  # a template that says it otherwise: whose a word is cannot be told
    names = conversations.numbered([message["role"] for message in prompt.messages])
    turns = tuple((name, first, last) for name, (first, last) in zip(names, spans, strict=True))
    laid, each = Laid("", turns), [(i, i + 1) for i in range(len(ids))]
    own = {i: words.said(tokenizer, ids[i]) for i, hides in enumerate(conversations.hidden(laid, each)) if hides}
    layout = words.hiding(layout, {i: name for i, name in own.items() if i not in layout.special})
    return replace(layout, parts=conversations.parts(laid, each, len(ids)) if prompt.several else ())


def _added(layout: Words, prompt: Prompt, ids: Sequence[int], tokenizer: Any) -> dict[int, str]:
    """Tokens that were added to the vocabulary and that nobody wrote: they say where a picture's tiles are."""
    said = " ".join(one["content"] for one in prompt.messages) if prompt.messages else prompt.text
    added = {index: str(one) for index, one in getattr(tokenizer, "added_tokens_decoder", {}).items()}
    names = {i: added[index] for i, index in enumerate(ids) if index in added and i not in layout.special}
    return {i: name for i, name in names.items() if name not in said}


def _span(prompt: Prompt, number: int, ids: Sequence[int], encode: Callable[[str], list[int]]) -> tuple[int, int]:
    """From which token to which a message reaches: those that would be others, had something else been said."""
    assert prompt.lay is not None
    message = prompt.messages[number]
    other = PICTURE * message["content"].count(PICTURE) + MARK.format(number)
    messages = [{**one, "content": other} if i == number else one for i, one in enumerate(prompt.messages)]
    theirs = encode(prompt.lay(messages))
    first = words.shared(ids, theirs)
    return first, len(ids) - words.shared(ids[first:][::-1], theirs[first:][::-1])
