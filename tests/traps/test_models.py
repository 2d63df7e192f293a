"""Whole models of transformers whose tokens move, split or join: refused with what to do, or right."""

import pytest
import torch
import transformers as hf
from torch import nn

import heedmap
from heedmap import logit
from heedmap.errors import HeedmapError, InputError, UnsupportedError, WiringError

WORDS = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = WORDS | {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def built(make, config) -> nn.Module:
    torch.manual_seed(0)
    return make(config).eval()


def ids(batch: int = 2, count: int = 8) -> torch.Tensor:
    return torch.randint(3, 50, (batch, count))


def refused(model, inputs, error, says, target=None):
    with pytest.raises(error, match=says):
        heedmap.explain(model, inputs, logit(1) if target is None else target)


def plain_language_model(make, config, **inputs):
    """One stream, one call per layer, each reading what the call before left."""
    e = heedmap.explain(built(make, config), {"input_ids": ids(), **inputs}, logit(1))
    assert e.streams == ("input_ids",)
    assert [call.reading.after for call in e.wiring.calls] == [None, *range(config.num_hidden_layers - 1)]


@pytest.mark.parametrize(("images", "texts", "index"), [(2, 3, 1), (3, 3, 1), (3, 1, 0), (3, 3, [1, 2, 0])])
def test_clips_matrix_is_never_summed(images, texts, index):
    refused(clip(), pairs(images, texts), InputError, "one number|one per example", logit(index))


@pytest.mark.parametrize(("images", "texts", "index"), [(1, 3, 1), (3, 3, [0, 1, 2])])
def test_clip_by_pairs_is_what_each_pair_gives_alone(images, texts, index):
    model, inputs = clip(), pairs(images, texts)
    together = heedmap.explain(model, inputs, logit(index))
    chosen = [index] if images == 1 else index
    for i, j in enumerate(chosen):
        one = {"pixel_values": inputs["pixel_values"][i : i + 1], "input_ids": inputs["input_ids"][j : j + 1]}
        alone = heedmap.explain(model, one, logit(0))
        torch.testing.assert_close(together["pixel_values"][i], alone["pixel_values"][0], rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(together["input_ids"][j], alone["input_ids"][0], rtol=1e-3, atol=1e-6)
        others = [k for k in range(texts) if k not in chosen]
        assert not together["input_ids"][others].any()


def clip() -> nn.Module:
    text = TEXT | {"initializer_factor": 3.0}
    vision = WORDS | {"image_size": 8, "patch_size": 4, "initializer_factor": 3.0}
    return built(hf.CLIPModel, hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def pairs(images: int, texts: int) -> dict[str, torch.Tensor]:
    return {"input_ids": ids(texts, 6), "pixel_values": torch.randn(images, 3, 8, 8)}


def gpt2() -> nn.Module:
    return built(
        hf.GPT2LMHeadModel, hf.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
    )


def test_a_filled_cache_is_refused():
    model, words = gpt2(), ids()
    cache = model(words).past_key_values
    refused(model, {"input_ids": words[:, :1], "past_key_values": cache}, UnsupportedError, "leave the cache out")


def test_a_static_cache_is_refused():
    model = gpt2()
    cache = hf.StaticCache(config=model.config, max_cache_len=12)
    refused(model, {"input_ids": ids(), "past_key_values": cache}, HeedmapError, "expected|declare")


@pytest.mark.parametrize("use", [True, False])
def test_a_cache_that_begins_empty_changes_nothing(use):
    model, words = gpt2(), ids()
    e = heedmap.explain(model, {"input_ids": words, "use_cache": use}, logit(1))
    torch.testing.assert_close(e["input_ids"], heedmap.explain(model, words, logit(1))["input_ids"])


@pytest.mark.parametrize("parallel", [True, False])
def test_gpt_neox(parallel):
    config = hf.GPTNeoXConfig(**TEXT, use_parallel_residual=parallel)
    plain_language_model(hf.GPTNeoXForCausalLM, config)


def test_mixture_of_experts():
    config = hf.MixtralConfig(**TEXT, num_key_value_heads=2, num_local_experts=4)
    plain_language_model(hf.MixtralForCausalLM, config)


def test_as_many_experts_as_tokens():
    config = hf.MixtralConfig(**TEXT, num_key_value_heads=2, num_local_experts=8)
    plain_language_model(hf.MixtralForCausalLM, config)


def test_state_space_layers_around_one_attention_are_refused():
    config = hf.JambaConfig(
        **TEXT | {"num_hidden_layers": 4},
        num_key_value_heads=2,
        attn_layer_period=4,
        attn_layer_offset=2,
        num_experts=2,
    )
    refused(built(hf.JambaForCausalLM, config), {"input_ids": ids()}, HeedmapError, "expected|declare")


@pytest.mark.parametrize("spread", [0.2, 0.02])
def test_layers_that_are_no_attention_between_calls_are_refused(spread):
    kinds = ["conv", "full_attention"] * 2
    config = hf.Lfm2Config(
        **TEXT | {"num_hidden_layers": 4}, num_key_value_heads=2, layer_types=kinds, initializer_range=spread
    )
    refused(built(hf.Lfm2ForCausalLM, config), {"input_ids": ids()}, WiringError, "wiring=")


def test_a_convolution_over_words_before_the_only_call_is_refused():
    config = hf.Lfm2Config(**TEXT, num_key_value_heads=2, layer_types=["conv", "full_attention"])
    refused(built(hf.Lfm2ForCausalLM, config), {"input_ids": ids()}, HeedmapError, "expected|declare")
