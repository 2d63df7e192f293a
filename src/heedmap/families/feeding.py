"""From what a person gives (pictures, texts, regions, sounds) to a model's tensors, and what is kept to show them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from heedmap.errors import InputError
from heedmap.families import between, conversations, pictures, placing, prompts, regions, sounds, words
from heedmap.families.openings import openings
from heedmap.families.processors import Processors
from heedmap.families.tasks import DECODERS, TASKS, WRITERS

if TYPE_CHECKING:
    from PIL.Image import Image

    from heedmap.families.places import Places
    from heedmap.families.placing import Placement
    from heedmap.layouts import Regions, Words

ASKED = ("visual-question-answering", "image-text-to-text", "image-text-generation")
BOXED = {"lxmert": "visual_feats", "visual_bert": "visual_embeds"}  # what each calls the features of regions


@dataclass(frozen=True)
class Fed:
    """A model's inputs, and for each example what it was made of."""

    inputs: Mapping[str, Tensor]
    count: int
    images: tuple[Image, ...] = ()
    texts: tuple[str, ...] = ()
    placements: tuple[Placement | None, ...] = ()
    layouts: Mapping[str, tuple[Words | Regions, ...]] = field(default_factory=dict)  # by input
    seconds: tuple[float, ...] = ()  # of each sound
    heard: float = 0.0  # seconds that the model reads of each, silence at the end included
    places: Places = ()  # where the patches of pictures between words lie


def feed(
    module: nn.Module,
    processors: Processors,
    task: str,
    source: str,
    image: Any = None,
    text: Any = None,
    sound: Any = None,
    found: Any = None,
    prefix: str | None = None,
) -> Fed:
    """Whatever the task takes, read, checked and made into tensors on the model's device."""
    if processors.both is not None:
        image, text = prompts.unpacked(image, text)
    _check_given(task, source, image, text, sound)
    config: Any = module.config
    if found is not None and config.model_type not in BOXED:
        raise InputError(f"{source!r} does not read regions. Leave regions= out, or name a model that does (LXMERT).")
    images = tuple(pictures.read(one) for one in _listed(image, "image")) if image is not None else ()
    texts = tuple(_listed(text, "text")) if text is not None else ()
    if task not in WRITERS and any(not isinstance(one, str) for one in texts):
        raise InputError(f"{source!r} does {task}: it takes no messages. Give the text as a string.")
    if prefix is not None and task not in DECODERS:
        raise InputError("prefix is what an answer begins with: only models that write one from another text take it.")
    waves = tuple(sounds.read(one, processors.sound) for one in _listed(sound, "sound")) if sound is not None else ()
    if processors.both is not None:
        inputs, spoken, lying = between.encoded(processors.both, images, texts, config)
        texts = tuple(one if isinstance(one, str) else prompts.told(one, between.HERE) for one in texts)
        return Fed(_fitting(module, inputs), 1, images, texts, places=lying, layouts=spoken)
    count = _count(task, images, texts, waves)
    if task != "zero-shot-image-classification":
        texts = texts * count if len(texts) == 1 else texts
    inputs: dict[str, Tensor] = {}
    layouts: dict[str, Any] = {}
    placements: tuple[Any, ...] = ()
    if texts:
        encoded, layouts["input_ids"] = words.encode(processors.text, texts, config)
        inputs |= encoded
        texts = tuple(one if isinstance(one, str) else conversations.told(one) for one in texts)
    if images and config.model_type in BOXED:
        given = regions.read(found, images, _paths(image), source)
        given = given * count if len(given) == 1 else given
        images = images * count if len(images) == 1 else images
        added, layouts[BOXED[config.model_type]] = regions.tensors(given, config)
        inputs |= added
    elif images:
        images = images * count if len(images) == 1 else images
        inputs |= pixels(processors.image, images)
        placements = tuple(placing.placed(processors.image, picture.size) for picture in images)
    if waves:
        inputs |= sounds.tensors(processors.sound, waves)
    seconds, heard = sounds.lengths(processors.sound, waves)
    if task in DECODERS:
        inputs = _fitting(module, inputs)
        opening = openings(module, inputs, count)
        inputs["decoder_input_ids"], layouts["decoder_input_ids"] = words.begun(processors.text, opening, prefix)
    return Fed(_fitting(module, inputs), count, images, texts, placements, layouts, seconds, heard)


def _check_given(task: str, source: str, image: Any, text: Any, sound: Any) -> None:
    takes = TASKS[task].takes
    given = {"image": image, "text": text, "sound": sound}
    called = {"image": "a picture", "text": "a text", "sound": "a sound"}
    for name, value in given.items():
        if name in takes and value is None:
            what = "the captions to choose from" if task == "zero-shot-image-classification" and name == "text" else ""
            what = what or ("a question" if task in ASKED and name == "text" else called[name])
            raise InputError(f"{source!r} does {task}: it needs {what}. Give {name}=.")
        if name not in takes and value is not None:
            raise InputError(
                f"{source!r} does {task}: it takes {' and '.join(called[one] for one in takes)}, not {called[name]}. "
                f"Leave {name}= out, or name another model."
            )


def _listed(value: Any, name: str) -> list[Any]:
    alone = name == "text" and conversations.is_conversation(value)
    many = list(value) if isinstance(value, list | tuple) and not alone else [value]
    if not many:
        raise InputError(f"{name} is an empty list. heedmap expected at least one.")
    if name == "text":
        for one in many:
            if conversations.is_conversation(one):
                conversations.checked(one)
                continue
            if not isinstance(one, str):
                raise InputError(f"The text is a {type(one).__name__}. heedmap expected a string, or a list of them.")
            if not one.strip():
                raise InputError("The text is empty. heedmap expected at least one word.")
    return many


def _paths(image: Any) -> tuple[Path | None, ...]:
    return tuple(Path(one) if isinstance(one, str | Path) else None for one in _listed(image, "image"))


def _count(task: str, images: Sequence[Any], texts: Sequence[str], waves: Sequence[Any]) -> int:
    if task == "zero-shot-image-classification":
        return len(images)
    counts = {len(many) for many in (images, texts, waves) if many} - {1}
    if len(counts) > 1:
        raise InputError(
            f"{len(images)} pictures and {len(texts)} texts were given. heedmap expected as many of one as of the "
            "other, or one of either for all of the other."
        )
    return counts.pop() if counts else 1


def pixels(processor: Any, images: Sequence[Image]) -> dict[str, Tensor]:
    """What the processor makes of pictures."""
    pictures.check_sides(processor, images)
    try:
        made = processor(images=list(images), return_tensors="pt")
    except (ValueError, RuntimeError) as error:
        sizes = ", ".join(f"{picture.width} x {picture.height}" for picture in images[:4])
        raise InputError(
            f"The model's processor cannot take pictures of {sizes} ({error}). Give larger ones, or one at a time."
        ) from error
    return {name: value for name, value in made.items() if isinstance(value, Tensor)}


def _fitting(module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Only what the model takes, on its device, fractions in its precision."""
    first = next(module.parameters())
    device, dtype = first.device, first.dtype
    parameters = inspect.signature(module.forward).parameters
    return {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in inputs.items()
        if name in parameters
    }
