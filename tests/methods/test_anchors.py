"""Input times gradient, and random numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from builders import BY_NAME, numbers
from runs import lifted, model_of
from torch import Tensor

import heedmap
from heedmap import logit
from heedmap.errors import UnsupportedError

LOOKED_UP = {  # which module looks up the words of each input
    "bert": {"input_ids": "bert.embeddings.word_embeddings"},
    "roberta": {"input_ids": "roberta.embeddings.word_embeddings"},
    "gpt2": {"input_ids": "transformer.wte"},
    "llama": {"input_ids": "model.embed_tokens"},
    "lxmert": {"input_ids": "lxmert.embeddings.word_embeddings"},
    "clip": {"input_ids": "text_model.embeddings.token_embedding"},
}


def explained(name: str, method: str, batch: int = 3, **options) -> heedmap.Explanation:
    family = BY_NAME[name]
    torch.manual_seed(0)
    inputs = lifted(family.inputs(batch), torch.float64)
    return heedmap.explain(model_of(name), inputs, family.ask, method=method, **options)


def by_hand(name: str) -> dict[str, Tensor]:
    """x * dy/dx by torch alone, of every input that has a slope and of the words that are looked up."""
    family, model = BY_NAME[name], copy.deepcopy(model_of(name))
    met = {key: x.requires_grad_() for key, x in lifted(family.inputs(3), torch.float64).items()
           if x.is_floating_point()}  # fmt: skip
    for key, path in LOOKED_UP.get(name, {}).items():
        model.get_submodule(path).register_forward_hook(lambda m, given, out, key=key: met.setdefault(key, out))
    value = family.ask(model(**(family.inputs(3) | met)))
    found = torch.autograd.grad(value.sum(), list(met.values()), allow_unused=True)
    return {key: (x * g).detach() for (key, x), g in zip(met.items(), found, strict=True) if g is not None}


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama", "lxmert", "clip", "nn-encoder", "hand-fused"])
def test_input_times_gradient_of_tokens(name):
    e, true = explained(name, "inputxgradient"), by_hand(name)
    compared = [stream for stream in e.streams if stream in true and true[stream].ndim == 3]
    assert compared
    for stream in compared:
        assert torch.allclose(e[stream], true[stream].sum(-1), rtol=1e-9, atol=1e-12)
        assert (e[stream] < 0).any()
        assert not e.starts[stream].any()


@pytest.mark.parametrize("name", ["vit", "detr", "clip", "dinov2"])
def test_input_times_gradient_of_pixels(name):
    e, true = explained(name, "inputxgradient"), by_hand(name)["pixel_values"].sum(1)
    assert e.pixels is not None
    assert torch.allclose(e.pixels, true, rtol=1e-9, atol=1e-12 * true.abs().max())
    assert e["pixel_values"].isnan().all()


def test_of_a_linear_model_it_adds_up_to_the_answer():
    """Attention whose values alone move: with one key the weights are 1, and the model is linear in its input."""

    class Linear(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.scaled_dot_product_attention(x, x, x).sum(1)

    x = numbers(2, 1, 5)
    e = heedmap.explain(
        Linear().eval(), {"x": x}, lambda output: output[:, 0] + 3 * output[:, 2], method="inputxgradient"
    )
    assert torch.allclose(e["x"].sum(-1), e.value)


def test_pixels_and_tokens_are_the_same_alone():
    for name in ("vit", "lxmert"):
        together, alone = explained(name, "inputxgradient", 3), explained(name, "inputxgradient", 1)
        for stream in alone.streams:
            assert torch.allclose(together[stream][:1], alone[stream], rtol=1e-9, equal_nan=True)
        if alone.pixels is not None:
            assert torch.allclose(together.pixels[:1], alone.pixels, rtol=1e-9)


def test_several_inputs_in_one_stream_are_refused():
    with pytest.raises(UnsupportedError, match=r"visual_embeds \(3, 4, 12\).*inputxgradient takes models"):
        explained("visual-bert", "inputxgradient")


@pytest.mark.parametrize("name", ["vit", "detr", "lxmert", "t5"])
def test_random_numbers(name):
    e, again, unsigned = (explained(name, f"random{kind}") for kind in ("", "", ":unsigned"))
    assert set(e.streams) == set(e.wiring.tokens)
    for stream in e.streams:
        assert torch.equal(e[stream], again[stream])
        assert ((e[stream] >= -1) & (e[stream] <= 1)).all()
        assert ((unsigned[stream] >= 0) & (unsigned[stream] <= 1)).all()
        assert e[stream].shape == (3, e.wiring.tokens[stream])
        assert e[stream].unique().numel() == e[stream].numel()
    assert any((e[stream] < 0).any() and (e[stream] > 0).any() for stream in e.streams)


def test_random_numbers_hang_on_the_example_and_the_seed_alone():
    from heedmap.methods.at_random import at_random

    together, alone = explained("vit", "random", 3), explained("vit", "random", 1)
    assert torch.equal(together["pixel_values"][:1], alone["pixel_values"])
    assert not torch.equal(together["pixel_values"][0], together["pixel_values"][1])
    inputs = lifted(BY_NAME["vit"].inputs(3), torch.float64)
    a, b = at_random(model_of("vit"), inputs, [logit(1), logit(2)])
    assert torch.equal(a["pixel_values"], b["pixel_values"])
    (other,) = at_random(model_of("vit"), inputs, [logit(1)], seed=1)
    assert not torch.equal(a["pixel_values"], other["pixel_values"])


def test_many_random_numbers_are_uniform():
    class Wide(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.scaled_dot_product_attention(x, x, x).mean(1)

    e = heedmap.explain(Wide().eval(), torch.randn(4, 2000, 2), lambda output: output[:, 0], method="random")
    numbers = e[e.streams[0]]
    assert abs(numbers.mean()) < 0.03
    assert abs(numbers.square().mean() - 1 / 3) < 0.02
