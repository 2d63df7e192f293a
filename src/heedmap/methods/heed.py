"""Our method, top to bottom: record, wire, check, and walk from the answer to the inputs.

map of a call           mean over heads of correct(gradient) * weights
relevance[read]    +=   relevance[reading] @ map
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from heedmap.checking import batches, check, connected, noised, recorded, start_states
from heedmap.context import context_of, names_of
from heedmap.correction import correction as correction_named
from heedmap.records import Explanation, Readout
from heedmap.streams import Declaration
from heedmap.targets import as_target, evaluate, logits_behind, predicted, settle
from heedmap.walk import Walk


def heed(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    correction: str = "complete",
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    noise: str | bool | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them; `edits` as in `record`."""
    correct = correction_named(correction)
    explanations = []
    with recorded(model, inputs, wiring, verify, edits) as (recording, wired):
        context = context_of(model, inputs, recording.causal)
        for left, given in enumerate(map(as_target, targets), start=1 - len(targets)):
            target = settle(given, recording.output, context)
            value, seen = recording.evaluate(lambda output, t=target: evaluate(t, output, context))
            origin = connected(value, seen)
            sizes = batches(recording, wired, len(value))
            logits = logits_behind(target, recording.output, context)
            shape = None if logits is None else type(target).__name__
            check(model, recording, wired, sizes, shape, value, logits, origin, readout is not None, verify)
            starts = start_states(readout, origin, wired, recording.marks)
            link = noised(noise, correction, wired)
            walk = Walk(wired, correct, starts, link)
            recording.backward(value, sizes, walk.step, keep=left < 0)
            flow, start = walk.finish()
            explanations.append(
                Explanation(
                    method="heed",
                    correction=correction,
                    target=repr(target),
                    value=value.detach(),
                    relevance=flow,
                    starts=start,
                    wiring=wired,
                    readout=tuple(walk.readout),
                    metadata={} if link is None else {"noise": str(link)},
                    predicted=names_of(predicted(given, recording.output, context), context),
                )
            )
    return explanations
