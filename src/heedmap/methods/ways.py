"""What was found of tokens that were moved between calls, brought back to the tokens that entered.

A token is the same wherever it is put, so what a method says of it is said of the token that it was. Where several
became one, they share what it has by the size of the target's gradient at each. What windows hold of an example is one
map of that example, cut up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from heedmap.capture import Recording
from heedmap.methods.asking import Question
from heedmap.records import Heads, State, Wiring
from heedmap.routes import Route, size_of


@dataclass(frozen=True)
class Ways:
    """The routes of one question; where nothing is moved there are none, and all stays as it is."""

    routes: Sequence[Route] = ()
    sizes: Mapping[State, Tensor] = field(default_factory=dict)  # of the target's gradient at tokens that became one
    examples: int | None = None  # that the windows are of

    def arrive(self, state: State, *held: dict[State, Tensor]) -> None:
        """Take in what reached tokens that were this state's before they were moved."""
        for route in self.routes:
            if route.source == state:
                for rows in held:
                    route.carry(rows, self.sizes.get(state))

    def home(self, flow: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What was found of each stream's tokens, for the tokens that entered; no call in between is read."""
        rows = {State(stream): row for stream, row in flow.items()}
        for route in reversed(self.routes):
            route.carry(rows, self.sizes.get(route.source))
            if route.source.after is not None and route.source in rows:
                row, entered = rows.pop(route.source), State(route.source.stream)
                rows[entered] = rows[entered] + row if entered in rows else row
        return {state.stream: row for state, row in rows.items()}

    def whole(self, windows: Tensor) -> Tensor:
        """(window, token, ...) as (example, token, ...)."""
        return windows if self.examples is None else windows.unflatten(0, (self.examples, -1)).flatten(1, 2)

    def together(self, sums: Tensor) -> Tensor:
        """Sums of windows added up, and handed to each window of the example."""
        if self.examples is None:
            return sums
        each = sums.unflatten(0, (self.examples, -1))
        return each.sum(1, keepdim=True).expand_as(each).flatten(0, 1)


STAY = Ways()


def ways(asked: Question, sizes: Mapping[State, Tensor]) -> Ways:
    return Ways(asked.routes, sizes, len(asked.value) if asked.routes else None)


def ways_of(recording: Recording, wiring: Wiring, asked: Question) -> Ways:
    """As `ways`; where several tokens became one, a backward pass of its own tells how they share."""
    merged = {route.source for route in asked.routes if route.merges and route.source.after is not None}
    sizes: dict[State, Tensor] = {}

    def step(index: int, heads: Heads, gradient: Tensor, wanted: Any = None) -> tuple[bool, None]:
        if wiring.calls[index].state in merged:
            sizes[wiring.calls[index].state] = size_of(gradient)
        return True, None

    if merged:
        recording.backward(asked.value, asked.sizes, step, keep=True)
    return ways(asked, sizes)
