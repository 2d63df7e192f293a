"""Numbers of what enters a model, channel by channel, as numbers of tokens and of pixels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from heedmap.capture.tracker import REARRANGED
from heedmap.errors import UnsupportedError
from heedmap.methods.asking import Question
from heedmap.records import Wiring


def placed(
    method: str, entered: Mapping[str, Tensor], asked: Question, wiring: Wiring
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Channels added up: of each stream's tokens, NaN where they are not what entered; and of a picture's pixels.

    `entered`: numbers (batch, token, channel) or (batch, channel, height, width) by the name of the input; (token,
    channel) where all the tokens are of one example.
    """
    pixels = [each.sum(1) for each in entered.values() if each.ndim == 4]
    relevance: dict[str, Tensor] = {}
    for stream, tokens in wiring.entered.items():
        own = entered.get(stream)
        parts = [entered[name] for name in stream.removesuffix(REARRANGED).split("+") if name in entered]
        if own is not None and own.ndim == 2 and len(asked.value) == 1:
            own = own[None]
        if own is not None and own.ndim == 3 and own.shape[1] == tokens:
            relevance[stream] = own.sum(-1)
        elif parts:
            relevance[stream] = parts[0].new_full((asked.examples(stream, wiring), tokens), torch.nan)
    if len(pixels) > 1 or not (pixels or any(not each.isnan().all() for each in relevance.values())):
        met = ", ".join(f"{name} {tuple(each.shape)}" for name, each in entered.items()) or "none that can be scored"
        raise UnsupportedError(
            f"The inputs are {met}. {method} takes models that are given one picture (batch, channel, height, width), "
            "or streams of one input each: a vector for each token, or words that are looked up. Use heed here."
        )
    return relevance, pixels[0] if pixels else None
