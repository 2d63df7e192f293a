"""The contract is kept on the tiny models of the family tests: their folders are importable from here."""

import sys
from pathlib import Path

import pytest

for folder in ("families", "oracle", "contract"):
    sys.path.append(str(Path(__file__).parents[1] / folder))


@pytest.fixture(autouse=True)
def nothing_left_on():
    """Every test leaves torch as it found it."""
    from snapshots import torch_state

    before = torch_state()
    yield
    assert torch_state() == before
