"""Where a model is, by its name: in the zoo, in a folder, on the hub. Told before anything heavy is imported."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from heedmap import zoo
from heedmap.errors import InputError, ModelError

ZOO = "zoo:"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def place(source: str) -> tuple[str, dict[str, Any] | None]:
    """A folder, or a name on the hub with its options."""
    if source.lower().startswith(ZOO):
        return _of_the_zoo(source), None
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{source!r} is a folder without config.json. heedmap expected one that save_pretrained wrote, with "
                "its config, weights and processor."
            )
        return str(folder), None
    if folder.is_file():
        raise ModelError(f"{source!r} is a file. heedmap expected the folder that save_pretrained wrote: name that.")
    name, _, revision = source.partition("@")
    if name.lower() in zoo.names():  # the hub has no such names
        raise ModelError(f"There is no folder {source!r}. Did you mean {ZOO}{name.lower()}?")
    if not HUB_NAME.fullmatch(name) or source.startswith((".", "/", "~")):
        raise ModelError(
            f"There is no folder {source!r}. heedmap expected zoo:NAME ({_models()}), a folder "
            "that save_pretrained wrote, or a name on the hub such as google/vit-base-patch16-224."
        )
    return name, {"revision": revision} if revision else {}


def meant(name: str) -> str:
    """The model of the zoo that a name is nearly, as a question; nothing where it is near none."""
    near = get_close_matches(name.lower().removeprefix(ZOO), zoo.names())
    return f"Did you mean {' or '.join(ZOO + each for each in near)}? " if near else ""


def _of_the_zoo(source: str) -> str:
    name = source[len(ZOO) :]
    if name not in zoo.names():
        raise InputError(f"No model of the zoo is called {name!r}. {meant(name)}The models are {_models()}.")
    folder = zoo.path(name)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"The model {source!r} is not there: heedmap expected it at {folder}. Install heedmap anew, or train "
            "it as training/README.md of the sources says."
        )
    return str(folder)


def _models() -> str:
    return ", ".join(ZOO + each for each in zoo.names())
