"""A configuration of any family, made tiny by the names of its fields."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig

from .exceptions import EXCEPTIONS

WIDTH, HEADS, PAIRS, LAYERS, INNER, WORDS, SIDE = 64, 4, 2, 2, 96, 99, 64
HEAD = WIDTH // HEADS

# Read from the top: the first pattern that fits the whole name of a field decides. None leaves it as it is.
RULES: tuple[tuple[str, Any], ...] = tuple(
    (pattern, value)
    for pattern, value in {
        # tokens and words
        r".*vocab_size(_base)?|n_tokens": WORDS,
        r"vocab_size_per_layer_input": WORDS,
        r"hidden_size_per_layer_input": HEAD,
        r"type_vocab_size|.*_token_type.*": None,
        r"(max_2d_position_embeddings)": 64,
        r"max_source_positions": 16,
        r".*max_(position|source_position|target_position|text_position).*|n_positions|n_ctx|.*max_length": None,
        # pictures
        r"image_size|img_size|input_image_size|vision_image_size|pretrain_image_size|crop_size": SIDE,
        r"num_frames|frames": 4,
        r"window_size|.*window_sizes?": None,
        # heads
        r".*(key_value_heads|kv_heads|n_head_kv|num_kv_heads|multi_query_group_num|num_key_value_groups)": PAIRS,
        r".*heads|n_head|.*nhead|.*num_attention_heads.*": HEADS,
        r"qk_head_dim": 2 * HEAD,
        r"qk_rope_head_dim|qk_nope_head_dim": HEAD,
        r"v_head_dim|head_dim|.*head_dim|d_kv|kv_channels|attention_head_size|attention_key_size|rotary_dim": HEAD,
        r"mamba_.*|ssm_.*|linear_.*": None,
        # layers
        r"(num_)?(hidden_|encoder_|decoder_|text_|vision_|self_|transformer_|temporal_|spatial_)?layers"
        r"|n_layers?|num_layers|depth|.*_layers|.*num_hidden_layers|.*depth": LAYERS,
        # experts
        r"num_experts_per_tok|moe_topk|num_selected_experts|topk_group|n_group|moe_k": 2,
        r".*experts.*": 4,
        # widths
        r".*(ffn_dim|ffn_hidden_size|ffn_size|intermediate_size|intermediate_dim|ff_dim|feedforward_dim|mlp_dim|d_ff|"
        r"dim_feedforward|d_inner|n_inner)": INNER,
        r"kv_lora_rank|q_lora_rank|.*lora_rank": 16,
        r"bottleneck_size|.*rank": 16,
        r"intra_bottleneck_size": WIDTH,
        r".*(hidden_size|hidden_dim|d_model|d_embed|embed_dim|embedding_size|embedding_dim|n_embd|projection_dim|"
        r"proj_dim|output_dim|hidden_dimension|mask_feature_size|fpn_feature_size|cross_attention_dim|emb_dim|d_latents)"
        r"|dim|model_dim|.*hidden_channels|decoder_dim|encoder_dim": WIDTH,
        r"output_channels": WIDTH,
        r"num_pos_feats": WIDTH // 2,
        r"num_queries|num_query_tokens|num_object_queries|num_latents": 6,
        r"num_codebooks|num_quantizers": None,
    }.items()
)
ABSENT = {  # what has no default and is needed
    "vocab_size": WORDS,
    "head_dim": HEAD,
    "num_experts_per_tok": 2,
    "topk_group": 2,
    "n_group": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "prediction_length": 4,
}
SPLICED = tuple(f"{kind}_token_{end}" for kind in ("image", "video", "audio") for end in ("id", "index"))
KEEP = re.compile(
    r"chunk_size_feed_forward|num_feat_extract_layers|num_labels|.*_layers_(to|per).*|.*_index|.*_idx|layers_block_type"
)


def tiny(config_class: type[PreTrainedConfig], overrides: Mapping[str, Any]) -> PreTrainedConfig:
    """A small configuration of a class; `overrides` are fields that come before the rules."""
    default = config_class()
    config = config_class(**{**small(default, overrides), **overrides})
    for name in SPLICED:  # some are kept under another name than they are given
        if isinstance(value := getattr(config, name, None), int) and value >= WORDS:
            setattr(config, name, _word(name, value))
    return config


def small(config: PreTrainedConfig, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What to give the class of a configuration instead of what it has; `overrides` are for its parts too."""
    overrides = overrides or {}
    given: dict[str, Any] = {}
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            given[name] = type(value)(**small(value, overrides))
        elif not name.startswith("_") and (found := shrunk(name, value)) is not None:
            given[name] = found
    if hasattr(config, "depths") and getattr(config, "_out_features", None):
        given["out_features"] = list(config._out_features)  # stages are kept, each of one layer
    own = {name: value for name, value in overrides.items() if getattr(config, name, None) is not None}
    return given | EXCEPTIONS.get(config.model_type, {}) | own


def shrunk(name: str, value: Any) -> Any:
    """The small value of a field; None to leave it as it is."""
    if value is None:
        return ABSENT.get(name)
    if isinstance(value, bool) or KEEP.fullmatch(name):
        return None
    if name in ("layer_types", "mlp_layer_types"):
        return _kinds(value)
    if name in ("rope_scaling", "rope_parameters") and isinstance(value, dict):
        return _rotary(value)
    if re.fullmatch(r".*token_(id|index)|.*_token_id.*", name):
        return _word(name, value)
    if re.fullmatch(r"(image|img|input)_?size", name) and isinstance(value, (tuple, list)):
        return type(value)([SIDE] * len(value))
    if name == "image_grid_pinpoints":
        return [[SIDE, SIDE]]
    if name == "patch_size":
        return 16 if isinstance(value, int) and value > 8 else None
    if isinstance(value, (tuple, list)):
        return _several(name, value)
    if not isinstance(value, int):
        return None
    for pattern, chosen in RULES:
        if re.fullmatch(pattern, name):
            return None if chosen is None else min(value, chosen) if value > 0 else None
    return None


def _several(name: str, values: Sequence[Any]) -> Any:
    if not values or not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return None
    if re.fullmatch(r"depths?|num_blocks|encoder_blocks.*|blocks_per_stage", name):
        return type(values)([1] * len(values))
    if re.fullmatch(r"decoder_in_channels|embed_dim_per_stage|backbone_channel_list", name):
        return type(values)([WIDTH] * len(values))
    if re.fullmatch(r".*heads", name):
        return type(values)([min(value, HEADS // 2) for value in values])
    if (
        re.fullmatch(r".*(hidden_sizes|conv_dim|embed_dims?|channels|dims?|hidden_dims?)", name)
        and max(values) > WIDTH // 2
    ):
        return type(values)([WIDTH // 2 if value > WIDTH // 2 else value for value in values])
    return None


def _kinds(values: Sequence[str]) -> list[str]:
    """One layer of each kind, as many as there are layers: those of full attention last."""
    kinds = list(dict.fromkeys(values))
    kinds.sort(key=lambda kind: "full" in kind or kind == "sparse")
    return ([kinds[0]] * LAYERS + kinds)[-LAYERS:] if len(kinds) < LAYERS else kinds[-LAYERS:]


def _rotary(value: dict[str, Any]) -> dict[str, Any] | None:
    if "mrope_section" not in value:
        return None
    return {**value, "mrope_section": [2, 3, 3]}


def _word(name: str, value: Any) -> Any:
    """Special words stay within the vocabulary, and those that stand for pictures and sounds do not coincide."""
    if not isinstance(value, int) or value < WORDS - 30:
        return None
    return WORDS - 1 - sum(map(ord, name)) % 29
