"""Tiny random models of many families, each with what a person reads off its architecture.

One `Family` per entry: how to build it, what to feed it, which tokens it has, and one `Step` per attention call in
call order. Nothing here is found out by running code: the table is the claim that the tests measure against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from dense import Step
from torch import Tensor, nn

LAYERS = 2
SMALL = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 48}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
IMAGE = {"image_size": 12, "patch_size": 4}  # 9 patches
CLASSES = 5


@dataclass(frozen=True)
class Ask:
    """What is asked of each example: one logit, a different one for each, several times over.

    A map grows with its target: at `times` 1 the maps of these models are small beside the identity, and products
    of two maps, which tell one wiring from another, smaller still.
    """

    index: tuple[int, ...] = (3, 1, 4)
    query: int | None = None
    position: int | None = None
    last: tuple[int, ...] | None = None  # the position that is meant where none is named
    field: str = "logits"
    times: float = 20.0

    def __call__(self, output: Any) -> Tensor:
        logits = output if torch.is_tensor(output) else output[self.field]
        rows = []
        for example in range(len(logits)):
            at = [self.query, self.position, self.last[example] if self.last else None]
            at = [place for place in at if place is not None]
            rows.append(logits[(example, *at, self.index[example])])
        return self.times * torch.stack(rows)


@dataclass(frozen=True)
class Family:
    """A tiny model and the truth about its attention."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], dict[str, Tensor]]
    tokens: Mapping[str, int]  # stream -> tokens, in the order in which attention first meets the streams
    steps: tuple[Step, ...]
    ask: Ask = Ask()
    ends: tuple[int, ...] = (-1,)  # the steps whose result the target reads
    eager: bool = True  # it has a form without the fused call
    returned: bool = False  # and then it returns the weights of every call

    def model(self) -> nn.Module:
        torch.manual_seed(11)
        model = self.build().eval()
        settle(model)
        return model


def settle(model: nn.Module, std: float = 0.2) -> None:
    """Weights large enough for attention to matter: every matrix anew, biases and norms off their neutral values.

    A convolutional backbone keeps its own initialisation: its frozen norms would not hold larger weights.
    """
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "backbone" in name or parameter.dim() == 0:
                continue
            if parameter.dim() == 1:
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_(std * noise)


# --------------------------------------------------------------------------------------- inputs


BATCH = 3  # the largest batch; a smaller one is its beginning


def numbers(batch: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randn((BATCH, *shape), generator=torch.Generator().manual_seed(seed))[:batch]


def ids(batch: int, length: int, seed: int = 2) -> Tensor:
    return torch.randint(5, 36, (BATCH, length), generator=torch.Generator().manual_seed(seed))[:batch]


def lengths(batch: int, length: int) -> Tensor:
    """How many tokens are real: never all of them in the first example, so that batch 1 has padding too."""
    return torch.tensor([length - 2, length, length - 3])[:batch]


def padding(batch: int, length: int, left: bool = False) -> Tensor:
    mask = (torch.arange(length) < lengths(batch, length)[:, None]).long()
    return mask.flip(-1) if left else mask


def padded_ids(batch: int, length: int, pad: int = 0) -> Tensor:
    return ids(batch, length).masked_fill(padding(batch, length) == 0, pad)


def image(batch: int) -> dict[str, Tensor]:
    return {"pixel_values": numbers(batch, 3, 12, 12)}


def video(batch: int) -> dict[str, Tensor]:
    return {"pixel_values": numbers(batch, 4, 3, 8, 8)}


def text(batch: int) -> dict[str, Tensor]:
    return {"input_ids": padded_ids(batch, 7), "attention_mask": padding(batch, 7)}


def roberta_text(batch: int) -> dict[str, Tensor]:
    return text(batch) | {"input_ids": padded_ids(batch, 7, pad=1)}


def llama_text(batch: int) -> dict[str, Tensor]:
    mask = padding(batch, 7, left=True)
    return {
        "input_ids": ids(batch, 7),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
    }


def llama_plain(batch: int) -> dict[str, Tensor]:
    return {"input_ids": ids(batch, 7), "position_ids": torch.arange(3, 10).expand(batch, 7)}


def text_to_text(batch: int) -> dict[str, Tensor]:
    return text(batch) | {"decoder_input_ids": ids(batch, 4, seed=3)}


def speech(batch: int) -> dict[str, Tensor]:
    return {"input_features": numbers(batch, 8, 18), "decoder_input_ids": ids(batch, 4, seed=3)}


def captions(batch: int) -> dict[str, Tensor]:
    """A text that ends with token 39 after its last real token."""
    ends = lengths(batch, 7) - 1
    tokens = padded_ids(batch, 7).scatter(1, ends[:, None], 39)
    return {"input_ids": tokens, "attention_mask": padding(batch, 7)} | image(batch)


def photo(batch: int) -> dict[str, Tensor]:
    """96 x 64 pixels, 3 x 2 cells of 32; some examples are shorter or narrower."""
    mask = torch.ones(batch, 96, 64, dtype=torch.long)
    mask[0, 64:] = 0
    if batch > 2:
        mask[2, :, 32:] = 0
    return {"pixel_values": numbers(batch, 3, 96, 64), "pixel_mask": mask}


def question(batch: int) -> dict[str, Tensor]:
    return text(batch) | {
        "visual_feats": numbers(batch, 5, 12),
        "visual_pos": numbers(batch, 5, 4).abs(),
        "visual_attention_mask": padding(batch, 5),
    }


def visual_question(batch: int) -> dict[str, Tensor]:
    return text(batch) | {
        "visual_embeds": numbers(batch, 4, 12),
        "visual_attention_mask": torch.ones(batch, 4, dtype=torch.long),
        "visual_token_type_ids": torch.ones(batch, 4, dtype=torch.long),
    }


def patch_question(batch: int) -> dict[str, Tensor]:
    mask = torch.ones(batch, 12, 12, dtype=torch.long)
    if batch > 1:
        mask[1, :, 4:] = 0
    return text(batch) | image(batch) | {"pixel_mask": mask}


def vectors(batch: int) -> dict[str, Tensor]:
    return {"x": numbers(batch, 6, 8)}


def padded_vectors(batch: int) -> dict[str, Tensor]:
    return vectors(batch) | {"ignored": padding(batch, 6) == 0}


def pairs(batch: int) -> dict[str, Tensor]:
    return {"source": numbers(batch, 6, 8), "target": numbers(batch, 4, 8, seed=4)}


# --------------------------------------------------------------------------------------- models of transformers


def image_config(kind: type, **more: Any) -> Any:
    return kind(**SMALL, **IMAGE, **NO_DROPOUT, initializer_range=0.2, num_labels=CLASSES, **more)


def text_config(kind: type, **more: Any) -> Any:
    options = SMALL | {"vocab_size": 40, "initializer_range": 0.2, "num_labels": CLASSES}
    return kind(**options, max_position_embeddings=20, **more)


def vit():
    return hf.ViTForImageClassification(image_config(hf.ViTConfig))


def deit():
    return hf.DeiTForImageClassification(image_config(hf.DeiTConfig))


def beit():
    more = {"use_relative_position_bias": True, "layer_scale_init_value": 0.5, "drop_path_rate": 0.0}
    return hf.BeitForImageClassification(image_config(hf.BeitConfig, **more))


def beit_shared():
    more = {"use_shared_relative_position_bias": True, "layer_scale_init_value": 0.5, "drop_path_rate": 0.0}
    return hf.BeitForImageClassification(image_config(hf.BeitConfig, **more, use_mean_pooling=False))


def dinov2():
    options = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    config = hf.Dinov2Config(
        **options, **IMAGE, **NO_DROPOUT, mlp_ratio=2, layerscale_value=0.5, initializer_range=0.2, num_labels=CLASSES
    )
    return hf.Dinov2ForImageClassification(config)


def dinov2_registers():
    options = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    config = hf.Dinov2WithRegistersConfig(
        **options, **IMAGE, **NO_DROPOUT, mlp_ratio=2, num_register_tokens=3, layerscale_value=0.5,
        initializer_range=0.2, num_labels=CLASSES,
    )  # fmt: skip
    return hf.Dinov2WithRegistersForImageClassification(config)


def videomae():
    config = hf.VideoMAEConfig(
        **SMALL, **NO_DROPOUT, image_size=8, patch_size=4, num_frames=4, tubelet_size=2, num_labels=CLASSES
    )
    return hf.VideoMAEForVideoClassification(config)


def bert():
    return hf.BertForSequenceClassification(text_config(hf.BertConfig, **NO_DROPOUT))


def roberta():
    return hf.RobertaForSequenceClassification(text_config(hf.RobertaConfig, **NO_DROPOUT))


def distilbert():
    config = hf.DistilBertConfig(
        vocab_size=40, max_position_embeddings=20, dim=32, hidden_dim=48, n_layers=LAYERS, n_heads=4, dropout=0.0
    )
    config.num_labels = CLASSES
    return hf.DistilBertForSequenceClassification(config)


def gpt2_config():
    return hf.GPT2Config(
        vocab_size=40, n_positions=20, n_embd=32, n_layer=LAYERS, n_head=4, num_labels=CLASSES, initializer_range=0.2
    )


def gpt2():
    return hf.GPT2LMHeadModel(gpt2_config())


def gpt2_classifier():
    config = gpt2_config()
    config.pad_token_id = 0
    return hf.GPT2ForSequenceClassification(config)


def llama():
    return hf.LlamaForCausalLM(text_config(hf.LlamaConfig, num_key_value_heads=2))


def t5():
    config = hf.T5Config(
        vocab_size=40, d_model=32, d_kv=8, d_ff=48, num_layers=LAYERS, num_heads=4, relative_attention_num_buckets=8
    )
    return hf.T5ForConditionalGeneration(config)


ENCODER_DECODER = {
    "d_model": 32,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "init_std": 0.2,
}


def bart():
    config = hf.BartConfig(vocab_size=40, max_position_embeddings=20, dropout=0.0, **ENCODER_DECODER)
    return hf.BartForConditionalGeneration(config)


def whisper():
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = hf.WhisperConfig(
        vocab_size=40, num_mel_bins=8, max_source_positions=9, max_target_positions=20, **special, **ENCODER_DECODER
    )
    return hf.WhisperForConditionalGeneration(config)


def clip():
    words = SMALL | {"vocab_size": 40, "max_position_embeddings": 7, "eos_token_id": 39, "pad_token_id": 0}
    return hf.CLIPModel(hf.CLIPConfig(text_config=words, vision_config=SMALL | IMAGE, projection_dim=16))


def siglip():
    words = SMALL | {"vocab_size": 40, "max_position_embeddings": 7, "projection_size": 32}
    return hf.SiglipModel(hf.SiglipConfig(text_config=words, vision_config=SMALL | IMAGE))


def siglip_vision():
    return hf.SiglipVisionModel(hf.SiglipVisionConfig(**SMALL, **IMAGE))


def siglip_classifier():
    config = hf.SiglipConfig(text_config=SMALL | {"vocab_size": 40}, vision_config=SMALL | IMAGE, num_labels=CLASSES)
    return hf.SiglipForImageClassification(config)


def detr():
    backbone = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    config = hf.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, num_queries=5, num_labels=4, dropout=0.0, **ENCODER_DECODER
    )
    return hf.DetrForObjectDetection(config)


def lxmert():
    options = {key: value for key, value in SMALL.items() if key != "num_hidden_layers"}
    config = hf.LxmertConfig(
        **options, **NO_DROPOUT, vocab_size=40, max_position_embeddings=20, initializer_range=0.2,
        num_qa_labels=CLASSES, l_layers=2, r_layers=1, x_layers=2, visual_feat_dim=12, visual_pos_dim=4,
    )  # fmt: skip
    return hf.LxmertForQuestionAnswering(config)


def visual_bert():
    config = text_config(hf.VisualBertConfig, visual_embedding_dim=12, **NO_DROPOUT)
    return hf.VisualBertForQuestionAnswering(config)


def vilt():
    return hf.ViltForQuestionAnswering(text_config(hf.ViltConfig, **IMAGE, **NO_DROPOUT))


def blip_vision():
    return hf.BlipVisionModel(hf.BlipVisionConfig(**SMALL, **IMAGE, initializer_range=0.2))


# --------------------------------------------------------------------------------------- models of plain torch


class Encoder(nn.Module):
    """torch's own encoder, its first token read out."""

    def __init__(self, batch_first: bool):
        super().__init__()
        self.batch_first = batch_first
        self.embed = nn.Linear(8, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x, ignored=None):
        x = self.embed(x)
        if self.batch_first:
            x = self.encoder(x, src_key_padding_mask=ignored)
        else:
            x = self.encoder(x.transpose(0, 1), src_key_padding_mask=ignored).transpose(0, 1)
        return self.head(x[:, 0])


class Translator(nn.Module):
    """torch's own encoder and decoder, the last target token read out."""

    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Linear(8, 16), nn.Linear(8, 16)
        self.transformer = nn.Transformer(16, 2, LAYERS, LAYERS, 24, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, source, target):
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=target.dtype)
        x = self.transformer(self.source(source), self.target(target), tgt_mask=causal, tgt_is_causal=True)
        return self.head(x[:, -1])


class OneHead(nn.Module):
    """Written by hand: softmax and @ on (batch, token, channel), one head, all tokens averaged."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([nn.Linear(8, 24), nn.Linear(8, 8)]) for _ in range(3))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        for qkv, mlp in self.layers:
            q, k, v = qkv(x).chunk(3, dim=-1)
            x = x + (q @ k.transpose(1, 2) / 8**0.5).softmax(dim=-1) @ v
            x = x + torch.tanh(mlp(x))
        return self.head(x.mean(dim=1))


class ManyHeads(nn.Module):
    """Written by hand: softmax and matmul on (batch, head, token, channel), a causal mask added, dropout between."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([nn.Linear(8, 24), nn.Linear(8, 8)]) for _ in range(3))
        self.dropout, self.softmax = nn.Dropout(0.1), nn.Softmax(dim=-1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        batch, n, d = x.shape
        mask = torch.full((n, n), float("-inf"), dtype=x.dtype).triu(1)
        for qkv, out in self.layers:
            q, k, v = qkv(x).view(batch, n, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
            weights = self.dropout(self.softmax(torch.matmul(q, k.transpose(-1, -2)) / 2 + mask))
            x = x + out(torch.matmul(weights, v).transpose(1, 2).reshape(batch, n, d))
        return self.head(x[:, -1])


class Fused(nn.Module):
    """Written by hand on the fused call: grouped heads, a scale of its own, and a mask that blinds token 2."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([nn.Linear(8, 16), nn.Linear(8, 8)]) for _ in range(3))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        batch, n, d = x.shape
        mask = torch.ones(n, n, dtype=torch.bool)
        mask[2] = False
        mask[0, 4:] = False
        for qkv, out in self.layers:
            q, k, v = qkv(x).split([8, 4, 4], dim=-1)
            q, k, v = (part.view(batch, n, -1, 2).transpose(1, 2) for part in (q, k, v))
            y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.9, enable_gqa=True)
            x = x + out(y.transpose(1, 2).reshape(batch, n, d))
        return self.head(x[:, 0])


# --------------------------------------------------------------------------------------- what each one does


def homogenous(stream: str, layers: int = LAYERS) -> tuple[Step, ...]:
    return (Step(stream, stream),) * layers


def heterogenous(reading: str, read: str, layers: int = LAYERS) -> tuple[Step, ...]:
    """A decoder: in every layer it first reads itself, then the other stream."""
    return (Step(reading, reading), Step(reading, read)) * layers


def co_attention(text: str, image: str, layers: int = 2) -> tuple[Step, ...]:
    """LXMERT's cross-modality layers: both directions read the old states, then each stream reads itself."""
    layer = (Step(text, image), Step(image, text, together=True), Step(text, text), Step(image, image))
    return layer * layers


PATCHES_AND_CLS = {"image": 10}
WORDS = {"text": 7}
SELF_IMAGE, SELF_TEXT = homogenous("image"), homogenous("text")
DECODED = SELF_TEXT + heterogenous("decoder", "text")
ENCODED = {"text": 7, "decoder": 4}
NEXT = Ask(last=(4, 6, 3))  # the last real token of a text padded on its right
DIAGONAL = {"index": (0, 1, 2)}  # each image with its own text

FAMILIES = (
    Family("vit", vit, image, PATCHES_AND_CLS, SELF_IMAGE, returned=True),
    Family("deit", deit, image, {"image": 11}, SELF_IMAGE, returned=True),
    Family("beit", beit, image, PATCHES_AND_CLS, SELF_IMAGE, returned=True),
    Family("beit-shared", beit_shared, image, PATCHES_AND_CLS, SELF_IMAGE, returned=True),
    Family("dinov2", dinov2, image, PATCHES_AND_CLS, SELF_IMAGE, returned=True),
    Family("dinov2-registers", dinov2_registers, image, {"image": 13}, SELF_IMAGE, returned=True),
    Family("videomae", videomae, video, {"video": 8}, homogenous("video"), returned=True),
    Family("bert", bert, text, WORDS, SELF_TEXT, returned=True),
    Family("roberta", roberta, roberta_text, WORDS, SELF_TEXT, returned=True),
    Family("distilbert", distilbert, text, WORDS, SELF_TEXT, returned=True),
    Family("gpt2", gpt2, text, WORDS, SELF_TEXT, NEXT, returned=True),
    Family("gpt2-classifier", gpt2_classifier, text, WORDS, SELF_TEXT, returned=True),
    Family("llama", llama, llama_plain, WORDS, SELF_TEXT, Ask(last=(6, 6, 6)), returned=True),
    Family("llama-padded", llama, llama_text, WORDS, SELF_TEXT, Ask(last=(6, 6, 6)), returned=True),
    Family("t5", t5, text_to_text, ENCODED, DECODED, Ask(position=2), returned=True),
    Family("bart", bart, text_to_text, ENCODED, DECODED, Ask(last=(3, 3, 3)), returned=True),
    Family("whisper", whisper, speech, {"text": 9, "decoder": 4}, DECODED, Ask(position=1), returned=True),
    Family(
        "clip", clip, captions, {"image": 10, "text": 7}, SELF_IMAGE + SELF_TEXT,
        Ask(field="logits_per_image", **DIAGONAL), ends=(1, 3), returned=True,
    ),
    Family(
        "siglip", siglip, captions, {"image": 9, "probe": 1, "text": 7},
        (*SELF_IMAGE, Step("probe", "image"), *SELF_TEXT), Ask(field="logits_per_image", **DIAGONAL), ends=(2, 4),
    ),
    Family(
        "siglip-vision", siglip_vision, image, {"image": 9, "probe": 1}, (*SELF_IMAGE, Step("probe", "image")),
        Ask(field="pooler_output"),
    ),
    Family(
        "siglip-classifier", siglip_classifier, image, {"image": 9, "probe": 1},  # its pooling head runs unread
        (*SELF_IMAGE, Step("probe", "image")), ends=(1,),
    ),
    Family(
        "detr", detr, photo, {"image": 6, "queries": 5}, SELF_IMAGE + heterogenous("queries", "image"),
        Ask(query=2), returned=True,
    ),
    Family(
        "lxmert", lxmert, question, {"text": 7, "image": 5},
        homogenous("text", 2) + homogenous("image", 1) + co_attention("text", "image"),
        Ask(field="question_answering_score"), ends=(-2,),
    ),
    Family("visual-bert", visual_bert, visual_question, {"text+image": 11}, homogenous("text+image"), returned=True),
    Family("vilt", vilt, patch_question, {"text+image": 17}, homogenous("text+image"), returned=True),
    Family("blip-vision", blip_vision, image, PATCHES_AND_CLS, SELF_IMAGE, Ask(field="pooler_output")),
    Family("nn-encoder", lambda: Encoder(True), padded_vectors, {"x": 6}, homogenous("x")),
    Family("nn-encoder-time-first", lambda: Encoder(False), padded_vectors, {"x": 6}, homogenous("x")),
    Family("nn-encoder-unmasked", lambda: Encoder(True), vectors, {"x": 6}, homogenous("x")),
    Family(
        "nn-transformer", Translator, pairs, {"source": 6, "target": 4},
        homogenous("source") + heterogenous("target", "source"),
    ),
    Family("hand-one-head", OneHead, vectors, {"x": 6}, homogenous("x", 3)),
    Family("hand-many-heads", ManyHeads, vectors, {"x": 6}, homogenous("x", 3)),
    Family("hand-fused", Fused, vectors, {"x": 6}, homogenous("x", 3), eager=False),
)  # fmt: skip

BY_NAME = {family.name: family for family in FAMILIES}
