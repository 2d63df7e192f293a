"""Deep Integrated Explanations, the baseline (Barkan et al., CIKM 2023), in its form for attention.

    Q_l = E(mean over the path of max(G_l * A_l, 0))      the path: A of call b is alpha times its own, alpha 0 to 1
    D_b = the answer's row of the product over calls l of (I + Q_l), rows divided by their sum, last on the left
    map = D_b for the last call + D_b for the one before it

At each of steps + 1 points everything behind the scaled call is computed anew, and A_l is what was used there. Nothing
scales the inputs. Where streams read one another the two last calls of the answer's own stream would not be all that
it reads, so it takes models in which every stream reads itself alone. What of the row stays where it began, through all
the I, is kept apart: `e.row` is the authors' row, and sums to 2.

`official` scales what their code scales for the call before the last: it puts alpha times the *last* call's attention
there too, almost surely a slip. Not offered: their form for convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.errors import InputError, UnsupportedError
from heedmap.methods import dense
from heedmap.methods.again import Again, Progress, own_calls
from heedmap.propagation import formed
from heedmap.records import Call, Explanation, Heads, Readout, State
from heedmap.streams import Declaration

TAKES = "dix takes models in which every stream reads itself alone: ViT, BERT, CLIP. Use heed or gae here."
DEPTH = 2  # of how many last calls


def dix(
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    steps: int = 10,
    official: bool = False,
    batch_size: int = 8,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
    progress: Progress | None = None,
) -> list[Explanation]:
    """Explain each target of one input: a forward pass, and 2 (steps + 1) forward and backward passes for each."""
    if steps < 1:
        raise InputError(f"steps is {steps!r}. heedmap expected at least 1.")
    explanations = []
    given: dict[str, Any] = {"wiring": wiring, "readout": readout, "verify": verify, "edits": edits}
    for wired, one in dense.seen(model, inputs, targets, gradients=False, **given):
        chains = [own_calls(wired, one.asked, state, TAKES) for state in one.rows]
        again = Again.of(model, inputs, one.asked, batch_size)
        several = [_scaled(chains, one.weights, depth, official) for depth in range(DEPTH)]
        several = [scaled for scaled in several if scaled]
        flow: dense.Streams = {}
        start: dense.Streams = {}
        for number, scaled in enumerate(several):
            told = _after(progress, number, len(several))
            maps = _maps(again, wiring, one.rows, steps, dict(edits or {}), scaled, told)
            rolled = dense.rolled(wired, maps, one.rows, normalised=True, ways=one.ways)
            for held, found in zip((flow, start), rolled, strict=True):
                for stream, row in found.items():
                    dense.add(held, stream, row)
        name = "dix:official" if official else "dix:clean"
        explanations.append(one.asked.answered(name, "", flow, start, wired, one.readout))
    return explanations


def _scaled(
    chains: Sequence[Sequence[Call]], weights: Mapping[int, Tensor], depth: int, official: bool
) -> dict[int, Tensor]:
    """The weights that are scaled, by call: the last of each stream, or one `depth` before it."""
    found = {}
    for chain in chains:
        if depth < len(chain):
            call, source = chain[-1 - depth], chain[-1 if official else -1 - depth]
            if weights[call.index].shape != weights[source.index].shape:
                raise UnsupportedError(f"Calls {call.index} and {source.index} differ in heads. Use dix:clean.")
            found[call.index] = weights[source.index]
    return found


def _maps(
    again: Again,
    wiring: Declaration | None,
    rows: Mapping[State, Tensor],
    steps: int,
    edits: dict[int, Tensor],
    scaled: Mapping[int, Tensor],
    progress: Progress | None,
) -> dict[int, Tensor]:
    """Q of every call, averaged over the path and over heads."""

    def positive(heads: Heads, gradient: Tensor) -> Tensor:
        return (dense.changed(heads, gradient) * formed(heads)).clamp(min=0).mean(1)

    total: dict[int, Tensor] = {}
    for part in again.parts(steps + 1, progress):
        at = [k / steps for k in range(part.start, part.stop)]
        runs = len(at)
        several = {index: edit.repeat(runs, 1, 1, 1) for index, edit in edits.items()}
        several |= {index: torch.cat([alpha * weights for alpha in at]) for index, weights in scaled.items()}

        def target(output: Any, runs: int = runs) -> Tensor:
            return again.value(output, runs)

        for index, map in _met(again, runs, target, positive, wiring, rows, several).items():
            total[index] = total.get(index, 0) + map.unflatten(0, (runs, -1)).sum(0) / (steps + 1)
    return total


def _met(
    again: Again,
    runs: int,
    target: Any,
    take: Any,
    wiring: Declaration | None,
    rows: Mapping[State, Tensor],
    edits: Mapping[int, Tensor],
) -> Mapping[int, Tensor]:
    """What is taken of every call of several runs, read where the answer is."""
    ends = [Readout(state.stream, state.after) for state in rows]
    given: dict[str, Any] = {"wiring": wiring, "readout": ends, "verify": False, "edits": edits}
    ((_, one),) = list(dense.met(again.model, again.given(runs), [target], take, **given))
    return one.taken


def _after(progress: Progress | None, number: int, paths: int) -> Progress | None:
    """What is told of one of several paths, all of them equally long."""
    if progress is None:
        return None
    return lambda done, runs: progress(number * runs + done, paths * runs)
