"""Tiny random models of many families, each saved with the processors that a checkpoint of it comes with."""

import contextlib
import logging

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

KINDS = ("zebra", "horse", "elephant", "cat", "dog")
LABELS = {"id2label": dict(enumerate(KINDS)), "label2id": {kind: i for i, kind in enumerate(KINDS)}}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
IMAGE = {"image_size": 32, "patch_size": 8}  # 16 patches
SPOKEN = (
    "is there a zebra in the picture? the film wasn't good, it's a well-drawn elephant! unbelievable naïve café".split()
)
PIECES = [
    "un",
    "##believ",
    "##able",
    "na",
    "##ive",
    "cafe",
    "##s",
    "'",
    "-",
    ",",
    "?",
    "!",
    ".",
    "well",
    "drawn",
    "wasn",
]
ENCODER_DECODER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
}  # fmt: skip


def make(name, folder):
    from seers import SEERS

    torch.manual_seed(3)
    logging.disable(logging.WARNING)
    try:
        for part in (MAKERS | LANGUAGE | SEERS)[name]():
            if isinstance(part, torch.nn.Module):
                loud(part)
            part.save_pretrained(folder)
    finally:
        logging.disable(logging.NOTSET)
    return folder


def loud(model):
    """Weights large enough for attention to matter."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad(), contextlib.suppress(StopIteration):
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "backbone" not in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


# ---- processors


def pictures(kind=hf.ViTImageProcessor, **more):
    return kind(**{"size": {"height": 32, "width": 32}, **more})


def word_pieces(kind=hf.BertTokenizer, **more):
    words = dict.fromkeys(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES, *(w.strip("?,!").lower() for w in SPOKEN)]
    )
    return kind(vocab={word: i for i, word in enumerate(words)}, model_max_length=64, **more)


def bytes_of(special, template=None, **named):
    """Byte-level pairs, as GPT-2 and RoBERTa have them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(SPOKEN)] * 4, trainer)
    if template:
        ids = [(token, tokenizer.token_to_id(token)) for token in special]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **named)


def sentence_pieces(special, template, **named):
    """Pieces with a mark where a word begins, as T5 and Llama have them."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([" ".join(SPOKEN)] * 4, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **named)


# ---- pictures


def image_config(kind, **more):
    return kind(**SMALL, **IMAGE, **LABELS, **more)


def vit():
    return hf.ViTForImageClassification(image_config(hf.ViTConfig)), pictures()


def deit():
    """Shorter side to 40, then the middle 32, as DeiT's own does with 256 and 224; two tokens beside the patches."""
    crop = {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}
    config = image_config(hf.DeiTConfig)
    return hf.DeiTForImageClassificationWithTeacher(config), pictures(hf.DeiTImageProcessor, **crop)


def beit():
    config = image_config(hf.BeitConfig, use_relative_position_bias=True)
    return hf.BeitForImageClassification(config), pictures(hf.BeitImageProcessor, do_center_crop=False)


def dinov2_registers():
    options = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    config = hf.Dinov2WithRegistersConfig(**options, **IMAGE, **LABELS, mlp_ratio=2, num_register_tokens=4)
    crop = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    return hf.Dinov2WithRegistersForImageClassification(config), hf.BitImageProcessor(**crop)


def detr():
    backbone = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    config = hf.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, num_queries=5, **LABELS, dropout=0.0, **ENCODER_DECODER
    )
    return hf.DetrForObjectDetection(config), hf.DetrImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})


def features(config):
    """Three levels of a backbone."""
    return config(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip


def deformable_detr():
    config = hf.DeformableDetrConfig(
        use_timm_backbone=False, backbone_config=features(hf.ResNetConfig), num_queries=5, **LABELS, **ENCODER_DECODER,
    )  # fmt: skip
    model = hf.DeformableDetrForObjectDetection(config)
    return model, hf.DeformableDetrImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})


def rt_detr():
    config = hf.RTDetrConfig(
        backbone_config=features(hf.RTDetrResNetConfig), encoder_hidden_dim=16, encoder_in_channels=[8] * 3,
        encoder_layers=1, encoder_ffn_dim=16, encoder_attention_heads=2, d_model=16, num_queries=5,
        decoder_in_channels=[16] * 3, decoder_ffn_dim=16, decoder_layers=2, decoder_attention_heads=2,
        num_denoising=0, anchor_image_size=None, **LABELS,
    )  # fmt: skip
    return hf.RTDetrForObjectDetection(config), hf.RTDetrImageProcessor(size={"height": 96, "width": 96})


def lw_detr():
    backbone = hf.LwDetrViTConfig(
        image_size=64, patch_size=16, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_windows=4,
        window_block_indices=[0], out_features=["stage2"],
    )  # fmt: skip
    config = hf.LwDetrConfig(
        backbone_config=backbone, d_model=16, num_queries=5, decoder_layers=2, decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2, decoder_ffn_dim=16, projector_scale_factors=[1.0], **LABELS,
    )  # fmt: skip
    return hf.LwDetrForObjectDetection(config), hf.DeformableDetrImageProcessor(size={"height": 64, "width": 64})


def yolos():
    config = hf.YolosConfig(**SMALL, **LABELS, image_size=[32, 32], patch_size=8, num_detection_tokens=5)
    return hf.YolosForObjectDetection(config), hf.YolosImageProcessor(size={"height": 32, "width": 32}, do_pad=False)


# ---- pictures with words


def clip_words():
    special = ["<|startoftext|>", "<|endoftext|>"]
    return bytes_of(
        special, "<|startoftext|> $A <|endoftext|>", bos_token=special[0], eos_token=special[1], pad_token=special[1]
    )


def clip():
    words = clip_words()
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    text = SMALL | {"vocab_size": len(words), "max_position_embeddings": 64} | ids
    model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=SMALL | IMAGE, projection_dim=16))
    crop = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return model, hf.CLIPImageProcessor(**crop), words


def siglip():
    words = sentence_pieces(
        ["<pad>", "</s>", "<unk>"], "$A </s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    text = SMALL | {"vocab_size": len(words), "max_position_embeddings": 64, "projection_size": 32}
    model = hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=SMALL | IMAGE))
    return model, pictures(hf.SiglipImageProcessor), words


def lxmert():
    words = word_pieces(hf.LxmertTokenizer)
    options = {key: value for key, value in SMALL.items() if key != "num_hidden_layers"}
    config = hf.LxmertConfig(
        **options, **LABELS, vocab_size=len(words), max_position_embeddings=64, num_qa_labels=len(KINDS),
        l_layers=2, r_layers=1, x_layers=2, visual_feat_dim=12, visual_pos_dim=4,
    )  # fmt: skip
    return hf.LxmertForQuestionAnswering(config), words


def visual_bert():
    words = word_pieces()
    config = hf.VisualBertConfig(
        **SMALL, **LABELS, vocab_size=len(words), max_position_embeddings=64, visual_embedding_dim=12
    )
    return hf.VisualBertForQuestionAnswering(config), words


def vilt():
    words = word_pieces()
    config = hf.ViltConfig(**SMALL, **IMAGE, **LABELS, vocab_size=len(words), max_position_embeddings=64)
    processor = hf.ViltImageProcessor(size={"shortest_edge": 32}, size_divisor=8)
    return hf.ViltForQuestionAnswering(config), processor, words


def blip():
    words = word_pieces(bos_token="[CLS]", eos_token="[SEP]")
    text = SMALL | {"vocab_size": len(words), "max_position_embeddings": 64, "encoder_hidden_size": 32}
    text |= {"bos_token_id": words.cls_token_id, "sep_token_id": words.sep_token_id, "pad_token_id": words.pad_token_id}
    config = hf.BlipConfig(text_config=text, vision_config=SMALL | IMAGE, projection_dim=16)
    return hf.BlipForQuestionAnswering(config), pictures(hf.BlipImageProcessor), words


# ---- words


def text_config(kind, words, **more):
    return kind(**SMALL, **more, vocab_size=len(words), max_position_embeddings=70, pad_token_id=words.pad_token_id)


def bert():
    words = word_pieces()
    return hf.BertForSequenceClassification(text_config(hf.BertConfig, words, **LABELS)), words


def bert_masked():
    words = word_pieces()
    return hf.BertForMaskedLM(text_config(hf.BertConfig, words)), words


def distilbert():
    words = word_pieces()
    config = hf.DistilBertConfig(
        vocab_size=len(words), max_position_embeddings=64, dim=32, hidden_dim=48, n_layers=2, n_heads=4, **LABELS
    )
    return hf.DistilBertForSequenceClassification(config), words


def roberta_words():
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return bytes_of(
        special, "<s> $A </s>", bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip


def roberta():
    words = roberta_words()
    return hf.RobertaForSequenceClassification(text_config(hf.RobertaConfig, words, **LABELS)), words


def roberta_masked():
    words = roberta_words()
    return hf.RobertaForMaskedLM(text_config(hf.RobertaConfig, words)), words


def gpt2():
    words = bytes_of(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    config = hf.GPT2Config(vocab_size=len(words), n_positions=64, n_embd=32, n_layer=2, n_head=4, **ids)
    return hf.GPT2LMHeadModel(config), words


def llama():
    words = sentence_pieces(["<unk>", "<s>", "</s>"], "<s> $A", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    config = hf.LlamaConfig(**SMALL, **ids, vocab_size=len(words), max_position_embeddings=70, num_key_value_heads=2)
    return hf.LlamaForCausalLM(config), words


def t5():
    words = sentence_pieces(
        ["<pad>", "</s>", "<unk>"], "$A </s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    config = hf.T5Config(
        vocab_size=len(words), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
        pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    return hf.T5ForConditionalGeneration(config), words


def bart_options(words):
    return {
        "vocab_size": len(words), "max_position_embeddings": 64, "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id,
        "decoder_start_token_id": words.eos_token_id, "forced_eos_token_id": None,
    }  # fmt: skip


def bart():
    words = roberta_words()
    return hf.BartForConditionalGeneration(hf.BartConfig(**ENCODER_DECODER, **bart_options(words))), words


def marian():
    words = sentence_pieces(
        ["<pad>", "</s>", "<unk>"], "$A </s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    config = hf.MarianConfig(
        **ENCODER_DECODER, vocab_size=len(words), max_position_embeddings=64, pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id, bos_token_id=None, decoder_start_token_id=words.pad_token_id,
        forced_eos_token_id=None,
    )  # fmt: skip
    return hf.MarianMTModel(config), words


# ---- pictures between words


CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def _picture_words():
    return bytes_of(["<|endoftext|>", "<image>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def _speaking(words):
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    return hf.LlamaConfig(**SMALL, **ids, vocab_size=len(words), max_position_embeddings=128, num_key_value_heads=2)


def llava():
    words = _picture_words()
    words.model_max_length = 128
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**SMALL, **IMAGE), text_config=_speaking(words),
        image_token_index=words.convert_tokens_to_ids("<image>"), vision_feature_layer=-2,
    )  # fmt: skip
    crop = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(**crop), tokenizer=words, patch_size=8, image_token="<image>",
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=CHAT,
    )  # fmt: skip
    return hf.LlavaForConditionalGeneration(config), processor


# ---- sounds


def whisper():
    words = roberta_words()
    config = hf.WhisperConfig(
        **ENCODER_DECODER, vocab_size=len(words), num_mel_bins=8, max_source_positions=50, max_target_positions=64,
        pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        decoder_start_token_id=words.bos_token_id,
    )  # fmt: skip
    return hf.WhisperForConditionalGeneration(config), hf.WhisperFeatureExtractor(feature_size=8, chunk_length=1), words


def wav2vec2():
    config = hf.Wav2Vec2Config(
        **SMALL, **LABELS, conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, num_feat_extract_layers=2, vocab_size=20,
    )  # fmt: skip
    return hf.Wav2Vec2ForSequenceClassification(config), hf.Wav2Vec2FeatureExtractor(return_attention_mask=False)


def ast():
    config = hf.ASTConfig(
        **SMALL, **LABELS, num_mel_bins=16, max_length=100, patch_size=8, frequency_stride=8, time_stride=8
    )
    return hf.ASTForAudioClassification(config), hf.ASTFeatureExtractor(num_mel_bins=16, max_length=100)


MAKERS = {
    "vit": vit, "deit": deit, "beit": beit, "dinov2-registers": dinov2_registers, "detr": detr, "yolos": yolos,
    "deformable-detr": deformable_detr, "rt-detr": rt_detr, "lw-detr": lw_detr,
    "clip": clip, "siglip": siglip, "lxmert": lxmert, "visual-bert": visual_bert, "vilt": vilt, "blip": blip,
    "bert": bert, "bert-masked": bert_masked, "distilbert": distilbert, "roberta": roberta,
    "roberta-masked": roberta_masked, "gpt2": gpt2, "llama": llama, "t5": t5, "bart": bart, "marian": marian,
    "whisper": whisper, "wav2vec2": wav2vec2, "ast": ast, "llava": llava,
}  # fmt: skip


# ---- language models: windows, caps, grouped heads

TEMPLATE = (  # as ChatML has it, short enough for 64 places
    "{% for message in messages %}{{ '<|' + message['role'][0] + '|>' + message['content'] | trim + '<|e|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|a|>' }}{% endif %}"
)
WINDOW = 4


def spoken(chat=True):
    """Byte-level pairs with the marks of turns."""
    words = bytes_of(["<|e|>", "<|s|>", "<|u|>", "<|a|>"], eos_token="<|e|>", pad_token="<|e|>")
    words.chat_template = TEMPLATE if chat else None
    return words


def language(kind, model, chat=True, **more):
    words = spoken(chat)
    options = SMALL | {"num_hidden_layers": 3, "num_key_value_heads": 2} | more
    ids = {"bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    config = kind(**options, **ids, vocab_size=len(words), max_position_embeddings=64)
    return model(config), words


def llama_chat():
    return language(hf.LlamaConfig, hf.LlamaForCausalLM)


def qwen2():
    windows = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
    return language(hf.Qwen2Config, hf.Qwen2ForCausalLM, **windows)


def qwen3():
    return language(hf.Qwen3Config, hf.Qwen3ForCausalLM, head_dim=8)


def mistral():
    return language(hf.MistralConfig, hf.MistralForCausalLM, sliding_window=WINDOW)


def gemma2():
    caps = {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 20.0}
    return language(
        hf.Gemma2Config, hf.Gemma2ForCausalLM, head_dim=8, query_pre_attn_scalar=8, sliding_window=WINDOW, **caps
    )


def gemma3():
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    options = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW, "layer_types": kinds}
    return language(hf.Gemma3TextConfig, hf.Gemma3ForCausalLM, **options)


def gpt_neox():
    return language(hf.GPTNeoXConfig, hf.GPTNeoXForCausalLM, chat=False, num_key_value_heads=4)


LANGUAGE = {
    "llama-chat": llama_chat, "qwen2": qwen2, "qwen3": qwen3, "mistral": mistral, "gemma2": gemma2, "gemma3": gemma3,
    "gpt-neox": gpt_neox,
}  # fmt: skip
