"""What a model's answers are called, and which is meant by a name: a class, a caption, a token of its vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heedmap.errors import InputError
from heedmap.families import captions, words
from heedmap.families.feeding import Fed
from heedmap.families.tasks import DECODERS, MATCHES, VOCABULARY
from heedmap.targets.fields import class_of

if TYPE_CHECKING:
    from heedmap.families.model import Model


def named(model: Model, fed: Fed) -> Any:
    """A label or an index: the index, and its name."""
    name = names(model, fed)

    def named(label: Any) -> tuple[int, str]:
        if model.task == MATCHES:
            index = captions.caption(label, fed.texts)
        elif model.task in VOCABULARY:
            index = _token(model, label)
        else:
            index = model.index(label)
        return index, name(index)

    return named


def _token(model: Model, label: Any) -> int:
    inner = getattr(model.config, "text_config", model.config)
    size = getattr(inner, "vocab_size", None) or len(model.processor.text)
    if isinstance(label, int):
        return class_of(label, size, {})[0]
    return words.token(model.processor.text, label, target=model.task in DECODERS)


def classes(model: Model) -> int:
    answers = getattr(model.config, "num_qa_labels", None) if model.config.model_type == "lxmert" else None
    return answers or len(model.config.id2label)


def names(model: Model, fed: Fed) -> Any:
    """What an index is called."""
    if model.task == MATCHES:
        return lambda index: fed.texts[index]
    if model.task in VOCABULARY:
        return lambda index: words.said(model.processor.text, index)
    return lambda index: model.labels[index] if index < len(model.labels) else str(index)


def positions(model: Model, fed: Fed, need: bool = True) -> tuple[int, ...] | None:
    """Where each text has its mask."""
    if model.task != "fill-mask":
        return None
    mask = model.processor.text.mask_token_id
    found = [(row == mask).nonzero().flatten().tolist() for row in fed.inputs["input_ids"]]
    if all(len(places) == 1 for places in found):
        return tuple(places[0] for places in found)
    if not need:
        return None
    wrong = next(places for places in found if len(places) != 1)
    met = f"has {len(wrong)} masks, at tokens {wrong}" if wrong else "has no mask"
    raise InputError(
        f"The text {met}. heedmap expected one {model.processor.text.mask_token} where the word is asked for"
        + (": choose with target=logit('word', position=...)." if wrong else ".")
    )
