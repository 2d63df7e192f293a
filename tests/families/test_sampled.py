"""Deformable attention, in real models, against its restatement with full matrices."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from sampled import Read, walked
from torch import nn

import heedmap
from heedmap import Readout
from heedmap.errors import UnsupportedError

QUERIES, LABEL, QUERY = 5, 1, 2
IMAGE = {"reading": "image", "read": "image"}


def features(config, stages: int, **more):
    """A backbone of a few channels."""
    names = [f"stage{number}" for number in range(5 - stages, 5)]
    return config(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic", out_features=names, **more
    )


def detr(**more) -> nn.Module:
    config = hf.DeformableDetrConfig(
        backbone_config=features(hf.ResNetConfig, 3),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=QUERIES,
        two_stage_num_proposals=QUERIES,
        num_labels=4,
        **more,
    )
    return built(hf.DeformableDetrForObjectDetection(config))


def rt_detr(model, config) -> nn.Module:
    config = config(
        backbone_config=features(hf.RTDetrResNetConfig, 3),
        encoder_hidden_dim=32,
        encoder_in_channels=[8] * 3,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=32,
        num_queries=QUERIES,
        decoder_in_channels=[32] * 3,
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_labels=4,
        num_denoising=0,
        anchor_image_size=None,
    )
    return built(model(config))


def swin(stages: int):
    names = [f"stage{number}" for number in range(5 - stages, 5)]
    return hf.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1] * 4, num_heads=[2] * 4, window_size=2, out_features=names
    )


def mask2former(backbone) -> nn.Module:
    config = hf.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=QUERIES,
        num_labels=4,
    )
    return built(hf.Mask2FormerForUniversalSegmentation(config))


def grounding_dino() -> nn.Module:
    words = hf.BertConfig(
        vocab_size=1100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    config = hf.GroundingDinoConfig(
        backbone_config=swin(3),
        text_config=words,
        d_model=32,
        encoder_layers=2,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        num_queries=QUERIES,
        max_text_len=16,
    )
    return built(hf.GroundingDinoForObjectDetection(config))


def built(model: nn.Module) -> nn.Module:
    """Random weights as they come, but a wide spread where points are chosen and weighed: some lie beyond the grid."""
    model = model.eval().double()
    for name, parameter in model.named_parameters():
        if "sampling_offsets.bias" in name:
            nn.init.normal_(parameter, std=2.0)
        elif "attention_weights" in name or "sampling_offsets.weight" in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def decoder(layers: int, queries: str, image: str = "image") -> list[Read]:
    return [Read(queries, queries), Read(queries, image)] * layers


LEARNED = "model.query_position_embeddings.weight"
CHOSEN = "pixel_values (detached)"
OF_MASKS = "model.transformer_module.queries_embedder.weight+model.transformer_module.queries_features.weight"
ENCODED = [Read("pixel_values", "pixel_values")] * 2

HALF = [Read(LEARNED, LEARNED), Read(LEARNED, "input_ids"), Read(LEARNED, "image")]
FUSED = [
    Read("image", "input_ids"),
    Read("input_ids", "image", together=True),
    Read("input_ids", "input_ids"),
    Read("image", "image"),
]

# how to build it, its picture, its calls, its streams with their tokens, and what is declared
CASES = {
    "deformable detr": (
        detr,
        (2, 3, 64, 96),
        ENCODED + decoder(2, LEARNED, "pixel_values"),
        {"pixel_values": 128, LEARNED: QUERIES},
        None,
    ),
    "boxes refined": (
        lambda: detr(with_box_refine=True),
        (1, 3, 96, 64),
        ENCODED + decoder(2, LEARNED, "pixel_values"),
        {"pixel_values": 128, LEARNED: QUERIES},
        None,
    ),
    "two stages": (
        lambda: detr(with_box_refine=True, two_stage=True),
        (1, 3, 64, 96),
        ENCODED + decoder(2, CHOSEN, "pixel_values"),
        {"pixel_values": 128, CHOSEN: QUERIES},
        None,
    ),
    "rt-detr": (
        lambda: rt_detr(hf.RTDetrForObjectDetection, hf.RTDetrConfig),
        (1, 3, 64, 96),
        [None, *decoder(2, CHOSEN)],
        {"image": 126, CHOSEN: QUERIES},
        {"model.decoder.layers.0.encoder_attn.attn": {"read": "image"}},
    ),
    "rt-detr v2": (
        lambda: rt_detr(hf.RTDetrV2ForObjectDetection, hf.RTDetrV2Config),
        (1, 3, 64, 96),
        [None, *decoder(2, CHOSEN)],
        {"image": 126, CHOSEN: QUERIES},
        {"model.decoder.layers.0.encoder_attn": {"read": "image"}},
    ),
    "mask2former": (
        lambda: mask2former(features(hf.ResNetConfig, 4)),
        (1, 3, 64, 128),
        [
            *ENCODED,
            Read(OF_MASKS, "pixel_values", slice(0, 8)),
            Read(OF_MASKS, OF_MASKS),
            Read(OF_MASKS, "pixel_values", slice(8, 40)),
            Read(OF_MASKS, OF_MASKS),
        ],
        {"pixel_values": 168, OF_MASKS: QUERIES},
        None,
    ),
    "mask2former on swin": (
        lambda: mask2former(swin(4)),
        (1, 3, 64, 64),
        [
            *[None] * 4,
            *[Read("image", "image")] * 2,
            Read(OF_MASKS, "image", slice(0, 4)),
            Read(OF_MASKS, OF_MASKS),
            Read(OF_MASKS, "image", slice(4, 20)),
            Read(OF_MASKS, OF_MASKS),
        ],
        {"image": 84, OF_MASKS: QUERIES},
        {"model.pixel_level_module.decoder.encoder.layers.0.self_attn": IMAGE},
    ),
    "grounding dino": (
        grounding_dino,
        (1, 3, 128, 128),
        [*[Read("input_ids", "input_ids")] * 2, *[None] * 4, *FUSED * 2, *HALF * 2],
        {"input_ids": 6, "image": 340, LEARNED: QUERIES},
        {6: {"reading": "image"}},
    ),
}


def case(name: str):
    build, size, steps, tokens, declared = CASES[name]
    torch.manual_seed(3)
    model, inputs = build(), {"pixel_values": torch.randn(*size, dtype=torch.float64)}
    starts = {list(tokens)[-1]: QUERY}
    readout = None
    if "input_ids" in tokens:  # the answer is a product of a query and a word
        readout = [Readout(LEARNED, rows=QUERY), Readout("input_ids", rows=LABEL)]
        inputs["input_ids"] = torch.tensor([[101, 5, 7, 1012, 9, 102]])
        starts = {LEARNED: QUERY, "input_ids": LABEL}
    return model, inputs, steps, tokens, {"wiring": declared, "readout": readout}, starts


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("correction", ["complete", "positive", "absolute"])
def test_equal_to_full_matrices(name, correction):
    model, inputs, steps, tokens, declared, starts = case(name)
    e = heedmap.explain(model, inputs, class_of, correction=correction, **declared)
    true = walked(model, inputs, class_of, steps, tokens, starts, correction)
    assert set(e.streams) == set(tokens)
    for stream in tokens:
        peak = abs(true[stream]).max()
        assert peak > 0 or stream == list(tokens)[-1]
        assert abs(e[stream].numpy() - true[stream]).max() <= 1e-9 * max(peak, 1e-12), stream


def class_of(output) -> torch.Tensor:
    return output["logits" if "logits" in output else "class_queries_logits"][:, QUERY, LABEL]


def test_the_noise_link_on_an_encoder_that_samples():
    model, inputs, steps, tokens, _, starts = case("deformable detr")
    e = heedmap.explain(model, inputs, class_of, correction="positive", noise=True)
    true = walked(model, inputs, class_of, steps, tokens, starts, "positive", noise=1)
    assert e.metadata["noise"] == "pixel_values@1"
    for stream in tokens:
        # the restatement takes an identity off its row sums, of which some are small
        assert abs(e[stream].numpy() - true[stream]).max() <= 1e-6 * abs(true["pixel_values"]).max(), stream


def test_weights_are_those_of_the_tokens_that_are_read():
    """The dense form of a call: its output is the weights times the values, and an edit by them changes nothing."""
    model, inputs, *_ = case("deformable detr")
    weights = heedmap.weights(model, inputs)
    assert [tuple(each.shape[2:]) for each in weights[:4]] == [(128, 128), (128, 128), (5, 5), (5, 128)]
    assert 0 <= weights[0].sum(-1).min() < 0.9  # some points lie beyond the grid
    assert weights[0].sum(-1).max() <= 1 + 1e-12
    plain = heedmap.explain(model, inputs, class_of, method="gae")
    edited = heedmap.explain(model, inputs, class_of, edits={3: weights[3]})
    torch.testing.assert_close(edited.value, plain.value)
    silent = heedmap.explain(model, inputs, class_of, edits={5: torch.zeros_like(weights[5])})
    assert (silent.value - plain.value).abs().max() > 1e-6


@pytest.mark.parametrize("method", ["gae", "raw", "rollout", "gmar", "random"])
def test_other_methods_take_the_dense_form(method):
    model, inputs, *_ = case("deformable detr")
    e = heedmap.explain(model, inputs, class_of, method=method)
    assert e["pixel_values"].shape == (2, 128)
    assert e["pixel_values"].isfinite().all()
    assert e["pixel_values"].abs().max() > 0


@pytest.mark.parametrize("method", ["lrp", "partial-lrp", "t-attr"])
def test_rules_for_sampled_points_there_are_none(method):
    model, inputs, *_ = case("deformable detr")
    with pytest.raises(UnsupportedError, match=r"points between tokens.*heedmap expected"):
        heedmap.explain(model, inputs, class_of, method=method)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_less_precision(dtype):
    model, inputs, *_ = case("deformable detr")
    true = heedmap.explain(model, inputs, class_of)["pixel_values"].float()
    e = heedmap.explain(model.to(dtype), {"pixel_values": inputs["pixel_values"].to(dtype)}, class_of)
    found = e["pixel_values"].float()
    alike = torch.nn.functional.cosine_similarity(found, true)
    assert (alike > (0.999999 if dtype == torch.float32 else 0.98)).all(), alike
