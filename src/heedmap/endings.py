"""Which calls a target ends at: those whose states it reads, and beside them nothing that they do not hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heedmap.errors import ReadoutError
from heedmap.records import Call, Mark, Origin, State, Wiring
from heedmap.streams import SAYS, frontier


def ends(origin: Origin, wiring: Wiring, marks: Sequence[Mark], alone: Callable[[], bool] = lambda: False) -> list[int]:
    """The calls whose states a target reads; refused where it also reads what lies before them.

    `alone` says whether it reads one row, and no other of any state: then nothing that may move tokens has moved them.
    """
    latest = frontier(origin.calls, wiring.calls)
    for index in latest:
        end = wiring.calls[index]
        upstream = wiring.upstream([index])
        for other in latest:
            if other != index and other in upstream:
                raise _two_depths(end.state, str(wiring.calls[other].state), "the target")
        for bit, mark in enumerate(marks):
            if origin.marks >> bit & 1 and not end.queries_from.marks >> bit & 1:
                _check_mark(mark, end, upstream, wiring, alone)
    return latest


def _check_mark(mark: Mark, end: Call, upstream: set[int], wiring: Wiring, alone: Callable[[], bool]) -> None:
    """Beside the last call and after it, only work token by token may happen, and pooling."""
    met = {i for i in range(mark.upstream.calls.bit_length()) if mark.upstream.calls >> i & 1}
    if mark.kind == "join":
        if end.index in met and mark.older is not None:
            _check_join(mark, mark.older, end, upstream, wiring)
        return
    if mark.kind == "softmax":
        return
    tokens = wiring.tokens[end.state.stream]
    if end.index in met:
        moving = mark.kind == "move" and not mark.tokenwise and end.state.stream not in wiring.moved
        moving &= mark.operation != "stack"  # side by side along an axis of their own tokens stay where they are
        refused = mark.kind in ("splice", "unseen", "product") or moving
        refused |= mark.kind == "weighing" and bool({tokens, tokens - 1} & set(mark.sizes) - {0, 1})
        refused &= not mark.after_model or mark.kind == "splice"
    else:
        refused = bool(met) and met <= upstream
    if refused and not (mark.kind == "move" and alone()):
        raise ReadoutError(
            f"Between the last call ({end.module}) and the target, {mark.module} has a {mark.operation} that "
            f"{SAYS[mark.kind]}. heedmap expected work token by token, or pooling. Declare the rows that speak: "
            f"readout=heedmap.Readout({end.state.stream!r}, rows=...)."
        )


def _check_join(mark: Mark, older: Origin, end: Call, upstream: set[int], wiring: Wiring) -> None:
    """A state may meet the one it was made from, token by token: its residual branch. Nothing older, nothing pooled."""
    latest = frontier(older.calls, wiring.calls)
    if latest and (end.index in latest or not upstream & set(latest)):
        return
    if not latest and not older.bases & wiring.layouts.get(end.reading.stream, 0):
        return
    moved = wiring.moved.get(end.reading.stream) if end.reading.after is None else None
    before = [state.after for state in ((end.reading,) if moved is None else moved.sources) if state.after is not None]
    own = latest == before if moved is None else set(latest) <= set(before)
    held = all(mark.upstream.calls >> index & 1 for index in before)
    own |= moved is None and not latest and held  # as they entered they are in what the residual branch holds
    tokenwise = mark.tokenwise or moved is not None  # in windows it is told by where its tokens went
    if mark.after_model or not tokenwise or not own:
        named = " and ".join(str(wiring.calls[i].state) for i in latest) or "the tokens as they entered"
        raise _two_depths(end.state, named, mark.module)


def _two_depths(state: State, older: str, where: str) -> ReadoutError:
    return ReadoutError(
        f"In {where} the target reads {state} and, beside it, {older}. heedmap expected a target that reads one depth; "
        "explain each part by itself, or declare the rows that speak: "
        f"readout=heedmap.Readout({state.stream!r}, rows=...)."
    )
