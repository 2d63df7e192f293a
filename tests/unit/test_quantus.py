"""The explain function for Quantus: shapes, numbers and refusals by hand; and Quantus itself where it is installed."""

import numpy as np
import pytest
import torch
from torch import nn

import heedmap
from heedmap.errors import InputError, UnsupportedError


class Logits(nn.Module):
    """A model of transformers, as Quantus takes it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model(pixel_values).logits


@pytest.fixture(scope="module")
def model(folder):
    return Logits(heedmap.load(folder("vit")).module).eval()


@pytest.fixture
def pictures():
    return np.random.default_rng(0).normal(size=(3, 3, 32, 32))  # float64, as Quantus may have them


CLASSES = np.array([3, 0, 4])


def test_a_pixel_has_its_patchs_number(model, pictures):
    found = heedmap.quantus_explain(model, pictures, CLASSES, device="cpu")
    assert isinstance(found, np.ndarray)
    assert found.shape == (3, 1, 32, 32)
    flowed = heedmap.explain(model, torch.tensor(pictures, dtype=torch.float32), heedmap.logit([3, 0, 4]))[
        "pixel_values"
    ]
    assert np.array_equal(found[:, 0, ::8, ::8].reshape(3, 16), flowed[:, 1:].numpy())  # patches of 8, behind CLS
    assert np.array_equal(found, found[:, :, ::8, ::8].repeat(8, 2).repeat(8, 3))


def test_pixels_are_taken_as_they_are_and_silence_is_nothing(model, pictures):
    given = torch.tensor(pictures, dtype=torch.float32)
    found = heedmap.quantus_explain(model, pictures, CLASSES, method="inputxgradient")
    e = heedmap.explain(model, given, heedmap.logit([3, 0, 4]), method="inputxgradient")
    assert np.array_equal(found[:, 0], e.pixels.numpy())
    few = heedmap.quantus_explain(model, pictures, CLASSES, method="tis:noise", masks=1)
    assert np.isfinite(few).all()
    assert (few == 0).any(), "one mask leaves patches that nothing is said of"


def test_what_is_no_picture_is_refused(model, pictures):
    with pytest.raises(InputError, match=r"inputs is \(3, 3072\), targets \(3,\).*one class for each"):
        heedmap.quantus_explain(model, pictures.reshape(3, -1), CLASSES)
    with pytest.raises(InputError, match="targets"):
        heedmap.quantus_explain(model, pictures, np.eye(5)[CLASSES])

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(32, 2, 16, batch_first=True)

        def forward(self, x):
            return self.layer(x.mean(1))[:, 0]

    with pytest.raises(UnsupportedError, match="quantus_explain takes models that read the patches of one picture"):
        heedmap.quantus_explain(Pooled().eval(), pictures, CLASSES)


@pytest.mark.filterwarnings("ignore")  # of Quantus and what it imports
@pytest.mark.parametrize("method", ["heed", "gae", "inputxgradient"])
def test_quantus_measures_with_it(model, pictures, method):
    quantus = pytest.importorskip("quantus")
    given = {"explain_func": heedmap.quantus_explain, "explain_func_kwargs": {"method": method}, "device": "cpu"}
    batch = {"model": model, "x_batch": pictures.astype(np.float32), "y_batch": CLASSES, "a_batch": None}
    sparse = quantus.Sparseness(disable_warnings=True)(**batch, **given)
    flipped = quantus.PixelFlipping(features_in_step=256, disable_warnings=True)(**batch, **given)
    assert np.shape(sparse) == (3,)
    assert np.shape(flipped) == (3, 12)
    assert np.isfinite(sparse).all()
    assert np.isfinite(flipped).all()
