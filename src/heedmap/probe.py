"""The check on inference: gradients must stay in the rows that the wiring claims.

Between two calls only work token by token may happen. A vector-Jacobian product is linear in its cotangent, so if every
row of the cotangent is multiplied by a number of its own, every row of the gradient must be multiplied by the same
number: a token that was moved or mixed on the way carries another one. Two backward passes, cut at every call's output,
check all rows of all calls at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from heedmap.errors import InputError, MixedTokensError
from heedmap.records import State, Wiring

Pull = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor | None]]


class Probed(Protocol):
    """What the probe needs of a recorded call."""

    queries: Tensor | None
    keys: Tensor | None
    values: Tensor

    def gradient(self, gradient: Tensor, batch: int) -> Tensor: ...


def check_between_calls(wiring: Wiring, calls: Sequence[Probed], batches: Sequence[int], pull: Pull) -> None:
    """Refuse a wiring whose tokens are moved or mixed between calls."""
    codes = _Codes(wiring, calls[0].values.device)
    tensors: list[Tensor] = []
    plain: list[Tensor] = []
    coded: list[Tensor] = []
    for call, seen, batch in zip(wiring.calls, calls, batches, strict=True):
        for tensor, state in ((seen.queries, call.reading), (seen.keys, call.read), (seen.values, call.read)):
            if tensor is None or not tensor.requires_grad:
                continue
            noise = torch.randn(tensor.shape, generator=codes.generator, device=tensor.device).to(tensor.dtype)
            tensors.append(tensor)
            plain.append(noise)
            coded.append(noise * codes.like(tensor, state, batch))
    if not tensors:
        return
    for index, (first, second) in enumerate(zip(pull(tensors, plain), pull(tensors, coded), strict=True)):
        if first is None or second is None:
            continue
        call, batch = wiring.calls[index], batches[index]
        first, second = calls[index].gradient(first, batch), calls[index].gradient(second, batch)
        if not _agree(first * codes.of(call.state, batch)[:, None, :, None].to(first), second):
            readers = [c.module for c in wiring.calls if call.state in (c.reading, c.read)]
            raise MixedTokensError(
                f"Tokens of {call.state.stream!r} are moved or mixed between call {index} ({call.module}) and those "
                f"that read its result ({', '.join(readers) or 'none directly'}): a convolution, a roll, pooling, "
                "windows, or attention in a form heedmap does not know. It expected work token by token. Declare "
                'where the walk may end: wiring={call: {"reading": "new stream", "read": "new stream"}}.'
            )


def check_examples(value: Tensor, calls: Mapping[int, Probed], batches: Sequence[int], pull: Pull) -> None:
    """Refuse a target whose numbers read one another's examples."""
    batch = len(value)
    code = 1.0 + torch.arange(batch, device=value.device, dtype=value.dtype)
    plain, coded = pull([value], [torch.ones_like(value)]), pull([value], [code])
    for index, call in calls.items():
        first, second = plain[index], coded[index]
        if first is None or second is None:
            continue
        first, second = call.gradient(first, batches[index]), call.gradient(second, batches[index])
        if not _agree(first * code.to(first)[:, None, None, None], second):
            raise InputError(
                f"The target's {batch} numbers read one another's examples (at call {index}): what flowed from one "
                "example cannot be told from what flowed from another. heedmap expected each number to read its own "
                "example; explain one number at a time, with batch 1."
            )


def _agree(expected: Tensor, found: Tensor) -> bool:
    """Whether two gradients are the same, row by row, up to rounding."""
    tolerance = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 5e-2
    size = expected.abs().amax((1, 3))
    error = (expected - found).abs().amax((1, 3))
    return bool((error <= tolerance * (size + 0.01 * size.amax())).all())


class _Codes:
    """A number for every token of every example of every stream: unlike each other, exact in floating point."""

    def __init__(self, wiring: Wiring, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(0)
        self._tokens = wiring.tokens
        self._codes: dict[tuple[str, int], Tensor] = {}

    def of(self, state: State, batch: int) -> Tensor:
        key = (state.stream, batch)
        if key not in self._codes:
            size = (batch, self._tokens[state.stream])
            step = torch.randint(0, 64, size, generator=self.generator, device=self.generator.device)
            self._codes[key] = (1 + step % 8 / 8) * torch.exp2(step // 8 - 4.0)
        return self._codes[key]

    def like(self, tensor: Tensor, state: State, batch: int) -> Tensor:
        """The codes as a factor for a call's tensor, (..., token, channel)."""
        code = self.of(state, batch).to(tensor)
        if tensor.ndim == 4:
            return code[:, None, :, None]
        if tensor.ndim == 3:
            return code.repeat_interleave(max(1, len(tensor) // batch), 0)[..., None]
        return code[0][:, None]
