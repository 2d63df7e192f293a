"""Models that read the patches of one picture, in one stream: what the methods share that mask it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.capture import Recording
from heedmap.checking import recorded
from heedmap.errors import UnsupportedError
from heedmap.methods.asking import Question, questions
from heedmap.methods.blocks import Parts, Patches, refused
from heedmap.methods.features import features_of, laid
from heedmap.records import Explanation, Wiring
from heedmap.streams import Declaration, frontier


@dataclass(frozen=True)
class Viewed:
    """One question about one picture, with nothing held on to of the run in which it was met."""

    asked: Question
    wired: Wiring
    name: str  # of the input
    size: tuple[int, int]  # height and width, in pixels
    patches: Patches
    features: Tensor  # as the last call reads them, (batch, token, channel)
    blocks: tuple[Tensor, ...]  # what leaves each block, likewise; only where asked for

    @property
    def tokens(self) -> int:
        return self.features.shape[1]

    def unscored(self) -> Tensor:
        """NaN for every token."""
        return self.features.new_full(self.features.shape[:2], torch.nan)

    def answered(self, method: str, flow: Tensor, readout: Sequence[str], metadata: Mapping[str, str]) -> Explanation:
        stream = next(iter(self.wired.tokens))
        starts = {stream: torch.zeros_like(flow)}
        return self.asked.answered(method, "", {stream: flow}, starts, self.wired, readout, metadata)


def viewed(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    wiring: Declaration | None,
    verify: str | bool,
    takes: str,
    blocks: bool = False,
) -> list[Viewed]:
    """Each target, settled on one recorded run; `takes` ends the message of a refusal."""
    parts, found = Parts(), []
    with parts, recorded(model, inputs, wiring, verify, stems=True) as (recording, wired):
        name, size = _picture(recording, wired, takes)
        patches = _patches(name, recording, wired, parts, takes)
        for asked in questions(model, inputs, targets, recording, wired, True, verify):
            last = wired.calls[frontier(asked.origin.calls, wired.calls)[-1]]
            features = laid(features_of(last, recording, parts, takes), last).detach()
            leaving = tuple(_leaving(asked, recording, wired, parts, takes)) if blocks else ()
            asked = replace(asked, value=asked.value.detach())
            found.append(Viewed(asked, wired, name, size, patches, features, leaving))
        recording.forget()
    return found


def laid_out(model: nn.Module, inputs: Any, takes: str) -> Patches:
    """Where the patches stand in the one stream of a model."""
    parts = Parts()
    with parts, recorded(model, inputs, None, False, stems=True) as (recording, wired):
        return _patches(_picture(recording, wired, takes)[0], recording, wired, parts, takes)


def _patches(name: str, recording: Recording, wired: Wiring, parts: Parts, takes: str) -> Patches:
    first = features_of(wired.calls[0], recording, parts, takes)
    patches = parts.patches(laid(first, wired.calls[0]))
    if patches is None:
        raise UnsupportedError(f"No convolution lays the tokens of {name} out as patches, row by row. {takes}")
    return patches


def _picture(recording: Recording, wired: Wiring, takes: str) -> tuple[str, tuple[int, int]]:
    """The one input that is a picture, and how large it is."""
    sizes = {name: size for name, size in recording.sizes.items() if len(size) == 4}
    if len(sizes) != 1 or len(wired.tokens) != 1:
        raise UnsupportedError(
            f"The model is given {len(sizes)} picture{'s' * (len(sizes) != 1)}, and its streams are "
            f"{', '.join(wired.tokens)}. {takes}"
        )
    ((name, size),) = sizes.items()
    return name, size[-2:]


def _leaving(asked: Question, recording: Recording, wired: Wiring, parts: Parts, takes: str) -> Iterator[Tensor]:
    """What leaves each block: what the next call's heads are added to; of the last one the last sum there is."""
    for call in wired.calls[1:]:
        linear = parts.projection(call, recording, asked.sizes[call.index])
        stream = None if linear is None else parts.residual(linear, call, recording)
        if stream is None:
            raise refused("the heads are not projected and added to what its values come from", call, takes)
        yield stream
    last = wired.calls[-1]
    result = parts.result(last.queries)
    if result is None or result.ndim != 3:
        raise refused("nothing is added to the tokens it gave", last, takes)
    yield laid(result, last)
