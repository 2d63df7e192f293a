"""Packages beside torch, imported by whoever needs them, with an error that says what to install."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from heedmap.errors import BrokenInstallError

PACKAGES = {"skimage": "scikit-image"}  # where a package has another name than its module


def transformers() -> ModuleType:
    """The transformers package; refused where a broken torchvision beside it would fail every image model.

    With a torchvision that does not import, transformers reports only that it could not import the module asked for.
    """
    if importlib.util.find_spec("torchvision") is not None:
        try:
            importlib.import_module("torchvision")
        except Exception as error:
            raise BrokenInstallError(
                f"torchvision is installed, but importing it fails: {error}. transformers expected one built for this "
                "torch, and fails on every image model without saying so. Run `pip uninstall torchvision` (image "
                "processors work without it), or `pip install` the build that belongs to your torch."
            ) from error
    return importlib.import_module("transformers")


def extra(name: str, instead: str = "") -> Any:
    """A module of the packages that not everyone needs; `instead` is what else may be done where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        module = name.partition(".")[0]
        raise BrokenInstallError(
            f"{PACKAGES.get(module, module)} is needed here and cannot be imported ({error}). Run `pip install "
            f"'heedmap[eval]'`{', or ' * bool(instead)}{instead}."
        ) from error


@contextlib.contextmanager
def quiet(hf: Any) -> Iterator[None]:
    """transformers, for once without progress bars and remarks; as talkative afterwards as it was before."""
    logging = hf.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
