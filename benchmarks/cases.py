"""What is measured: models of random weights, built from their configuration, and one input for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn

PATCH = 16
LABELS = 1000  # classes of a vision model, vocabulary of a language model
CHOSEN = 7  # the logit that is explained
VISION = ("vit", "methods")
DETECTORS = ("detr", "deformable")


@dataclass(frozen=True)
class Case:
    """One model and the shape of its input. `spread` is the standard deviation of the random weights."""

    name: str
    kind: str  # "vit", "lm", "detr", "deformable"; "methods", a ViT for all of them; "command", processes
    tokens: int
    batch: int = 1
    width: int = 384
    heads: int = 6
    layers: int = 12
    spread: float = 0.02
    small: bool = False  # belongs to the quick run
    long: bool = False  # takes many minutes: measured where `--cases` names it

    @property
    def row(self) -> int:
        """The token whose logits are explained: CLS, the first object query, or the last token of a language model."""
        return self.tokens - 1 if self.kind == "lm" else 0

    def value(self, logits: Tensor) -> Tensor:
        """The target, one number per example."""
        if self.kind in VISION:
            return logits[:, CHOSEN]
        return logits[:, self.row if self.kind in DETECTORS else -1, CHOSEN]


CASES = {
    case.name: case
    for case in (
        Case("vit-b-197", "vit", 197, batch=8, width=768, heads=12),
        Case("vit-577", "vit", 577, small=True),
        Case("vit-2305", "vit", 2305),
        Case("vit-4097", "vit", 4097),
        Case("lm-2048", "lm", 2048, small=True),
        Case("lm-8192", "lm", 8192),
        Case("vit-9217", "vit", 9217, long=True),
        Case("lm-16384", "lm", 16384, long=True),
        Case("detr-r50-800", "detr", 850, width=256, heads=8, layers=6),
        Case("deformable-r50-480", "deformable", 6380, width=256, heads=8, layers=6),
        Case("zoo-detr", "detr", 144, width=96, heads=4, layers=2, small=True),
        Case("methods-vit-b", "methods", 197, width=768, heads=12),
        Case("command", "command", 145, small=True),
    )
}

# Not measured by default: large weights show a disagreement that tame ones would hide behind the identity.
TINY = {
    case.name: case
    for case in (
        Case("tiny-vit", "vit", 17, batch=3, width=32, heads=4, layers=3, spread=0.3),
        Case("tiny-methods", "methods", 17, width=32, heads=4, layers=2, spread=0.3),
        Case("tiny-lm", "lm", 19, batch=2, width=32, heads=4, layers=3, spread=0.3),
    )
}

ALL = {**CASES, **TINY}


def build_model(case: Case, device: str, dtype: torch.dtype, attention: str | None = None) -> nn.Module:
    """The case's model in eval mode, always with the same weights; `attention=None` is its own default."""
    torch.manual_seed(0)
    extra = {} if attention is None else {"attn_implementation": attention}
    return MAKES[case.kind](case, extra).to(device=device, dtype=dtype).eval()


def build_inputs(case: Case, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The case's input, as keywords of the model's forward."""
    generator = torch.Generator().manual_seed(1)
    if case.kind == "command":
        return {}
    if case.kind == "lm":
        ids = torch.randint(0, LABELS, (case.batch, case.tokens), generator=generator)
        return {"input_ids": ids.to(device)}
    height, width = (_image_side(case),) * 2 if case.kind in VISION else _detected_size(case)
    pixels = torch.randn(case.batch, 3, height, width, generator=generator)
    return {"pixel_values": pixels.to(device=device, dtype=dtype)}


def _vision_model(case: Case, extra: Mapping[str, str]) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=case.width,
        intermediate_size=4 * case.width,
        num_attention_heads=case.heads,
        num_hidden_layers=case.layers,
        image_size=_image_side(case),
        patch_size=PATCH,
        num_labels=LABELS,
        initializer_range=case.spread,
        **extra,
    )
    return ViTForImageClassification(config)


def _language_model(case: Case, extra: Mapping[str, str]) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=case.width,
        intermediate_size=8 * case.width // 3,
        num_attention_heads=case.heads,
        num_hidden_layers=case.layers,
        max_position_embeddings=case.tokens,
        vocab_size=LABELS,
        initializer_range=case.spread,
        use_cache=False,
        **extra,
    )
    return LlamaForCausalLM(config)


def _detector(case: Case, extra: Mapping[str, str]) -> nn.Module:
    """facebook/detr-resnet-50 as its configuration has it, with random weights; or the zoo's, as it learned."""
    import transformers
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    if case.name == "zoo-detr":
        from heedmap.installs import quiet
        from heedmap.zoo import path

        with quiet(transformers):
            return DetrForObjectDetection.from_pretrained(path("detr"), **extra)
    backbone = ResNetConfig(out_features=["stage4"])
    named = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    return DetrForObjectDetection(DetrConfig(**named, backbone_config=backbone, num_labels=91, **extra))


def _deformable(case: Case, extra: Mapping[str, str]) -> nn.Module:
    """SenseTime/deformable-detr as its configuration has it, with random weights."""
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(out_features=["stage2", "stage3", "stage4"])
    named = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    return DeformableDetrForObjectDetection(
        DeformableDetrConfig(**named, backbone_config=backbone, num_labels=91, **extra)
    )


def _none(case: Case, extra: Mapping[str, str]) -> nn.Module:
    """A command loads its own."""
    return nn.Identity()


MAKES = {
    "vit": _vision_model,
    "methods": _vision_model,
    "lm": _language_model,
    "detr": _detector,
    "deformable": _deformable,
    "command": _none,
}


def _image_side(case: Case) -> int:
    return PATCH * isqrt(case.tokens - 1)


def _detected_size(case: Case) -> tuple[int, int]:
    """Height and width in pixels: a picture of 4 by 3, or a drawn scene."""
    sizes = {"zoo-detr": (96, 96), "deformable-r50-480": (480, 640)}
    return sizes.get(case.name, (800, 1066))
