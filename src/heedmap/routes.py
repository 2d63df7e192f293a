"""Where every token went that was moved between calls: spliced into another stream, cut into windows, rolled, merged.

Nothing is told of operations by their names: if every row of a call's queries is multiplied by a power of two, a digit
of its place, then the gradient at a token of the source is multiplied by that of the row that the token went to. So is
it for keys and values. A token whose gradient is no multiple went to several rows, or was mixed with others on the way,
and is refused.

Where several tokens became one, what reached it is shared out by the size of the target's gradient at each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heedmap.capture import Recording
from heedmap.errors import MixedTokensError
from heedmap.records import Base, Moved, Origin, State, Wiring

DECLARE = 'declare where the walk may end: wiring={call: {"reading": "new stream", "read": "new stream"}}.'
WIDE, NARROW = 16, 4  # how many powers of two have room in a gradient; in float16 there is little
CLOSE = {WIDE: 1e-4, NARROW: 1e-2}


@dataclass(frozen=True)
class Route:
    """Where the tokens of a source went: `place` (example, token) counts through a stream's rows; -1 is nowhere.

    `stands` has besides those that a later source holds, by which they are handed back.
    """

    source: State
    into: State
    place: Tensor
    stands: Tensor

    @property
    def merges(self) -> bool:
        """Whether several tokens became one."""
        came = self.place[self.place >= 0]
        return len(came.unique()) < len(came)

    def carry(self, rows: dict[State, Tensor], size: Tensor | None) -> None:
        """Add what reached a stream's rows to that of the tokens that they were."""
        if self.into in rows:
            came, held = self.back(rows[self.into], size), rows.get(self.source)
            rows[self.source] = came if held is None else held + came.to(held.device)

    def back(self, row: Tensor, size: Tensor | None) -> Tensor:
        """What reached a stream's rows, on the tokens that they were; `size` of the gradient at each of these."""
        place = self.place.to(row.device)
        there = place >= 0
        weight = there.to(row.dtype) if size is None else size.to(row) * there
        rows = place.clamp(min=0).flatten()
        count = row.numel()
        total, several = (
            row.new_zeros(count).index_add(0, rows, each.to(row.dtype).flatten()) for each in (weight, there)
        )
        share = torch.where(total[rows] > 0, weight.flatten() / total[rows], 1 / several[rows].clamp(min=1))
        return (row.flatten()[rows] * share).view(place.shape).where(there, row.new_zeros(()))


def size_of(gradient: Tensor) -> Tensor:
    """How large the target's gradient is at each token, from that of a call's output (batch, head, token, channel)."""
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum((1, 3)).sqrt()


class Apart(Exception):
    """A call whose queries are of other tokens than its values, though both come from the same states."""

    def __init__(self, call: int) -> None:
        super().__init__(call)
        self.call = call


def routes(wiring: Wiring, recording: Recording, sizes: Sequence[int], examples: int) -> list[Route]:
    """Where the tokens of every source went; refused where they were mixed."""
    found: list[Route] = []
    for stream, moved in wiring.moved.items():
        places = _places(stream, moved, wiring, recording, sizes)
        found += _settled(stream, places, found, wiring, sizes, examples)
    return found


def _places(
    stream: str, moved: Moved, wiring: Wiring, recording: Recording, sizes: Sequence[int]
) -> dict[State, Tensor]:
    """Of each source's tokens the place that they have in a stream, below 0 for those that went nowhere."""
    call, seen = wiring.calls[moved.call], recording.calls[moved.call]
    both = call.reading.stream == call.read.stream
    ends = [(seen.queries, seen.origins[0])] if both or moved.end == "reading" else []
    ends += [(seen.keys, seen.origins[1]), (seen.values, seen.origins[2])] if both or moved.end == "read" else []
    tensors = [tensor for tensor, origin in ends if tensor is not None and not _constant(origin)]
    if not tensors or any(tensor is None for tensor, _ in ends) or not all(t.requires_grad for t in tensors):
        raise MixedTokensError(
            f"Call {call.index} ({call.module}) reads tokens that were moved, and not all of its queries, keys and "
            "values lead back to them by a gradient: a part is detached, or its scores are no single product. heedmap "
            f"expected a gradient; {DECLARE}"
        )
    _check_whole(stream, moved, wiring, recording)
    found = [_traced(tensor, stream, moved, wiring, recording, sizes) for tensor in tensors]
    for other in found[1:]:
        if other.keys() != found[0].keys() or any(bool((other[s] != found[0][s]).any()) for s in other):
            if both:
                raise Apart(moved.call)
            raise MixedTokensError(
                f"Call {call.index} ({call.module}) takes its keys from other tokens than its values. heedmap expected "
                f"the same; {DECLARE}"
            )
    return found[0]


def _traced(
    tensor: Tensor, stream: str, moved: Moved, wiring: Wiring, recording: Recording, sizes: Sequence[int]
) -> dict[State, Tensor]:
    """The place that each token of the sources has in one tensor of a call, digit by digit."""
    batch = sizes[moved.call]
    count = batch * wiring.tokens[stream]
    generator = torch.Generator(tensor.device).manual_seed(0)
    plain = torch.randn(tensor.shape, generator=generator, device=generator.device).to(tensor)
    places = torch.arange(count, device=tensor.device).view(batch, -1)
    first = recording.pull([tensor], [plain])
    levels = NARROW if narrow(tensor) else WIDE
    found: dict[State, Tensor] = {}
    weight = 1
    while weight < count or weight == 1:
        code = 2.0 ** (places // weight % levels)  # a power of two is no rounding, in any precision
        second = recording.pull([tensor], [plain * laid(code, plain)])
        for source in moved.sources:
            digit = _digits(source, wiring, recording, sizes, first, second, levels)
            if digit is not None:
                found[source] = found[source] + weight * digit if source in found else weight * digit
        weight *= levels
    return {source: torch.where(place < 0, -1, place) for source, place in found.items()}


def _check_whole(stream: str, moved: Moved, wiring: Wiring, recording: Recording) -> None:
    """A tensor in which the heads lie apart already holds no tokens, but parts of them."""
    seen = recording.calls[moved.call]
    if not seen.lead or seen.lead[-1] == 1:
        return
    for source in moved.sources:
        layouts = wiring.layouts.get(source.stream, 0) if source.after is None else 0
        shapes = [base.shape for bit, base in enumerate(recording.bases) if layouts >> bit & 1 and base.strong]
        if any(len(shape) == len(seen.lead) + 2 and shape[: len(seen.lead)] == seen.lead for shape in shapes):
            raise MixedTokensError(
                f"The tokens of {stream!r} were put together head by head before call {moved.call}. heedmap expected "
                f"whole tokens; {DECLARE}"
            )


def _settled(
    stream: str,
    places: Mapping[State, Tensor],
    known: Sequence[Route],
    wiring: Wiring,
    sizes: Sequence[int],
    examples: int,
) -> Iterator[Route]:
    """One route for each source whose tokens came here; a later one holds those that earlier ones handed on to it."""
    count = sizes[wiring.moved[stream].call] * wiring.tokens[stream]
    routes: list[Route] = []
    for source, place in places.items():
        _check_examples(source, place, count, examples)
        taken = torch.zeros_like(place, dtype=torch.bool)
        for route in routes:
            there = torch.isin(place, route.place) & (place >= 0) & ~taken
            onward = _onward(source, route, place, known, wiring)
            if bool((there & (onward != place)).any()):
                raise MixedTokensError(
                    f"Tokens of {route.source} and of {source} meet before call {wiring.moved[stream].call} reads "
                    "them, and neither holds the other: two states are added up. heedmap expected tokens that are "
                    f"moved, or merged with their like; {DECLARE}"
                )
            taken |= there
        own = torch.where(taken, -1, place)
        if bool((own >= 0).any()):
            routes.append(Route(source, State(stream), own, place))
    yield from routes


def _led(source: State, state: State, place: Tensor, known: Sequence[Route], wiring: Wiring) -> Tensor:
    """Where each token of a source stands in a later state that holds it by its residual branch; else -1."""
    if source.stream == state.stream:
        before = wiring.upstream([] if state.after is None else [state.after], moved=False)
        held = source.after is None or source.after in before
        return torch.arange(place.numel(), device=place.device).view(place.shape) if held else -torch.ones_like(place)
    found = -torch.ones_like(place)
    for route in known:
        if route.into == State(state.stream):
            found = torch.where(found < 0, _onward(source, route, place, known, wiring), found)
    return found


def _onward(source: State, route: Route, place: Tensor, known: Sequence[Route], wiring: Wiring) -> Tensor:
    """Where each token of a source is led by a route of a later state."""
    led = _led(source, route.source, place, known, wiring)
    if source.stream == route.source.stream and led.numel() != route.place.numel():
        return -torch.ones_like(place)  # laid out in another way
    return torch.where(led < 0, -1, route.place.flatten()[led.clamp(min=0)])


def _constant(origin: Origin | None) -> bool:
    return origin is not None and not (origin.calls or origin.names)


def _digits(
    source: State,
    wiring: Wiring,
    recording: Recording,
    sizes: Sequence[int],
    first: Mapping[int, Tensor],
    second: Mapping[int, Tensor],
    levels: int,
) -> Tensor | None:
    """For each token of a source the digit that it carries; far below 0 for those that went nowhere."""
    once, twice = (gradients_at(source, wiring, recording, sizes, found) for found in (first, second))
    if once is None or twice is None:
        return None
    ratio, error, size = multiplied(once, twice)
    there = size > 0
    digit = ratio.clamp(min=0.5).log2().round()
    off = (ratio / 2**digit - 1).abs()
    close = CLOSE[levels]
    wrong = there & ((error > close * ratio.abs() * size) | (off > close) | (digit < 0) | (digit >= levels))
    if bool(wrong.any()):
        raise MixedTokensError(
            f"{int(wrong.sum())} of the {there.numel()} tokens of {source} are mixed with others, or read at several "
            "places, before they are attended to again: a convolution that overlaps, interpolation, or attention in a "
            f"form no seam knows. heedmap expected tokens that are moved, or merged; {DECLARE}"
        )
    return torch.where(there, digit.long(), -(2**40)).cpu()  # sources may lie on several devices


def multiplied(once: Tensor, twice: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By what number each token's gradient was multiplied, how far it is from that, and how large it was."""
    a, b = once.double(), twice.double()
    size = a.square().sum(-1)
    ratio = (a * b).sum(-1) / size.where(size > 0, size.new_ones(()))
    return ratio, (b - ratio[..., None] * a).square().sum(-1).sqrt(), size.sqrt()


def gradients_at(
    source: State, wiring: Wiring, recording: Recording, sizes: Sequence[int], found: Mapping[int, Tensor]
) -> Tensor | None:
    """The gradient at a state's tokens, (example, token, channel)."""
    if source.after is not None:
        gradient = found.get(source.after)
        if gradient is None:
            return None
        return recording.calls[source.after].gradient(gradient, sizes[source.after]).transpose(1, 2).flatten(2)
    layouts = wiring.layouts[source.stream]
    for bit in reversed(range(layouts.bit_length())):
        gradient = found.get(-1 - bit)
        if layouts >> bit & 1 and gradient is not None:
            if gradient.ndim < 2:
                raise MixedTokensError(
                    f"{source} enters as {tuple(gradient.shape)}, in which no tokens lie apart. heedmap expected "
                    f"tokens with channels; {DECLARE}"
                )
            return _tokenwise(gradient, recording.bases[bit])
    return None


def _tokenwise(gradient: Tensor, base: Base) -> Tensor:
    if base.operation.startswith("conv") and gradient.ndim > 2:
        flat = gradient.movedim(1, -1).flatten(1, -2)
        return flat.transpose(0, 1) if flat.shape[1] == 1 else flat
    return gradient[None] if gradient.ndim == 2 else gradient.flatten(1, -2)


def laid(code: Tensor, tensor: Tensor) -> Tensor:
    """A number for each row of a call's tensor, (..., token, channel)."""
    if tensor.ndim == 4:
        return code[:, None, :, None].to(tensor)
    if tensor.ndim == 3:
        return code.repeat_interleave(max(1, len(tensor) // len(code)), 0)[..., None].to(tensor)
    return code[0][:, None].to(tensor)


def narrow(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float16 or torch.is_autocast_enabled(tensor.device.type)


def _check_examples(source: State, place: Tensor, count: int, examples: int) -> None:
    """What is handed back stays with its example."""
    own = torch.arange(place.numel(), device=place.device).view(place.shape) * examples // place.numel()
    if bool(((place * examples // count != own) & (place >= 0)).any()):
        raise MixedTokensError(
            f"Tokens of {source} are moved from one example to another. heedmap expected each example to keep its "
            "tokens; explain one example at a time."
        )
