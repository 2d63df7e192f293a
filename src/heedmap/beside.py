"""What is read beside moved tokens: the tokens that they were, by the target or by a residual branch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from heedmap.capture import Recording
from heedmap.errors import MixedTokensError, ReadoutError
from heedmap.records import State, Wiring
from heedmap.routes import DECLARE, Apart, Route, gradients_at, laid, multiplied, narrow


def check_target(
    value: Tensor,
    wiring: Wiring,
    recording: Recording,
    sizes: Sequence[int],
    ends: Collection[State],
    ways: list[Route],
) -> None:
    """Refuse a target that reads, beside the last state, tokens of an older one other than those it reads there."""
    found = None
    for end in ends:
        if end.after is None or end.stream not in wiring.moved or wiring.calls[end.after].reading.after is not None:
            continue
        found = recording.pull([value], [torch.ones_like(value)]) if found is None else found
        last = gradients_at(end, wiring, recording, sizes, found)
        for route in ways:
            beside = (
                gradients_at(route.source, wiring, recording, sizes, found) if route.into == State(end.stream) else None
            )
            if last is None or beside is None:
                continue
            read, met = (each.any(-1).flatten().cpu() for each in (last != 0, beside != 0))
            place = route.stands.flatten().cpu()
            if bool((met & ~(read[place.clamp(min=0)] & (place >= 0))).any()):
                raise ReadoutError(
                    f"The target reads {end} and, beside it, other tokens of {route.source}. heedmap expected a target "
                    "that reads one depth; explain each part by itself, or declare the rows that speak: "
                    f"readout=heedmap.Readout({end.stream!r}, rows=...)."
                )


def check_residuals(wiring: Wiring, recording: Recording, sizes: Sequence[int], ends: Collection[int]) -> None:
    """Refuse moved tokens beside which the tokens they were go on in another order, by a residual branch.

    All that reads a stream, at any depth, is multiplied by numbers of its rows: the gradient at each token of a source
    must be multiplied by one of them.
    """
    passed = wiring.upstream(ends)
    for stream, moved in wiring.moved.items():
        tensors = []
        for index in sorted(passed):
            call, seen = wiring.calls[index], recording.calls[index]
            for state, tensor in ((call.reading, seen.queries), (call.read, seen.keys), (call.read, seen.values)):
                if state.stream == stream and tensor is not None and tensor.requires_grad:
                    tensors.append((tensor, sizes[index]))
        found: list[dict[int, Tensor]] = []
        for coded in (False, True):
            generator = torch.Generator().manual_seed(0)
            cotangents = [torch.randn(tensor.shape, generator=generator).to(tensor) for tensor, _ in tensors]
            if coded:
                for cotangent, (_, batch) in zip(cotangents, tensors, strict=True):
                    code = torch.rand(batch, wiring.tokens[stream], generator=torch.Generator().manual_seed(1)) + 1
                    cotangent.mul_(laid(code.to(cotangent.device), cotangent))
            found.append(recording.pull([tensor for tensor, _ in tensors], cotangents) if tensors else {})
        rough = bool(tensors) and (tensors[0][0].dtype not in (torch.float32, torch.float64) or narrow(tensors[0][0]))
        for source in moved.sources:
            once, twice = (gradients_at(source, wiring, recording, sizes, each) for each in found)
            if once is not None and twice is not None:
                _, error, size = multiplied(once, twice)
                if bool((error > (0.1 if rough else 1e-3) * size).any()):
                    call = wiring.calls[moved.call]
                    if call.reading == call.read:
                        raise Apart(call.index)  # perhaps it is only that
                    raise MixedTokensError(
                        f"Call {call.index} ({call.module}) reads tokens of {source} that were moved, and what follows "
                        "leads back to those in another order too, by a residual branch. heedmap expected one order; "
                        f"{DECLARE}"
                    )
