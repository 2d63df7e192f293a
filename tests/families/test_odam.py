"""ODAM against gradient times features, taken from the model's own modules by name; and where it is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from builders import BY_NAME, CLASSES, numbers
from runs import distance, lifted, model_of
from torch import Tensor, nn

import heedmap
from heedmap.errors import InputError, UnsupportedError

BY_HAND = {  # which module's input or output the features are
    ("detr", "memory"): ("model.encoder", "output"),
    ("detr", "projection"): ("model.input_projection", "output"),
    ("detr", "backbone"): ("model.input_projection", "input"),
    ("lxmert", "memory"): ("lxmert.encoder.r_layers.0", "output"),
    ("lxmert", "projection"): ("lxmert.encoder.visn_fc", "output"),
}


def by_hand(model: nn.Module, inputs: dict[str, Tensor], target, path: str, side: str) -> np.ndarray:
    """max(sum over channels of dY/dF * F, 0), (batch, token), before the clamp too."""
    model = copy.deepcopy(model)
    met: list[Tensor] = []

    def keep(module, given, output):
        feature = given[0] if side == "input" else output
        while not torch.is_tensor(feature):
            feature = feature[0]
        met.append(feature)

    model.get_submodule(path).register_forward_hook(keep)
    value = target(model(**{name: x.requires_grad_() if x.is_floating_point() else x for name, x in inputs.items()}))
    (gradient,) = torch.autograd.grad(value.sum(), met)
    product = gradient * met[0].detach()
    return (product.sum(1).flatten(1) if product.ndim == 4 else product.sum(-1)).numpy()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("name", "features"), BY_HAND)
def test_gradient_times_features_of_the_named_module(name, features, batch):
    family = BY_NAME[name]
    inputs = lifted(family.inputs(batch), torch.float64)
    e = heedmap.explain(model_of(name), inputs, family.ask, method=f"odam:{features}", verify="always")
    (stream,) = e.streams
    signed = by_hand(model_of(name), inputs, family.ask, *BY_HAND[name, features])
    assert (signed < 0).any()
    assert distance(e[stream].numpy(), np.maximum(signed, 0)) <= 1e-9
    assert not e.starts[stream].any()
    assert torch.equal(e.row(stream), e[stream])


def test_memory_is_what_is_meant_where_nothing_is_said():
    family, inputs = BY_NAME["detr"], lifted(BY_NAME["detr"].inputs(1), torch.float64)
    plain, memory = (
        heedmap.explain(model_of("detr"), inputs, family.ask, method=method) for method in ("odam", "odam:memory")
    )
    assert torch.equal(plain["pixel_values"], memory["pixel_values"])
    assert repr(plain).endswith("odam:memory, pixel_values (1, 6))")
    assert plain.readout == ("pixel_values@1, as call 3 reads it",)


class Finder(nn.Module):
    """torch's own decoder over the cells of a picture: inside it tokens stand before examples."""

    def __init__(self, batch_first: bool):
        super().__init__()
        self.batch_first = batch_first
        self.stem, self.queries = nn.Conv2d(3, 16, 6, 6), nn.Embedding(3, 16)
        self.reads = nn.MultiheadAttention(16, 2, batch_first=batch_first)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, pixel_values):
        cells = self.stem(pixel_values).flatten(2).mT
        queries = self.queries.weight.expand(len(cells), -1, -1)
        if not self.batch_first:
            cells, queries = cells.transpose(0, 1), queries.transpose(0, 1)
        read = self.reads(queries, cells, cells, need_weights=False)[0]
        return self.head(read if self.batch_first else read.transpose(0, 1))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batch", [1, 4, 5])
def test_tokens_before_examples(batch, batch_first):
    """Also where there are as many examples as cells."""
    torch.manual_seed(2)
    model = Finder(batch_first).double().eval()
    pixels = torch.randn(batch, 3, 12, 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def target(output):
        return output[:, 1, 2] ** 3

    for variant in ("memory", "projection"):
        e = heedmap.explain(model, pixels, target, method=f"odam:{variant}")
        true = np.maximum(by_hand(model, {"pixel_values": pixels.clone()}, target, "stem", "output"), 0)
        assert true.any()
        assert distance(e["pixel_values"].numpy(), true) <= 1e-9
    with pytest.raises(UnsupportedError, match="not one convolution away from a map of as many places"):
        heedmap.explain(model, pixels, target, method="odam:backbone")


@pytest.mark.parametrize("name", ["vit", "bert", "t5", "whisper", "clip", "nn-transformer", "vilt", "gpt2"])
def test_elsewhere_it_is_refused(name):
    family = BY_NAME[name]
    with pytest.raises(UnsupportedError, match=r"odam takes models in which .*: DETR, LXMERT\. Use heed or gae here"):
        heedmap.explain(model_of(name), lifted(family.inputs(1), torch.float64), family.ask, method="odam")


def test_boxes_have_no_backbone():
    family = BY_NAME["lxmert"]
    inputs = lifted(family.inputs(1), torch.float64)
    with pytest.raises(UnsupportedError, match="use odam:memory here"):
        heedmap.explain(model_of("lxmert"), inputs, family.ask, method="odam:backbone", verify=False)


class Folded(Finder):
    """What is read passes through no linear map."""

    def forward(self, pixel_values):
        cells = self.stem(pixel_values).flatten(2).mT
        queries = self.queries.weight.expand(len(cells), -1, -1)
        return self.head(nn.functional.scaled_dot_product_attention(queries, cells, cells))


def test_values_that_no_linear_map_made_are_refused():
    torch.manual_seed(2)
    with pytest.raises(UnsupportedError, match="not a linear map of the tokens"):
        heedmap.explain(Folded(True).eval(), numbers(2, 3, 12, 12), lambda output: output[:, 1, 2], method="odam")


@pytest.mark.parametrize("given", [{"correction": "positive"}, {"noise": True}, {"readout": heedmap.Readout("x")}])
def test_what_it_does_not_take_is_refused(given):
    family = BY_NAME["detr"]
    with pytest.raises(InputError, match=rf"Method 'odam' takes no {next(iter(given))}\. Leave it out"):
        heedmap.explain(model_of("detr"), family.inputs(1), family.ask, method="odam", **given)
