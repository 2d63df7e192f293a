"""What turns pictures, texts and sounds into a model's tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VIDEO = "video_processor"


@dataclass(frozen=True)
class Processors:
    """A model's own processors, of transformers; None where the model takes no such input."""

    image: Any = None
    text: Any = None
    sound: Any = None
    both: Any = None  # of models that read a picture between words: one processor for picture and text


def for_both(hf: Any, config: Any, place: str, options: dict[str, Any]) -> Any:
    """A model's processor of pictures and text, without its part for videos, which needs packages of its own."""
    kind = hf.models.auto.processing_auto.PROCESSOR_MAPPING.get(type(config), None)
    if kind is None or kind.get_attributes()[-1:] != [VIDEO]:
        return hf.AutoProcessor.from_pretrained(place, **options)
    return for_pictures(kind).from_pretrained(place, **options)


def for_pictures(kind: Any) -> Any:
    """A class of processors, with None for the one of videos."""
    parts = [name for name in kind.get_attributes() if name != VIDEO]

    class Without(kind):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return parts

        @classmethod
        def _get_arguments_from_pretrained(cls, *given: Any, **more: Any) -> list[Any]:
            return [*super()._get_arguments_from_pretrained(*given, **more), None]

    Without.__name__ = kind.__name__  # as files have it
    return Without
