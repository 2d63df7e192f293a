"""What differs from one input to the next, and what happens to tokens before any attention is met."""

import pytest
import torch
from torch import nn
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    ViltConfig,
    ViltForQuestionAnswering,
    XGLMConfig,
    XGLMForCausalLM,
)

import heedmap
from heedmap.errors import MixedTokensError

TOKENS, WIDTH = 6, 16


def layer() -> nn.MultiheadAttention:
    return nn.MultiheadAttention(WIDTH, 2, batch_first=True)


class Tower(nn.Module):
    """Two layers; what a subclass does to tokens between or before them is the point."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = layer(), layer()
        self.mix = nn.Linear(TOKENS, TOKENS)
        self.head = nn.Linear(WIDTH, 5)
        self.shift = 0
        self.register_buffer("gate", torch.zeros(()))
        self.scale = nn.Parameter(torch.zeros(()))

    def enter(self, x):
        return x

    def between(self, x):
        return x

    def forward(self, x):
        x = self.enter(x)
        x = x + self.first(x, x, x)[0]
        x = self.between(x)
        x = x + self.second(x, x, x)[0]
        return self.head(x.mean(1))


class Gated(Tower):
    def between(self, x):
        return x + torch.relu(x[:, :1, :1]) * self.mix(x.mT).mT


class Buffered(Tower):
    def between(self, x):
        return x + self.gate * self.mix(x.mT).mT


class Scaled(Tower):
    def between(self, x):
        return x + self.scale * self.mix(x.mT).mT


def x(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def gates(model: Gated) -> tuple[torch.Tensor, torch.Tensor]:
    """An input for which the gate is closed, and one for which it is open."""
    opened, closed = None, None
    for seed in range(40):
        start = x(seed)
        inside = start + model.first(start, start, start)[0]
        if inside[0, 0, 0] > 0:
            opened = start
        else:
            closed = start
    return closed, opened


def test_a_gate_that_opens_on_another_input_is_met():
    model = Gated().eval()
    closed, opened = gates(model)
    heedmap.explain(model, closed, 1)
    with pytest.raises(MixedTokensError):
        heedmap.explain(model, opened, 1)


CHANGES = {
    "a buffer": (Buffered, lambda model: model.gate.fill_(1.0)),
    "a parameter": (Scaled, lambda model: model.scale.data.fill_(1.0)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_mixing_that_a_change_switches_on_is_met(what):
    make, change = CHANGES[what]
    model = make().eval()
    heedmap.explain(model, x(), 1)
    with torch.no_grad():
        change(model)
    with pytest.raises(MixedTokensError):
        heedmap.explain(model, x(), 1)


class Flipped(Tower):
    def enter(self, x):
        return x.flip(1)


class Picked(Tower):
    def enter(self, x):
        return x[:, torch.tensor([2, 0, 1, 5, 4, 3])]


@pytest.mark.parametrize("make", [Flipped, Picked])
def test_a_stream_that_was_put_in_another_order_says_so(make):
    e = heedmap.explain(make().eval(), x(), 1)
    assert e.streams == ("x (rearranged)",)


def test_words_read_backward_are_not_called_by_their_input_alone():
    class Backward(Tower):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(10, WIDTH)

        def forward(self, ids):
            return super().forward(self.words(ids.flip(1)))

    e = heedmap.explain(Backward().eval(), torch.arange(TOKENS)[None], 1)
    assert e.streams == ("ids (rearranged)",)


def test_patches_that_vilt_draws_at_random_say_so():
    config = ViltConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=16,
        patch_size=8, num_labels=3,
    )  # fmt: skip
    inputs = {"input_ids": torch.arange(1, 6)[None], "pixel_values": torch.randn(1, 3, 16, 16)}
    (stream,) = heedmap.explain(ViltForQuestionAnswering(config).eval(), inputs, 1).streams
    assert stream.endswith("(rearranged)")


def test_one_key_head_picked_by_a_list_is_followed():
    config = FalconConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, multi_query=True, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    e = heedmap.explain(FalconForCausalLM(config).eval(), {"input_ids": torch.arange(1, 8)[None]}, 3)
    assert e["input_ids"].shape == (1, 7)


def test_scores_held_above_a_floor_are_scores():
    config = XGLMConfig(
        vocab_size=50, d_model=16, num_layers=2, attention_heads=2, ffn_dim=16, max_position_embeddings=32,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    e = heedmap.explain(XGLMForCausalLM(config).eval(), {"input_ids": torch.arange(1, 8)[None]}, 3)
    assert e["input_ids"].shape == (1, 7)
