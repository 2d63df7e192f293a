"""Conversations: messages under a model's chat template, and which of its tokens are whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

from heedmap.errors import InputError

Conversation: TypeAlias = Sequence[Mapping[str, str]]  # messages, each with a role and its content
MARK = "\ue000{}\ue001"  # stands for the content of a message where a template is asked what it puts around it
EXPECTED = 'heedmap expected messages such as {"role": "user", "content": "is there a zebra?"}'


@dataclass(frozen=True)
class Laid:
    """A text as the model gets it. `turns` are who speaks, from which letter of it to which; none where nobody does."""

    text: str
    turns: tuple[tuple[str, int, int], ...] = ()


def is_conversation(given: Any) -> TypeGuard[Conversation]:
    return isinstance(given, list | tuple) and bool(given) and isinstance(given[0], Mapping)


def told(messages: Conversation) -> str:
    """What was said, for a person to read."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def checked(messages: Conversation) -> Conversation:
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise InputError(f"Message {number} is {message!r}. {EXPECTED}.")
        if not isinstance(message["content"], str) or not isinstance(message["role"], str):
            raise InputError(
                f"Message {number} has the role {message['role']!r} and the content {message['content']!r}. "
                f"{EXPECTED}; pictures are given by themselves, with image=."
            )
    if not str(messages[-1]["content"]).strip():
        raise InputError("The last message is empty. heedmap expected at least one word.")
    return messages


def laid_out(tokenizer: Any, given: str | Conversation) -> Laid:
    """A text as it is; messages under the template. What the assistant has begun it goes on with."""
    if isinstance(given, str):
        return Laid(given)
    text = _rendered(tokenizer, given)
    contents = [message["content"] for message in given]
    marks = [MARK.format(number) for number in range(len(given))]
    around = _around(_rendered(tokenizer, _saying(given, marks)), marks)
    spans: list[tuple[int, int]] | None = _spans(text, around, contents) if around else None
    if not spans:  # a template that rewrites what is said: whose it is cannot be told
        return Laid(text, (("given", 0, len(text)),))
    names = numbered([message["role"] for message in given])
    turns = [(name, first, last) for name, (first, last) in zip(names, spans, strict=True)]
    return Laid(text, tuple(turns))


def hidden(laid: Laid, spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Of each token, by the letters that it covers, whether it is the template's alone."""
    return [not any(start < last and first < end for _, first, last in laid.turns) for start, end in spans]


def parts(laid: Laid, spans: Sequence[tuple[int, int]], tokens: int) -> tuple[tuple[str, int], ...]:
    """Who speaks, and for how many tokens: what a template puts before a message is that message's."""
    found, before = [], 0
    for i, (name, _, last) in enumerate(laid.turns):
        reached = max((j + 1 for j, (start, _) in enumerate(spans) if start < last), default=before)
        reached = tokens if i == len(laid.turns) - 1 else max(reached, before)
        found.append((name, reached - before))
        before = reached
    return tuple(found)


def _rendered(tokenizer: Any, messages: Conversation) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "The model's tokenizer has no chat template: it was not made for conversations. heedmap expected one; "
            "give the text as a string."
        )
    begun = messages[-1]["role"] == "assistant"
    try:
        return tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=not begun,
            continue_final_message=begun,
        )
    except Exception as error:  # a template raises what it likes, about roles that it does not know
        raise InputError(f"The model's chat template refuses this conversation: {error}") from error


def _saying(messages: Conversation, contents: Sequence[str]) -> Conversation:
    return [{**message, "content": content} for message, content in zip(messages, contents, strict=True)]


def _around(text: str, marks: Sequence[str]) -> list[str] | None:
    """What a template puts before, between and behind what is said."""
    pieces = []
    for mark in marks:
        if text.count(mark) != 1:
            return None
        before, text = text.split(mark)
        pieces.append(before)
    return [*pieces, text]


def _spans(text: str, around: Sequence[str], contents: Sequence[str]) -> list[tuple[int, int]] | None:
    """Where each content stands, as it was given or without the white space around it."""
    at, spans = 0, []
    for i, (before, content) in enumerate(zip(around, contents, strict=False)):
        behind = around[i + 1]
        kept = (one for one in (content, content.strip()) if text.startswith(before + one + behind, at))
        one = next(kept, None)
        if one is None:
            return None
        spans.append((at + len(before), at + len(before) + len(one)))
        at = spans[-1][1]
    return spans if at + len(around[-1]) == len(text) else None


def numbered(roles: Sequence[str]) -> list[str]:
    """Each role by its name, from the second time on with a number."""
    return [role if (n := roles[: i + 1].count(role)) == 1 else f"{role} {n}" for i, role in enumerate(roles)]
