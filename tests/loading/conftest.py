"""Folders as save_pretrained writes them, made once: tiny random models with processors of their own."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import folders


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder of a model by its name in `folders.MAKERS`."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = folders.make(name, tmp_path_factory.mktemp(name))
        return str(made[name])

    return get
