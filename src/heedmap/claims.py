"""What coded rows alone do not show: that a state is the one it is taken for, and not an older one of the same tokens.

A tensor that holds an older state beside the one it is taken for reads, at some tokens, the older one alone: there the
later call has no gradient by it, though it has by what else reads the state. And a beginning that was declared once is
known again by what it was computed from; that it is of the same tokens, in the same order, is shown by the tensor that
both come from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from heedmap.capture import Recording
from heedmap.errors import MixedTokensError, ReadoutError
from heedmap.probe import unshown
from heedmap.records import Call, Origin, State, Wiring
from heedmap.routes import laid

Edge = tuple[Any, int]


def check_claims(wiring: Wiring, recording: Recording, sizes: Sequence[int], ends: Collection[int]) -> bool:
    """Refuse what is taken for another state or beginning; else whether it is so on other inputs of this kind too."""
    check_depths(wiring, recording, sizes, ends)
    check_begun(wiring, recording, sizes, ends)
    read = [recording.calls[index] for index in wiring.upstream(ends)]
    return not closes([t for call in read for t in (call.queries, call.keys, call.values) if t is not None], recording)


def check_depths(wiring: Wiring, recording: Recording, sizes: Sequence[int], ends: Collection[int]) -> None:
    """Refuse what is taken for a state, where at some tokens it reads an older one instead."""
    passed = wiring.upstream(ends)
    met: dict[State, list[tuple[Call, Tensor, Tensor]]] = {}  # who reads a state, and what rows of it
    for index in sorted(passed):
        call, seen = wiring.calls[index], recording.calls[index]
        for tensor, _, state, end in _ends(call, seen):
            if state.after is None or end in call.declared or tensor is None or not tensor.requires_grad:
                continue
            made = wiring.calls[state.after]
            before = None if "reading" in made.declared else made.reading.after
            held = [state] if before is None else [state, State(state.stream, before)]
            found = recording.pull([tensor], [_noise(tensor)], [each.after for each in held if each.after is not None])
            if state.after not in found and not recording.pull([tensor], [_noise(tensor)]):
                raise unshown(call, state)  # a view that was taken under no_grad says that it has a gradient
            for each in held:  # the state itself, and the one that its residual branch holds
                met.setdefault(each, []).append((call, tensor, _rows(found, each, wiring, recording, sizes)))
    for state, readers in met.items():
        alive = torch.stack([rows.cpu() for _, _, rows in readers]).any(0) | (state.after in ends)
        for call, tensor, rows in readers:
            missing = alive & ~rows.cpu()
            if bool(missing.any()) and bool((missing & _older(tensor, state, wiring, recording, sizes)).any()):
                raise MixedTokensError(
                    f"Call {call.index} ({call.module}) reads {state} as it seems, and at some tokens an older state "
                    "instead of it. heedmap expected one state; declare it: "
                    f'wiring={{{call.index}: {{"reading": "stream", "read": "stream"}}}}.'
                )


def check_skips(
    value: Tensor, wiring: Wiring, recording: Recording, sizes: Sequence[int], ends: Collection[int]
) -> None:
    """Refuse a target whose last state holds, by its residual branch, another state than the one that its call read."""
    for index in ends:
        call, state = wiring.calls[index], wiring.calls[index].reading
        queries = recording.calls[index].queries
        if state.after is None or "reading" in call.declared or queries is None or not queries.requires_grad:
            continue
        found = recording.pull([value], [torch.ones_like(value)], [index, state.after])
        asking = recording.pull([queries], [_noise(queries)], [state.after])
        read, held = (_rows(found, each, wiring, recording, sizes).cpu() for each in (call.state, state))
        missing = read & ~held & _rows(asking, state, wiring, recording, sizes).cpu()
        if bool(missing.any()) and bool((missing & _older(value, state, wiring, recording, sizes)).any()):
            raise ReadoutError(
                f"The target reads {call.state}, whose residual branch holds an older state than {state}, which call "
                f"{index} ({call.module}) read. heedmap expected a residual branch around each call; declare the rows "
                f"that speak: readout=heedmap.Readout({state.stream!r}, rows=...)."
            )


def _older(tensor: Tensor, state: State, wiring: Wiring, recording: Recording, sizes: Sequence[int]) -> Tensor:
    """The rows at which a tensor reads states of the same stream before this one."""
    found = recording.pull([tensor], [_noise(tensor)])
    rows = torch.zeros(sizes[state.after or 0], wiring.tokens[state.stream], dtype=torch.bool)
    before: State | None = wiring.calls[state.after or 0].reading
    while before is not None and before.after is not None:
        if before.after in found:
            rows |= _rows(found, before, wiring, recording, sizes).cpu()
        before = wiring.calls[before.after].reading
    layouts = wiring.layouts.get(state.stream, 0)
    for number in [-1 - bit for bit in range(layouts.bit_length()) if layouts >> bit & 1]:
        if number in found and bool(found[number].any()):
            own = found[number].shape[:2] == rows.shape and found[number].ndim == 3
            rows |= (found[number] != 0).any(-1).cpu() if own else torch.ones_like(rows)
    return rows


def _rows(
    found: Mapping[int, Tensor], state: State, wiring: Wiring, recording: Recording, sizes: Sequence[int]
) -> Tensor:
    assert state.after is not None
    gradient, size = found.get(state.after), sizes[state.after]
    if gradient is None:
        return torch.zeros(size, wiring.tokens[state.stream], dtype=torch.bool)
    return (recording.calls[state.after].gradient(gradient, size) != 0).any(-1).any(1)


def check_begun(wiring: Wiring, recording: Recording, sizes: Sequence[int], ends: Collection[int]) -> None:
    """Refuse what is taken for a beginning that was declared, where it is of other tokens."""
    passed = wiring.upstream(ends)
    first: dict[str, tuple[Tensor, int]] = {}  # what is compared with, and how many examples it holds
    for call, seen in zip(wiring.calls, recording.calls, strict=True):
        for tensor, origin, state, end in _ends(call, seen):
            if state.after is not None or end not in call.declared or state.stream in wiring.moved:
                continue
            if f"{end} again" not in call.declared:
                if tensor is not None and tensor.requires_grad:
                    first.setdefault(state.stream, (tensor, sizes[call.index]))
            elif call.index in passed and (end == "reading" or (tensor is not None and origin != Origin())):
                known, batch = first.get(state.stream, (None, 0))
                size = sizes[call.index], wiring.tokens[state.stream]
                if (
                    known is not None
                    and tensor is not None
                    and batch == size[0]
                    and _same(known, tensor, size, recording)
                ):
                    continue
                raise MixedTokensError(
                    f"Call {call.index} ({call.module}) reads what {state.stream!r} was declared to begin with as it "
                    f"seems, and other tokens of it, or in another order. Declare it too: "
                    f'wiring={{{call.index}: {{"{end}": "stream"}}}}.'
                )


def _ends(call: Call, seen: Any) -> Iterator[tuple[Tensor | None, Origin | None, State, str]]:
    """A call's tensors, with the states that they are taken for."""
    ends = ((call.reading, "reading"), (call.read, "read"), (call.read, "read"))
    for tensor, origin, (state, end) in zip((seen.queries, seen.keys, seen.values), seen.origins, ends, strict=True):
        yield tensor, origin, state, end


def _same(known: Tensor, tensor: Tensor, size: tuple[int, int], recording: Recording) -> bool:
    """Whether two tensors of calls are of the same tokens in the same order, by what both come from."""
    shared = _shared(known, tensor) if tensor.requires_grad else None
    if not shared:
        return False
    code = 1 + torch.rand(size, generator=torch.Generator().manual_seed(2))
    pulled = [
        recording.pull_to(shared, each, cotangent)
        for seed, each in ((3, known), (4, tensor))
        for cotangent in (_noise(each, seed), _noise(each, seed) * laid(code, each))
    ]
    rough = known.dtype not in (torch.float32, torch.float64)
    met = False
    for a, a_coded, b, b_coded in zip(*pulled, strict=True):
        if b is None or b_coded is None or not bool(b.any()):
            continue
        if a is None or a_coded is None or bool(((b != 0) & (a == 0)).any()):
            return False
        a, a_coded, b, b_coded = (each.double() for each in (a, a_coded, b, b_coded))
        large, error = (a * b).abs(), (a * b_coded - a_coded * b).abs()
        if bool((error > (3e-2 if rough else 1e-3) * (large + 1e-3 * large.amax())).any()):
            return False
        met = True
    return met


def _shared(known: Tensor, tensor: Tensor) -> list[Edge] | None:
    """The nearest places of the graph that both come from; none where one comes by a way of its own."""
    theirs, found = set(_walked(known, set())), []
    edges = _walked(tensor, theirs)
    for edge in edges:
        if edge in theirs:
            found.append(edge)
        elif not edge[0].next_functions or _is_tap(edge[0]):
            return None
    return found


def _walked(tensor: Tensor, stop: Collection[Edge]) -> list[Edge]:
    """The places of the graph that a tensor comes from, no further than calls, bases and `stop`."""
    waiting: list[Edge] = [(tensor.grad_fn, tensor.output_nr)]
    seen: dict[Edge, None] = {}
    while waiting:
        edge = waiting.pop()
        if edge[0] is None or edge in seen:
            continue
        seen[edge] = None
        if edge not in stop and not _is_tap(edge[0]):
            waiting += [(node, number) for node, number in edge[0].next_functions]
    return list(seen)


def _is_tap(node: Any) -> bool:
    return type(node).__name__ in ("TapBackward", "AttendBackward")


def closes(tensors: Sequence[Tensor], recording: Recording) -> bool:
    """Whether something lets no gradient through on this input: a gate that is shut, and may open on another."""
    tensors = [tensor for tensor in tensors if tensor.requires_grad]
    shut: list[bool] = []

    def look(gradients: Sequence[Tensor | None]) -> None:
        shut.extend(not bool(each.any()) for each in gradients if each is not None and each.numel())

    nodes = {node for tensor in tensors for node, _ in _walked(tensor, ())}
    handles = [node.register_prehook(look) for node in nodes]
    try:
        recording.pull(tensors, [_noise(tensor) for tensor in tensors])
    finally:
        for handle in handles:
            handle.remove()
    return any(shut)


def _noise(tensor: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator(tensor.device).manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator, device=tensor.device).to(tensor)
