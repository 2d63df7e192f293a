"""The check on inference: gradients must stay in the rows that the wiring claims.

Between two calls only work token by token may happen. A vector-Jacobian product is linear in its cotangent, so if every
row of the cotangent is multiplied by a number of its own, every row of the gradient must be multiplied by the same
number: a token that was moved or mixed on the way carries another one. Two such codings, one with a number for every
token of every example and one with a number for every token, check all rows of all calls at once, down to the tensors
in which tokens were laid out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from heedmap.errors import GradientError, MixedTokensError, ReadoutError
from heedmap.records import Call, Origin, State, Wiring

Pull = Callable[..., Mapping[int, Tensor]]


class Probed(Protocol):
    """What the probe needs of a recorded call."""

    queries: Tensor | None
    keys: Tensor | None
    values: Tensor
    origins: tuple[Origin | None, Origin | None, Origin | None]

    def gradient(self, gradient: Tensor, batch: int) -> Tensor: ...


def check_calls(
    wiring: Wiring, calls: Sequence[Probed], batches: Sequence[int], ends: Sequence[int], pull: Pull, movers: int
) -> None:
    """Refuse a wiring whose tokens are moved or mixed before or between the calls that a walk passes.

    `movers` are the marks, as bits, of operations that may have moved tokens where no gradient shows it. Streams whose
    tokens are moved into one another are looked at one by one: how they hang together is told elsewhere.
    """
    passed = wiring.upstream(ends)
    rest = {stream for stream in wiring.tokens if stream not in wiring.moved}
    for streams in ({stream} for stream in wiring.moved):
        _check_among(streams, passed, wiring, calls, batches, pull, movers)
    _check_among(rest, passed, wiring, calls, batches, pull, movers)


def _check_among(
    streams: set[str],
    passed: set[int],
    wiring: Wiring,
    calls: Sequence[Probed],
    batches: Sequence[int],
    pull: Pull,
    movers: int,
) -> None:
    tensors: list[Tensor] = []
    claims: list[tuple[State, int]] = []
    for index in sorted(passed):
        call, seen = wiring.calls[index], calls[index]
        for tensor, origin, claim in _claims(call, seen):
            if claim.stream not in streams:
                continue
            if tensor.requires_grad:
                tensors.append(tensor)
                claims.append((claim, batches[index]))
            elif origin is not None and origin.calls and origin.marks & movers:
                raise _mixed(f"before call {index} ({call.module}), where no gradient shows it", claim.stream)
            elif origin is not None and origin.calls:
                raise unshown(call, claim)
    if not tensors:
        return
    generator = torch.Generator(tensors[0].device).manual_seed(0)
    base = pull(tensors, list(_cotangents(tensors, generator)))
    roots = {claim.stream for claim, _ in claims if claim.after is None and claim.stream in wiring.layouts}
    fits: dict[str, list[bool]] = {stream: [] for stream in roots}
    for shared in (False, True):
        codes = _Codes(wiring, generator, shared)
        again = torch.Generator(generator.device).manual_seed(0)
        found = pull(
            tensors,
            [
                cotangent.mul_(codes.like(cotangent, *claim).to(cotangent))
                for cotangent, claim in zip(_cotangents(tensors, again), claims, strict=True)
            ],
        )
        for index in passed & base.keys():
            call, batch = wiring.calls[index], batches[index]
            if call.state.stream not in streams:
                continue  # what it begins with was moved there from other streams
            first, second = (calls[index].gradient(each[index], batch) for each in (base, found))
            if not _agree(first, second, codes.of(call.state, batch)[:, None, :, None]):
                readers = [c.module for c in wiring.calls if call.state in (c.reading, c.read)]
                after = ", ".join(readers) or "what follows"
                raise _mixed(f"between call {index} ({call.module}) and {after}", call.state.stream)
        for stream, (first, second, batch) in _stems(wiring, base, found, claims):
            fits.setdefault(stream, []).append(
                _check_stem(stream, first, second, codes.of(State(stream), batch), shared)
            )
    for stream, fit in fits.items():
        if not any(fit):
            raise _mixed("before its first call", stream)


def check_tail(
    value: Tensor, wiring: Wiring, calls: Sequence[Probed], batches: Sequence[int], ends: Sequence[int], pull: Pull
) -> None:
    """Refuse a target that reads rows of an earlier state which it does not read of the last one."""
    found = pull([value], [torch.ones_like(value)])
    rows = {}
    for index in ends:
        if index in found:
            rows[wiring.calls[index].state.stream] = _rows(calls[index].gradient(found[index], batches[index]))
    for index in wiring.upstream(ends, moved=False) - set(ends):
        if index not in found or not bool(found[index].any()):
            continue  # zeros are what some functions make of no gradient
        state = wiring.calls[index].state
        met = _rows(calls[index].gradient(found[index], batches[index]))
        if state.stream not in rows or bool((met & ~rows[state.stream].to(met.device)).any()):
            last = ", ".join(str(wiring.calls[end].state) for end in ends)
            raise ReadoutError(
                f"The target reads {last} and, beside it, other rows of {state}. heedmap expected a target that reads "
                "one depth; explain each part by itself, or declare the rows that speak: "
                f"readout=heedmap.Readout({state.stream!r}, rows=...)."
            )
    for stream, layouts in wiring.layouts.items():
        for number in _bits(layouts):
            grad = found.get(-1 - number)
            if grad is not None and grad.ndim > 3 and stream in rows and len(grad) == len(rows[stream]):
                grad = grad.flatten(2).mT  # channels first, as convolutions lay tokens out
            if grad is None or stream not in rows or grad.shape[:2] != rows[stream].shape or grad.ndim != 3:
                continue
            if bool(((grad != 0).any(-1) & ~rows[stream].to(grad.device)).any()):
                raise ReadoutError(
                    f"Beside the last call the target reads other rows of {stream!r} as it entered. heedmap expected a "
                    "residual branch that leaves tokens where they are; declare the rows that speak: "
                    f"readout=heedmap.Readout({stream!r}, rows=...)."
                )


def reads_one_row(
    value: Tensor, wiring: Wiring, calls: Sequence[Probed], batches: Sequence[int], ends: Sequence[int], pull: Pull
) -> bool:
    """Whether a target reads one row of the last state, and of all states before and of the tokens only the same."""
    if len(ends) != 1 or wiring.moved:
        return False
    found = pull([value], [torch.ones_like(value)])
    state, batch = wiring.calls[ends[0]].state, batches[ends[0]]
    if ends[0] not in found or state.stream not in wiring.layouts:
        return False
    rows = _rows(calls[ends[0]].gradient(found[ends[0]], batch))
    if bool((rows.sum(-1) != 1).any()):
        return False
    for index in wiring.upstream(ends) - set(ends):
        if index in found and bool(found[index].any()):
            own = wiring.calls[index].state.stream == state.stream
            if not own or bool((_rows(calls[index].gradient(found[index], batches[index])) & ~rows).any()):
                return False
    for stream, layouts in wiring.layouts.items():
        for number in _bits(layouts):
            grad = found.get(-1 - number)
            if grad is None or not bool(grad.any()):
                continue
            if stream != state.stream or grad.ndim != 3 or grad.shape[:2] != rows.shape:
                return False
            if bool(((grad != 0).any(-1) & ~rows).any()):
                return False
    return True


def own_examples(tensor: Tensor, calls: Mapping[int, Probed], batches: Sequence[int], pull: Pull) -> bool:
    """Whether every example of a target's value, or of its logits, reads that example alone."""
    code = 1.0 + torch.arange(len(tensor), device=tensor.device, dtype=tensor.dtype)
    noise = torch.rand(tensor.shape, generator=torch.Generator(tensor.device).manual_seed(0), device=tensor.device)
    plain = noise.to(tensor.dtype) + 0.5
    coded = plain * code.view(-1, *(1,) * (tensor.ndim - 1))
    once, twice = (pull([tensor], [cotangent], list(calls)) for cotangent in (plain, coded))
    for index in once:
        first, second = (calls[index].gradient(found[index], batches[index]) for found in (once, twice))
        each = code.repeat_interleave(max(1, len(first) // len(code)))  # windows of one example lie together
        if not _agree(first, second, each[:, None, None, None]):
            return False
    return bool(once)


def _cotangents(tensors: Sequence[Tensor], generator: torch.Generator) -> Iterator[Tensor]:
    """Random numbers: drawn a second time, by the same seed, they take less memory than kept."""
    for tensor in tensors:
        yield torch.randn(tensor.shape, generator=generator, device=generator.device).to(tensor)


def _claims(call: Call, seen: Probed) -> Iterator[tuple[Tensor, Origin | None, State]]:
    """The tensors of a call with the states that the wiring infers for them; what was declared is trusted."""
    ends = (("reading", call.reading), ("read", call.read), ("read", call.read))
    for tensor, origin, (end, state) in zip((seen.queries, seen.keys, seen.values), seen.origins, ends, strict=True):
        if tensor is not None and end not in call.declared:
            yield tensor, origin, state


def _stems(
    wiring: Wiring, base: Mapping[int, Tensor], found: Mapping[int, Tensor], claims: Sequence[tuple[State, int]]
) -> Iterator[tuple[str, tuple[Tensor, Tensor, int]]]:
    """The gradients at the tensors in which each stream was laid out."""
    batches = {state.stream: batch for state, batch in claims}
    for stream, layouts in wiring.layouts.items():
        for number in _bits(layouts):
            if -1 - number in base and stream in batches:
                yield stream, (base[-1 - number], found[-1 - number], batches[stream])


def _check_stem(stream: str, first: Tensor, second: Tensor, code: Tensor, shared: bool) -> bool:
    """Whether tokens lie in a tensor as the calls read them; refused where they lie there, but not in that order."""
    batch, tokens = code.shape
    rest = first.shape[2:]
    ways: list[tuple[bool, Tensor]] = []
    if first.ndim == 3 and first.shape[:2] == (batch, tokens):
        ways.append((True, code[..., None]))
    if first.ndim == 3 and first.shape[:2] == (tokens, batch):
        ways.append((True, code.T[..., None]))
    if shared and first.ndim == 3 and first.shape[:2] in ((1, tokens), (tokens, 1)):
        ways.append((True, code[0].view(*first.shape[:2], 1)))
    if (shared or batch == 1) and first.ndim == 2 and len(first) == tokens:
        ways.append((True, code[0][:, None]))
    if (shared or batch == 1) and first.ndim >= 3 and len(first) == tokens and rest.numel() == 1:
        ways.append((True, code[0].view(-1, 1, *rest)))
    if first.ndim >= 3 and len(first) == batch and rest.numel() == tokens:
        ways.append((False, code.view(batch, 1, *rest)))
    if first.ndim >= 4 and len(first) == batch and first.shape[1:-1].numel() == tokens:
        ways.append((False, code.view(batch, *first.shape[1:-1], 1)))
    fit = any(_agree(first, second, way) for _, way in ways)
    if not fit and any(strict for strict, _ in ways):
        raise _mixed("before or around its first call", stream)
    return fit


def unshown(call: Call, claim: State) -> GradientError:
    """The error of tokens that no gradient leads back to."""
    return GradientError(
        f"What call {call.index} ({call.module}) reads of {claim} runs under no_grad or passes through detach: whether "
        "tokens stay where they are on the way shows in no gradient. heedmap expected a gradient at every call the "
        "target reads; remove the no_grad, or declare it: "
        f'wiring={{{call.index}: {{"reading": "{claim}", "read": "{claim}"}}}}.'
    )


def _mixed(where: str, stream: str) -> MixedTokensError:
    return MixedTokensError(
        f"Tokens of {stream!r} are moved or mixed {where}: a convolution, a roll, pooling, windows, or attention in a "
        "form no seam knows. heedmap expected work token by token. Declare where the walk may end: "
        'wiring={call: {"reading": "new stream", "read": "new stream"}}.'
    )


def _agree(first: Tensor, second: Tensor, code: Tensor) -> bool:
    """Whether every row of the second gradient is the first's times its code, up to rounding."""
    rough = first.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled(first.device.type)
    tolerance = 3e-2 if rough else 1e-4
    expected = first * code.to(first)
    axes = [axis for axis, size in enumerate(code.shape) if size == 1] or [-1]
    size, error = (part.abs().amax(axes, keepdim=True) for part in (expected, expected - second))
    return bool((error <= tolerance * (size + 1e-6 * size.amax())).all())


def _rows(gradient: Tensor) -> Tensor:
    return (gradient != 0).any(-1).any(1)


def _bits(bits: int) -> list[int]:
    return [number for number in range(bits.bit_length()) if bits >> number & 1]


class _Codes:
    """A number between 1 and 2 for every token of every stream; every example has its own unless they are shared."""

    def __init__(self, wiring: Wiring, generator: torch.Generator, shared: bool) -> None:
        self._tokens = wiring.tokens
        self._generator = generator
        self._shared = shared
        self._codes: dict[tuple[str, int], Tensor] = {}

    def of(self, state: State, batch: int) -> Tensor:
        key = (state.stream, batch)
        if key not in self._codes:
            size = (1 if self._shared else batch, self._tokens[state.stream])
            code = 1 + torch.rand(size, generator=self._generator, device=self._generator.device)
            self._codes[key] = code.expand(batch, -1)
        return self._codes[key]

    def like(self, tensor: Tensor, state: State, batch: int) -> Tensor:
        """The codes as a factor for a call's tensor, (..., token, channel)."""
        code = self.of(state, batch)
        if tensor.ndim == 4:
            return code[:, None, :, None]
        if tensor.ndim == 3:
            return code.repeat_interleave(max(1, len(tensor) // batch), 0)[..., None]
        return code[0][:, None]
