"""The probe runs the first time a model meets a signature, and again when anything it hangs on has changed."""

import pytest
import torch
from torch import nn

import heedmap
from heedmap.capture import Recording


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(2))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x, x, x)[0]
        return self.head(x[:, 0])


@pytest.fixture
def probes(monkeypatch):
    seen = []
    pull = Recording.pull
    monkeypatch.setattr(Recording, "pull", lambda self, *args: seen.append(1) or pull(self, *args))
    return seen


def explained(model, tokens=6, verify="once"):
    torch.manual_seed(0)
    return heedmap.explain(model, torch.randn(2, tokens, 16), 1, verify=verify)


def test_once_is_once(probes):
    model = Tower().eval()
    first = explained(model)
    assert probes
    probes.clear()
    second = explained(model)
    assert not probes
    assert torch.allclose(first["x"], second["x"], rtol=1e-5, atol=1e-7)


def test_always_is_always(probes):
    model = Tower().eval()
    explained(model, verify="always")
    probes.clear()
    explained(model, verify="always")
    assert probes


def test_false_is_never(probes):
    explained(Tower().eval(), verify=False)
    assert not probes


@pytest.mark.parametrize("change", ["tokens", "weights"])
def test_what_has_changed_is_probed_again(probes, change):
    model = Tower().eval()
    explained(model)
    probes.clear()
    if change == "weights":
        with torch.no_grad():
            model.head.weight.mul_(2)
    explained(model, tokens=7 if change == "tokens" else 6)
    assert probes
