"""Packages beside torch, imported by whoever needs them, with an error that says what to install."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from heedmap.errors import BrokenInstallError


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
