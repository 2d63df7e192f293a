"""Models that read a picture between the words of a text: their processor says where, and in how many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from heedmap.errors import InputError
from heedmap.families import words
from heedmap.layouts import Words

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.families.conversations import Conversation

HERE = "[IMAGE]"  # what a token is called in whose place the picture stands


def mark_of(config: Any) -> int | None:
    """The token in whose place the picture stands; none where a model reads no picture there."""
    if not hasattr(config, "vision_config") or not hasattr(config, "text_config"):
        return None
    named = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
    return next((index for index in named if isinstance(index, int)), None)


def encoded(
    processor: Any, images: Sequence[Image], texts: Sequence[str | Conversation], config: Any
) -> tuple[dict[str, Tensor], tuple[Words, ...]]:
    """Tensors of one picture with its text, and the words of it."""
    if len(images) != 1 or len(texts) != 1:
        raise InputError(
            f"{len(images)} pictures and {len(texts)} texts were given. heedmap expected one of each: these models are "
            "explained one picture at a time."
        )
    mark = mark_of(config)
    text = _laid_out(processor, texts[0], processor.tokenizer.convert_ids_to_tokens(mark))
    try:
        made = processor(images=[images[0]], text=[text], return_tensors="pt")
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"The model's processor cannot take this picture of {images[0].width} x {images[0].height} with the text "
            f"{words.brief(text)!r} ({str(error).partition(chr(10))[0]})."
        ) from error
    ids = made["input_ids"][0].tolist()
    layout = words.written(processor.tokenizer, ids)[1]
    layout = words.hiding(layout, {i: HERE for i, index in enumerate(ids) if index == mark})
    return {name: value for name, value in made.items() if isinstance(value, Tensor)}, (layout,)


def _laid_out(processor: Any, given: str | Conversation, mark: str) -> str:
    """A text with the picture before it, under the model's template where it has one."""
    template = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    if isinstance(given, str) and (mark in given or not template):
        return given if mark in given else f"{mark}\n{given}"
    if not template:
        raise InputError("The model has no chat template. heedmap expected the text as a string.")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    first = next((i for i, message in enumerate(messages) if message["role"] == "user"), 0)
    told = [
        {"role": one["role"], "content": [*([{"type": "image"}] if i == first else []), _said(one["content"])]}
        for i, one in enumerate(messages)
    ]
    return processor.apply_chat_template(told, add_generation_prompt=True)


def _said(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}
