"""Tiny random models that read pictures between the words of a text, each with a processor as its checkpoints have."""

import transformers as hf
from folders import CHAT, SMALL, bytes_of
from transformers.models.smolvlm import processing_smolvlm

from heedmap.families.processors import for_pictures

processing_smolvlm.num2words = processing_smolvlm.num2words or object()  # it spells the times of videos alone

SEEN = {**SMALL, "image_size": 16, "patch_size": 4}  # 16 patches to a picture or tile
SIDE = {"height": 16, "width": 16}
TURNED = {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"}}
SQUARES = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3}


def said(*marks, **more):
    """Byte-level pairs with a mark for a picture, and what else stands around one."""
    special = ["<|endoftext|>", *marks]
    words = bytes_of(special, eos_token=special[0], bos_token=special[0], pad_token=special[0], **more)
    words.model_max_length = 1024
    return words


def speaking(kind, words, **more):
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    options = {"vocab_size": len(words), "max_position_embeddings": 1024, "num_key_value_heads": 2} | ids
    return kind(**SMALL, **options, **more)


def chat(image):
    return CHAT.replace("<image>", image)


# ---- patches in squares


QWEN = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")


def qwen(config, model, processor, seeing, **told):
    words = said(*QWEN)
    ids = [words.convert_tokens_to_ids(mark) for mark in QWEN]
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    text = {**speaking(hf.Qwen2Config, words, **told).to_dict(), **TURNED}
    made = config(vision_config={**SQUARES, **seeing}, text_config=text, **dict(zip(names, ids, strict=True)))
    pictures = hf.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 16 * 16, "longest_edge": 48 * 48}, patch_size=4, merge_size=2, temporal_patch_size=2
    )
    template = chat("<|vision_start|><|image_pad|><|vision_end|>")
    return model(made), for_pictures(processor)(
        image_processor=pictures, tokenizer=words, video_processor=None, chat_template=template
    )


def qwen2_vl():
    seeing = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2}
    return qwen(hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration, hf.Qwen2VLProcessor, seeing)


def qwen2_5_vl():
    seeing = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "window_size": 16,
        "fullatt_block_indexes": [1], "out_hidden_size": 32,
    }  # fmt: skip
    return qwen(hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLForConditionalGeneration, hf.Qwen2_5_VLProcessor, seeing)


def qwen3_vl():
    seeing = {
        "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    return qwen(hf.Qwen3VLConfig, hf.Qwen3VLForConditionalGeneration, hf.Qwen3VLProcessor, seeing, head_dim=8)


GLM = (
    "<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"
)  # fmt: skip


def glm4v():
    words = said(*GLM)
    names = ("image_token_id", "video_token_id", "image_start_token_id", "image_end_token_id")
    ids = {name: words.convert_tokens_to_ids(mark) for name, mark in zip(names, GLM, strict=False)}
    seeing = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32, "image_size": 16,
    }  # fmt: skip
    turned = {"rope_type": "default", "mrope_section": [1, 1, 2], "partial_rotary_factor": 1.0, "rope_theta": 10000.0}
    text = speaking(hf.Qwen2Config, words).to_dict() | {"rope_parameters": turned}
    del text["model_type"]
    made = hf.Glm4vConfig(vision_config={**SQUARES, **seeing}, text_config=text, **ids)
    pictures = hf.Glm4vImageProcessorPil(
        size={"shortest_edge": 2 * 16 * 16, "longest_edge": 2 * 48 * 48},
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
    )
    processor = for_pictures(hf.Glm4vProcessor)(
        image_processor=pictures, tokenizer=words, video_processor=None, chat_template=chat("".join(GLM[2:3] + GLM[:1]))
    )
    return hf.Glm4vForConditionalGeneration(made), processor


# ---- tiles


def idefics(config, model, processor, pictures, splitting):
    words = said("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    words.add_tokens([f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)])
    made = config(
        vision_config=SEEN, text_config=speaking(hf.LlamaConfig, words), scale_factor=2,
        image_token_id=words.convert_tokens_to_ids("<image>"), pad_token_id=words.pad_token_id,
    )  # fmt: skip
    pictures = pictures(size={"longest_edge": 48}, max_image_size={"longest_edge": 16}, do_image_splitting=splitting)
    none = {} if processor is hf.Idefics3Processor else {"video_processor": None}
    return model(made), (for_pictures(processor) if none else processor)(
        image_processor=pictures, tokenizer=words, image_seq_len=4, chat_template=chat("<image>"), **none
    )


def idefics3(splitting=True):
    kinds = hf.Idefics3Config, hf.Idefics3ForConditionalGeneration, hf.Idefics3Processor, hf.Idefics3ImageProcessorPil
    return idefics(*kinds, splitting)


def smolvlm(splitting=True):
    kinds = hf.SmolVLMConfig, hf.SmolVLMForConditionalGeneration, hf.SmolVLMProcessor, hf.SmolVLMImageProcessorPil
    return idefics(*kinds, splitting)


def internvl():
    marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    words = said(*marks.values(), "<video>", extra_special_tokens={**marks, "video_token": "<video>"})
    made = hf.InternVLConfig(
        vision_config=SEEN | {"image_size": [16, 16], "patch_size": [4, 4]}, downsample_ratio=0.5,
        text_config=speaking(hf.Qwen2Config, words), image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )  # fmt: skip
    pictures = hf.GotOcr2ImageProcessorPil(size=SIDE, crop_to_patches=True, min_patches=1, max_patches=6)
    processor = for_pictures(hf.InternVLProcessor)(
        image_processor=pictures,
        tokenizer=words,
        video_processor=None,
        image_seq_length=4,
        chat_template=chat("<IMG_CONTEXT>"),
    )
    return hf.InternVLForConditionalGeneration(made), processor


PINPOINTS = [[16, 16], [16, 32], [32, 16], [32, 32], [16, 48], [48, 16]]


def llava_next():
    words = said("<image>")
    made = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**SEEN), text_config=speaking(hf.LlamaConfig, words), vision_feature_layer=-2,
        image_token_index=words.convert_tokens_to_ids("<image>"), image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    pictures = hf.LlavaNextImageProcessorPil(size={"shortest_edge": 16}, crop_size=SIDE, image_grid_pinpoints=PINPOINTS)
    processor = hf.LlavaNextProcessor(
        pictures, words, patch_size=4, vision_feature_select_strategy="default", chat_template=CHAT,
        num_additional_image_tokens=1,
    )  # fmt: skip
    return hf.LlavaNextForConditionalGeneration(made), processor


def llava_onevision():
    words = said("<image>", "<video>")
    vision = hf.SiglipVisionConfig(**SEEN, vision_use_head=False)
    made = hf.LlavaOnevisionConfig(
        vision_config=vision, text_config=speaking(hf.Qwen2Config, words), image_grid_pinpoints=PINPOINTS,
        image_token_index=words.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
        video_token_index=words.convert_tokens_to_ids("<video>"), vision_feature_select_strategy="full",
    )  # fmt: skip
    pictures = hf.LlavaOnevisionImageProcessorPil(size=SIDE, image_grid_pinpoints=PINPOINTS)
    processor = for_pictures(hf.LlavaOnevisionProcessor)(
        image_processor=pictures, tokenizer=words, video_processor=None, num_image_tokens=16, chat_template=CHAT,
        vision_feature_select_strategy="full",
    )  # fmt: skip
    return hf.LlavaOnevisionForConditionalGeneration(made), processor


# ---- one picture


def paligemma():
    words = said("<image>")
    pictures = hf.SiglipImageProcessorPil(size=SIDE)
    pictures.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(pictures, words)
    vision = hf.SiglipVisionConfig(**SEEN, vision_use_head=False)
    made = hf.PaliGemmaConfig(
        vision_config=vision, text_config=speaking(hf.GemmaConfig, words, head_dim=8), projection_dim=32,
        hidden_size=32, image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return hf.PaliGemmaForConditionalGeneration(made), processor


def gemma3():
    marks = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = said(*marks.values(), extra_special_tokens=marks)
    vision = hf.SiglipVisionConfig(**SEEN, vision_use_head=False)
    made = hf.Gemma3Config(
        vision_config=vision, mm_tokens_per_image=4,
        image_token_index=words.convert_tokens_to_ids(marks["image_token"]),
        text_config=speaking(hf.Gemma3TextConfig, words, head_dim=8, query_pre_attn_scalar=8),
    )  # fmt: skip
    pictures = hf.Gemma3ImageProcessorPil(size=SIDE)
    processor = hf.Gemma3Processor(pictures, words, image_seq_length=4, chat_template=chat("<start_of_image>"))
    return hf.Gemma3ForConditionalGeneration(made), processor


ASKING = {**SMALL, "encoder_hidden_size": 32, "cross_attention_frequency": 1}


def blip(config, model, words, vocabulary):
    text = {
        "model_type": "opt", "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": len(words), "word_embed_proj_dim": 32, "max_position_embeddings": 128, "dropout": 0.0,
        "pad_token_id": words.pad_token_id, "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id,
    }  # fmt: skip
    made = config(
        vision_config=SEEN, qformer_config={**ASKING, "vocab_size": vocabulary}, text_config=text, num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return model(made)


def blip2():
    words = said("<image>")
    processor = hf.Blip2Processor(hf.BlipImageProcessorPil(size=SIDE), words, num_query_tokens=4)
    return blip(hf.Blip2Config, hf.Blip2ForConditionalGeneration, words, 50), processor


def instructblip():
    words, asked = said("<image>"), said()
    pictures = hf.BlipImageProcessorPil(size=SIDE)
    processor = hf.InstructBlipProcessor(pictures, words, asked, num_query_tokens=4)
    return blip(hf.InstructBlipConfig, hf.InstructBlipForConditionalGeneration, words, len(asked)), processor


SEERS = {
    "qwen2-vl": qwen2_vl, "qwen2.5-vl": qwen2_5_vl, "qwen3-vl": qwen3_vl, "glm-4v": glm4v, "idefics3": idefics3,
    "smolvlm": smolvlm, "smolvlm-whole": lambda: smolvlm(splitting=False), "internvl": internvl,
    "llava-next": llava_next, "llava-onevision": llava_onevision, "paligemma": paligemma, "gemma3-vlm": gemma3,
    "blip-2": blip2, "instructblip": instructblip,
}  # fmt: skip
