"""What turns pictures, texts and sounds into a model's tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Processors:
    """A model's own processors, of transformers; None where the model takes no such input."""

    image: Any = None
    text: Any = None
    sound: Any = None
    both: Any = None  # of models that read a picture between words: one processor for picture and text
