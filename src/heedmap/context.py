"""What a target may ask about a model: its labels, its masks, whether it looks only back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from heedmap.targets import Context


def context_of(model: nn.Module, inputs: Any, causal: bool) -> Context:
    inner = getattr(model, "_orig_mod", model)
    labels = getattr(getattr(inner, "config", None), "label2id", None)
    return Context(labels if isinstance(labels, Mapping) and labels else None, _mask(inputs), causal)


def names_of(classes: Sequence[int] | None, context: Context) -> tuple[str | int, ...] | None:
    """Predicted classes by their labels, where the model has any."""
    if classes is None:
        return None
    labels = {index: label for label, index in (context.labels or {}).items() if label != f"LABEL_{index}"}
    return tuple(labels.get(index, index) for index in classes)


def _mask(inputs: Any) -> Tensor | None:
    """The mask of the tokens that logits stand on: the decoder's, where there is one."""
    if not isinstance(inputs, Mapping):
        return None
    decodes = any(name.startswith("decoder_input") for name in inputs)
    mask = inputs.get("decoder_attention_mask" if decodes else "attention_mask")
    return mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
