"""What the rules of configuring.py do not reach: fields of a family, by the type of its configuration."""

from __future__ import annotations

from typing import Any

RESNET = {  # instead of a backbone that needs a package of its own
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 16, 32, 32],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage4"],
}
DETECTOR = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": RESNET}
ROTARY = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0, "mrope_section": [2, 3, 3]}

_BY_TYPES: dict[tuple[str, ...], dict[str, Any]] = {
    ("detr", "conditional_detr", "dab-detr", "table-transformer", "deformable_detr"): DETECTOR,
    ("lw_detr",): {"projector_scale_factors": [1.0]},
    ("oneformer",): {"conv_dim": 64, "mask_dim": 64, "text_encoder_width": 64},
    ("pp_doclayout_v2",): {"class_thresholds": [0.5] * 2, "class_order": [0, 1]},
    ("pp_doclayout_v3",): {"x4_feat_dim": 32},
    ("glm4v_text", "glm4v_moe_text", "glm_image_text", "glm_ocr_text"): {"rope_parameters": ROTARY},
    ("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text"): {"rope_parameters": ROTARY},
    ("swin", "donut-swin", "maskformer-swin"): {"window_size": 2, "embed_dim": 16},
    ("swinv2",): {"embed_dim": 16},
    ("blip-2", "instructblip", "instructblipvideo"): {"image_token_index": 97, "image_token_id": 97},
    ("musicgen_decoder", "musicgen_melody_decoder"): {"num_codebooks": 1},
    ("gemma3n_text", "gemma4_text", "gemma4_unified_text"): {"num_kv_shared_layers": 0},
    ("moonshine",): {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4},
    ("gemma3",): {"mm_tokens_per_image": 4},
    ("aria",): {"projector_patch_to_query_dict": {16: 4}},
    ("sam_prompt_encoder", "sam_hq_prompt_encoder"): {"image_embedding_size": 4},
    ("audio-spectrogram-transformer",): {"max_length": 64, "num_mel_bins": 32},
    ("xmod",): {"default_language": "en_XX"},
    ("bamba",): {"attn_layer_indices": [1]},
    ("jamba",): {"attn_layer_period": 2, "attn_layer_offset": 1},
    ("granitemoehybrid",): {"layer_types": ["mamba", "attention"]},
    ("zamba",): {"layers_block_type": ["mamba", "hybrid"]},
    ("zamba2",): {"layers_block_type": ["mamba", "hybrid"]},
    ("gpt_neo",): {"attention_types": [[["global"], 2]]},
    ("lilt",): {"hidden_size": 96},
    ("layoutlmv3",): {"coordinate_size": 8, "shape_size": 16},
    ("esm",): {"pad_token_id": 1, "mask_token_id": 4},
}
EXCEPTIONS = {name: fields for names, fields in _BY_TYPES.items() for name in names}
