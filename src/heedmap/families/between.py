"""Models that read a picture between the words of a text: their processor says where, and in how many tokens."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import Tensor

from heedmap.errors import InputError
from heedmap.families import pictures, words
from heedmap.families.places import Places, places
from heedmap.installs import quiet, transformers
from heedmap.layouts import Words

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.families.conversations import Conversation

HERE = "[IMAGE]"  # what a token is called in whose place the picture stands

_known: WeakKeyDictionary[Any, dict[tuple[tuple[int, int], ...], Places]] = WeakKeyDictionary()


def mark_of(config: Any) -> int | None:
    """The token in whose place the picture stands; none where a model reads no picture there."""
    if not hasattr(config, "vision_config") or not hasattr(config, "text_config"):
        return None
    named = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
    return next((index for index in named if isinstance(index, int)), None)


def encoded(
    processor: Any, images: Sequence[Image], texts: Sequence[str | Conversation], config: Any
) -> tuple[dict[str, Tensor], tuple[Words, ...], Places]:
    """Tensors of a text with its pictures, the words of it, and where the patches lie."""
    if len(texts) != 1:
        raise InputError(
            f"{len(texts)} texts were given. heedmap expected one, with its pictures: these models are explained one "
            "text at a time."
        )
    mark = mark_of(config)
    text = _laid_out(processor, texts[0], images, mark)
    made = _made(processor, images, text)
    ids = made["input_ids"][0].tolist()
    layout = words.written(processor.tokenizer, ids)[1]
    layout = words.hiding(layout, {i: HERE for i, index in enumerate(ids) if index == mark})
    known = _known.setdefault(processor, {})
    sizes = tuple(picture.size for picture in images)
    if sizes not in known:
        known[sizes] = places(lambda trial: _made(processor, trial, text), sizes)
    return made, (layout,), known[sizes]


def _made(processor: Any, images: Sequence[Image], text: str) -> dict[str, Tensor]:
    """What the processor makes of a text with pictures."""
    pictures.check_sides(processor.image_processor, images)
    hf = transformers()
    try:
        with quiet(hf), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = processor(images=list(images), text=[text], return_tensors="pt")
    except (ValueError, RuntimeError, IndexError) as error:
        sizes = ", ".join(f"{picture.width} x {picture.height}" for picture in images[:4])
        raise InputError(
            f"The model's processor cannot take {'this picture' if len(images) == 1 else 'these pictures'} of {sizes} "
            f"with the text {words.brief(text)!r} ({str(error).partition(chr(10))[0]})."
        ) from error
    return {name: value for name, value in made.items() if isinstance(value, Tensor) and name != "labels"}


def _laid_out(processor: Any, given: str | Conversation, images: Sequence[Image], mark: int | None) -> str:
    """A text with the pictures before it, under the model's template where it has one.

    Without a template the processor is asked whether it puts the pictures there by itself.
    """
    template = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    here = str(getattr(processor, "image_token", None) or processor.tokenizer.convert_ids_to_tokens(mark))
    if isinstance(given, str) and here in given:
        return given
    if not template:
        if not isinstance(given, str):
            raise InputError("The model has no chat template. heedmap expected the text as a string.")
        with contextlib.suppress(InputError):
            if mark in _made(processor, images, given)["input_ids"]:
                return given
        return f"{here * len(images)}\n{given}"
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    first = next((i for i, message in enumerate(messages) if message["role"] == "user"), 0)
    told = [
        {"role": one["role"], "content": [*(len(images) * [{"type": "image"}] if i == first else []), _said(one)]}
        for i, one in enumerate(messages)
    ]
    begun = messages[-1]["role"] == "assistant"
    options = {"add_generation_prompt": not begun, "continue_final_message": begun, "tokenize": False}
    try:
        return processor.tokenizer.apply_chat_template(told, chat_template=template, **options)
    except Exception as error:  # a template raises what it likes, about roles that it does not know
        raise InputError(f"The model's chat template refuses this conversation: {error}") from error


def _said(message: Any) -> dict[str, str]:
    return {"type": "text", "text": message["content"]}
