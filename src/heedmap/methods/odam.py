"""ODAM, the baseline: gradient-weighted Object Detector Activation Maps (Zhao et al., TPAMI 2024).

Of the features F of a picture, one vector of channels for each token, and an answer Y

    M = max(sum over channels of (dY / dF) * F, 0)

element by element: Grad-CAM would first average the gradient over the tokens. It reads no attention, and has no sign.
It needs tokens of a picture that another stream reads, as in DETR and LXMERT. Which features: the authors' code has
convolutional detectors only (the level of the pyramid that made the box), and no source says which layer stands for it
in DETR; so there are three,

    memory        the tokens as the other stream first reads them: DETR's encoder output, LXMERT's boxes after their own
    projection    the tokens as they enter the model's first attention: DETR's input projection, LXMERT's box embedding
    backbone      the map that the projection is computed from: the last one of DETR's convolutional backbone

They are found by following the values of a call back to the linear map, or the convolution, that made them: nothing is
hooked, no module is named.

What deviates. Y is the target, a logit unless another is given; the authors take sqrt(class score * centreness), or a
coordinate of the box. Their paper smooths the gradient, their code does not, nor is it done here. LXMERT has no map of
places: its tokens are boxes, its own backbone is not part of the model, and that it is explained at all is an analogy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.capture import Recording
from heedmap.checking import recorded
from heedmap.errors import UnsupportedError
from heedmap.methods.asking import questions
from heedmap.methods.features import Made, features_of, laid
from heedmap.records import Call, Explanation, Wiring
from heedmap.streams import Declaration

FEATURES = ("memory", "projection", "backbone")
REGIONS = "visual_feats"  # pictures that come as boxes; others have four axes
TAKES = "odam takes models in which another stream reads the tokens of a picture: DETR, LXMERT. Use heed or gae here."


def odam(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    features: str = FEATURES[0],
    wiring: Declaration | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them; only the picture's tokens get any."""
    explanations = []
    made = Made()
    with made, recorded(model, inputs, wiring, verify, edits, stems=True) as (recording, wired):
        call = _reader(recording, wired)
        stream = call.read.stream
        tokens, where = _features(features, call, recording, wired, made)
        for asked in questions(model, inputs, targets, recording, wired, True, verify):
            (gradient,) = torch.autograd.grad(asked.value.sum(), [tokens], retain_graph=asked.more, allow_unused=True)
            flow = _map(tokens, gradient, call)
            relevance, starts = {stream: flow}, {stream: torch.zeros_like(flow)}
            explanations.append(asked.answered(f"odam:{features}", "", relevance, starts, wired, [where]))
    return explanations


def _reader(recording: Recording, wired: Wiring) -> Call:
    """The first call in which another stream reads the tokens of a picture."""

    def picture(stream: str) -> bool:
        return any(name == REGIONS or len(recording.sizes.get(name, ())) == 4 for name in stream.split("+"))

    for call in wired.calls:
        if call.read.stream != call.reading.stream and picture(call.read.stream):
            return call
    raise UnsupportedError(f"No stream reads the tokens of a picture: they are {', '.join(wired.tokens)}. {TAKES}")


def _features(name: str, reader: Call, recording: Recording, wired: Wiring, made: Made) -> tuple[Tensor, str]:
    """The features that are asked for, and where they are."""
    if name == "memory":
        return features_of(reader, recording, made, TAKES), f"{reader.read}, as call {reader.index} reads it"
    stream = reader.read.stream
    first = next(call for call in wired.calls if call.read.stream == stream and call.read.after is None)
    tokens = features_of(first, recording, made, TAKES)
    if name == "projection":
        return tokens, f"{stream}, as call {first.index} reads it"
    grid = made.behind(tokens)
    if grid is None or grid.ndim != 4 or grid.shape[-2:].numel() != wired.tokens[stream] or not grid.requires_grad:
        raise UnsupportedError(
            f"The {wired.tokens[stream]} tokens of {stream} are not one convolution away from a map of as many places. "
            "odam:backbone expected a detector with a convolutional backbone, such as DETR; use odam:memory here."
        )
    return grid, f"the map that {stream} is projected from"


def _map(features: Tensor, gradient: Tensor | None, call: Call) -> Tensor:
    """(batch, token), from tokens as the call has them, or from a map (batch, channel, y, x)."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    if gradient is None:
        gradient = torch.zeros_like(features)
    product = gradient.to(dtype) * features.detach().to(dtype)
    return (product.flatten(2).sum(1) if product.ndim == 4 else laid(product, call).sum(-1)).clamp(min=0)
