"""Our method, top to bottom: record, wire, check, and walk from the answer to the inputs.

map of a call           mean over heads of correct(gradient) * weights
relevance[read]    +=   relevance[reading] @ map
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from heedmap.checking import noised, recorded, start_states
from heedmap.correction import correction as correction_named
from heedmap.methods.asking import questions
from heedmap.records import Explanation, Readout
from heedmap.streams import Declaration
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
    progress: Callable[[int, int], None] | None = None,
) -> list[Explanation]:
    """Explain each target of one input, with one forward pass for all of them; `edits` as in `record`."""
    correct = correction_named(correction)
    explanations = []
    with recorded(model, inputs, wiring, verify, edits) as (recording, wired):
        for asked in questions(model, inputs, targets, recording, wired, readout is not None, verify):
            starts = start_states(readout, asked.origin, wired, recording.marks, asked.alone)
            link = noised(noise, correction, wired)
            walk = Walk(wired, correct, starts, link, asked.routes, len(asked.value))
            recording.backward(asked.value, asked.sizes, walk.step, keep=asked.more)
            flow, start = walk.finish()
            told = {} if link is None else {"noise": str(link)}
            explanations.append(asked.answered("heed", correction, flow, start, wired, walk.readout, told))
            if progress is not None:
                progress(len(explanations), len(targets))
    return explanations
