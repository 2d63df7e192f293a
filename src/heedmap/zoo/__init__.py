"""Small trained models that live in the menagerie: a folder each, as transformers writes it, with a card."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from heedmap.errors import InputError, ModelError

_NAMES = ("vit", "vit-deep", "vit-mislabelled", "detr", "lxmert", "clip")


def names() -> tuple[str, ...]:
    """Every model of the zoo."""
    return _NAMES


def path(name: str) -> Path:
    """The folder of a model: plain transformers loads it with `from_pretrained`."""
    if name not in _NAMES:
        near = difflib.get_close_matches(str(name).lower(), _NAMES)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise InputError(f"No model of the zoo is called {name!r}. {hint}The models are {', '.join(_NAMES)}.")
    return Path(__file__).parent / name


def card(name: str) -> dict:
    """How a model was made and what it reached: recipe, seeds, measured figures, the hash of each file."""
    file = path(name) / "card.json"
    if not file.is_file():
        raise ModelError(
            f"The model {name!r} has no card at {file}. heedmap expected its trained folder there: "
            f"install heedmap anew, or train the model as training/README.md of the sources says."
        )
    return json.loads(file.read_text(encoding="utf-8"))
