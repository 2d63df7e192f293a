"""What the methods share: targets settled and checked one by one, and the explanation of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from heedmap.capture import Recording
from heedmap.checking import batches, check, connected, trust
from heedmap.context import context_of, names_of
from heedmap.records import Explanation, Origin, Wiring
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
    for left, given in enumerate(map(as_target, targets), start=1 - len(targets)):
        target = settle(given, recording.output, context)
        value, seen = recording.evaluate(lambda output, t=target: evaluate(t, output, context))
        origin = connected(value, seen)
        sizes = batches(recording, wired, len(value))
        logits = logits_behind(target, recording.output, context)
        shape = None if logits is None else type(target).__name__
        check(known, recording, wired, sizes, shape, value, logits, origin, declared)
        names = names_of(predicted(given, recording.output, context), context)
        apart = len(frontier(origin.calls, wired.calls)) == 1 and _plain(recording.output)
        yield Question(repr(target), value, origin, sizes, names, left < 0, target, context, apart)


def _plain(output: Any) -> bool:
    """Whether an output is tensors in tuples and mappings, with nothing between them that torch cannot look into."""
    return all(isinstance(leaf, (Tensor, int, float, str, type(None))) for leaf in tree_leaves(output))
