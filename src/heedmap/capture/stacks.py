"""Tensors that were stacked, and picked out of the stack again: each is what it was before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from heedmap.capture.labels import Kept
from heedmap.records import Origin

PICKS = frozenset({"__getitem__", "select", "unbind"})


class Stack(NamedTuple):
    """The origins of what was stacked along an axis."""

    axis: int
    parts: tuple[Origin, ...]


class Stacks:
    """Models keep the states of all layers in one tensor, and answer by the last of them."""

    def __init__(self) -> None:
        self._stacks = Kept()

    def note(self, args: Any, kwargs: Mapping[str, Any], result: Tensor, parts: Sequence[Origin | None]) -> None:
        axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        known = tuple(part for part in parts if part is not None)
        if isinstance(axis, int) and len(known) == result.shape[axis]:
            self._stacks.set(result, Stack(axis % result.ndim, known))

    def picked(self, name: str, args: Any, kwargs: Mapping[str, Any]) -> tuple[Origin, ...] | None:
        """The origins of what an operation takes out of a stack, one by one; none where it takes several at once."""
        if name not in PICKS or not args or not isinstance(args[0], Tensor):
            return None
        stack = self._stacks.get(args[0])
        if stack is None:
            return None
        if name == "__getitem__":
            at = _index(args[1], stack.axis, args[0].ndim)
            return None if at is None else (stack.parts[at],)
        axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        if axis % args[0].ndim != stack.axis:
            return None
        return stack.parts if name == "unbind" else (stack.parts[kwargs.get("index", args[-1])],)


def _index(given: Any, axis: int, axes: int) -> int | None:
    """The number by which an axis is indexed; none where it is cut, or where other things stand there."""
    parts = given if isinstance(given, tuple) else (given,)
    if any(isinstance(part, bool) or not (isinstance(part, (int, slice)) or part is Ellipsis) for part in parts):
        return None
    if Ellipsis in parts:
        before = parts.index(Ellipsis)
        parts = (*parts[:before], *(slice(None),) * (axes - len(parts) + 1), *parts[before + 1 :])
    at = parts[axis] if axis < len(parts) else None
    return at if isinstance(at, int) else None
