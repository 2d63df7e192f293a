"""Models that read a picture between the words of a text: their processor says where, and in how many tokens."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import Tensor

from heedmap.errors import InputError
from heedmap.families import pictures, prompts, words
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
) -> tuple[dict[str, Tensor], dict[str, tuple[Words, ...]], Places]:
    """Tensors of a text with its pictures, the words of each input, and where the patches lie."""
    if len(texts) != 1:
        raise InputError(
            f"{len(texts)} texts were given. heedmap expected one, with its pictures: these models are explained one "
            "text at a time."
        )
    mark = mark_of(config)
    here = str(getattr(processor, "image_token", None) or processor.tokenizer.convert_ids_to_tokens(mark))

    def tokens(text: str) -> list[int]:
        return _made(processor, images, text)["input_ids"][0].tolist()

    def alone(text: str) -> bool:
        with contextlib.suppress(InputError):
            return mark in tokens(text)
        return False

    prompt = prompts.laid_out(processor, texts[0], here, len(images), alone)
    made = _made(processor, images, prompt.text)
    ids = made["input_ids"][0].tolist()
    layout = words.written(processor.tokenizer, ids)[1]
    layout = words.hiding(layout, {i: HERE for i, index in enumerate(ids) if index == mark})
    layout = prompts.labelled(layout, prompt, ids, tokens, processor.tokenizer)
    return made, {"input_ids": (layout,), **_besides(processor, made)}, _placed(processor, images, prompt.text)


def _besides(processor: Any, made: Mapping[str, Tensor]) -> dict[str, tuple[Words, ...]]:
    """What another tokenizer made of the same text, for another part of the model."""
    found = {}
    for name, tensor in made.items():
        tokenizer = getattr(processor, name.removesuffix("input_ids") + "tokenizer", None)
        if name != "input_ids" and name.endswith("input_ids") and tokenizer is not None:
            found[name] = (words.written(tokenizer, tensor[0].tolist())[1],)
    return found


def _placed(processor: Any, images: Sequence[Image], text: str) -> Places:
    known = _known.setdefault(processor, {})
    sizes = tuple(picture.size for picture in images)
    if sizes not in known:
        known[sizes] = places(lambda trial: _made(processor, trial, text), sizes)
    return known[sizes]


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
