"""What a decoder's answers open with, whatever is asked: the tokens that its generation config puts there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from heedmap.errors import InputError, ModelError


def openings(module: Any, inputs: Mapping[str, Tensor], count: int) -> list[list[int]]:
    """The tokens before the first word of each answer.

    The start token; a first token that is forced; for a model of many languages that hears (Whisper), the language
    (the one its generation config names, else the one it hears), the task, and that no times are written.
    """
    settings: Any = getattr(module, "generation_config", None)
    start = _start(module)
    if getattr(settings, "lang_to_id", None):
        spoken = _languages(module, settings, inputs, count)
        task = settings.task_to_id[getattr(settings, "task", None) or "transcribe"]
        return [[*start, language, task, settings.no_timestamps_token_id] for language in spoken]
    if module.config.model_type == "whisper":
        forced = getattr(settings, "no_timestamps_token_id", None)
    else:
        forced = getattr(settings, "forced_bos_token_id", None)
    return [[*start, *([] if forced is None else [forced])]] * count


def _start(module: Any) -> list[int]:
    for settings in (getattr(module, "generation_config", None), module.config):
        start = getattr(settings, "decoder_start_token_id", None)
        if start is not None:
            return list(start) if isinstance(start, list) else [start]
    raise ModelError(
        "The model's config names no decoder_start_token_id. heedmap expected the token that its answers begin with: "
        "set it in the config."
    )


def _languages(module: Any, settings: Any, inputs: Mapping[str, Tensor], count: int) -> list[int]:
    """The token of the language that each sound is in."""
    named = getattr(settings, "language", None)
    if named is None:
        with torch.no_grad():
            return module.detect_language(input_features=inputs["input_features"]).tolist()
    token = named if named in settings.lang_to_id else f"<|{named}|>"
    if token not in settings.lang_to_id:
        raise InputError(
            f"The model's generation config names the language {named!r}. heedmap expected a code it has a token for, "
            f"such as {', '.join(name.strip('<|>') for name in list(settings.lang_to_id)[:4])}."
        )
    return [settings.lang_to_id[token]] * count
