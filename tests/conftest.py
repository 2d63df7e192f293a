"""What every test starts with: one thread, one seed; and tiny models as save_pretrained writes them."""

import sys
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
sys.path.append(str(Path(__file__).parent / "loading"))  # their makers: folders.py


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder of a tiny random model by its name in `folders.MAKERS`, with processors of its own, made once."""
    import folders

    made = {}

    def get(name):
        if name not in made:
            made[name] = folders.make(name, tmp_path_factory.mktemp(name))
        return str(made[name])

    return get
