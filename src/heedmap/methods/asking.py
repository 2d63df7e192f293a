"""What the methods share: targets settled and checked one by one, and the explanation of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from heedmap.beside import check_target
from heedmap.capture import Recording
from heedmap.checking import batches, check, connected, reader, trust
from heedmap.context import context_of, names_of
from heedmap.endings import ends
from heedmap.records import Explanation, Origin, State, Wiring
from heedmap.routes import Route, routes
from heedmap.streams import frontier
from heedmap.targets import Context, Target, as_target, evaluate, logits_behind, predicted, settle


@dataclass(frozen=True)
class Question:
    """One target, as a number per example."""

    target: str
    value: Tensor
    origin: Origin
    sizes: Sequence[int]  # how many examples each call holds
    predicted: tuple[str | int, ...] | None
    more: bool  # another question of the same forward pass follows
    settled: Target  # with nothing left open, to be put to other runs of the model
    context: Context
    apart: bool  # whether an output of more examples can be cut into outputs of as many as these
    routes: Sequence[Route]  # where the tokens went that were moved between calls
    alone: Callable[[], bool]  # whether one row is read alone

    def upstream(self, wiring: Wiring, states: Iterable[State]) -> set[int]:
        """The calls that some states are made of; behind moved tokens those of the tokens that came."""
        found = wiring.upstream([state.after for state in states if state.after is not None], moved=False)
        for route in reversed(self.routes):
            entered = any(route.into in (wiring.calls[index].reading, wiring.calls[index].read) for index in found)
            if entered and route.source.after is not None:
                found |= wiring.upstream([route.source.after], moved=False)
        return found

    def examples(self, stream: str, wiring: Wiring) -> int:
        """How many examples, or pictures of one, hold a stream's tokens; none where no token of it was met."""
        met = [self.sizes[call.index] for call in wiring.calls if stream in (call.reading.stream, call.read.stream)]
        met += [len(route.place) for route in self.routes if route.source.stream == stream]
        return met[0] if met else 0

    def answered(
        self,
        method: str,
        correction: str,
        relevance: Mapping[str, Tensor],
        starts: Mapping[str, Tensor],
        wiring: Wiring,
        readout: Sequence[str],
        metadata: Mapping[str, str] | None = None,
    ) -> Explanation:
        return Explanation(
            method=method,
            correction=correction,
            target=self.target,
            value=self.value.detach(),
            relevance={stream: row.to(self.value.device) for stream, row in relevance.items()},
            starts={stream: row.to(self.value.device) for stream, row in starts.items()},
            wiring=wiring,
            readout=tuple(readout),
            metadata=metadata or {},
            predicted=self.predicted,
        )


def questions(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    recording: Recording,
    wired: Wiring,
    declared: bool,
    verify: str | bool,
) -> Iterator[Question]:
    """Each target of one forward pass, checked; `declared`: the rows that speak were named."""
    context = context_of(model, inputs, recording.causal)
    known = trust(model, recording, wired, verify)
    ways: dict[int, list[Route]] = {}
    for left, given in enumerate(map(as_target, targets), start=1 - len(targets)):
        target = settle(given, recording.output, context)
        put = partial(_put, target, context)
        value, seen = recording.evaluate(put)
        origin = connected(value, seen)
        sizes = batches(recording, wired, len(value))
        logits = logits_behind(target, recording.output, context)
        named = None if logits is None else target
        check(known, recording, wired, sizes, named, value, logits, origin, declared, lambda r, p=put: r.evaluate(p)[0])
        count = len(value)
        if count not in ways:
            ways[count] = routes(wired, recording, sizes, count)
        alone = reader(value, recording, wired, sizes, origin)
        if wired.moved and not declared:
            states = [wired.calls[index].state for index in ends(origin, wired, recording.marks, alone)]
            check_target(value, wired, recording, sizes, states, ways[count])
        names = names_of(predicted(given, recording.output, context), context)
        apart = len(frontier(origin.calls, wired.calls)) == 1 and _plain(recording.output)
        yield Question(repr(target), value, origin, sizes, names, left < 0, target, context, apart, ways[count], alone)


def _put(target: Target, context: Context, output: Any) -> Tensor:
    return evaluate(target, output, context)


def _plain(output: Any) -> bool:
    """Whether an output is tensors in tuples and mappings, with nothing between them that torch cannot look into."""
    return all(isinstance(leaf, (Tensor, int, float, str, type(None))) for leaf in tree_leaves(output))
