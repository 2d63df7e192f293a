"""All operations of a forward pass with what they took and gave, kept to be gone through backward by other rules.

A function mode that lies around the recorder's, so it meets what the recorder lets through: one forward pass serves
both. Numbers stand for tensors as they were: one that is changed in place gets a new number, and what it was is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from heedmap.capture import operations as ops
from heedmap.capture.attention import Attention
from heedmap.capture.labels import tensors
from heedmap.capture.names import unwrapped
from heedmap.capture.seams import parse_einsum, weighted
from heedmap.capture.tracker import innermost
from heedmap.errors import UnsupportedError

LOOKS = frozenset(
    "__set__ __len__ numel size dim is_inference untyped_storage is_floating_point requires_grad_".split()
)


@dataclass(frozen=True)
class Slot:
    """Where a tensor of the tape stands among an operation's arguments."""

    number: int


@dataclass(frozen=True, eq=False)
class Operation:
    """`takes` and `gives` are numbers of floating tensors; other tensors stay in the arguments as they are."""

    name: str
    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    module: str

    def __str__(self) -> str:
        return f"{self.name} in {self.module}"


class Tape(TorchFunctionMode):
    """While it lasts, every operation that takes and gives floating tensors is kept, in the order they ran."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.makers: dict[int, Operation] = {}  # of each tensor; those that the forward pass began with have none
        self.lost: set[int] = set()  # changed in place by another name: how these were made is not known
        self._modules = {id(module): path for path, module in unwrapped(model)[0].named_modules()}
        self._tensors: list[Tensor] = []
        self._versions: list[int] = []
        self._numbers: dict[int, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = ops.name_of(func)
        if name in LOOKS:
            return func(*args, **kwargs)
        taken = {id(t): self._number(t) for t in tensors((args, kwargs)) if t.is_floating_point()}
        changes = (ops.in_place(name) or kwargs.get("inplace") is True) and bool(args) and id(args[0]) in taken
        if changes:
            number = taken[id(args[0])]
            self._tensors[number], self._versions[number] = args[0].detach().clone(), 0
        result = func(*args, **kwargs)
        given = [t for t in tensors(args[0] if changes else result) if t.is_floating_point()]
        if taken and given and (changes or any(id(t) not in taken for t in given)):
            self._keep(name, func, args, kwargs, taken, given)
        return result

    def _keep(
        self, name: str, func: Any, args: Any, kwargs: Any, taken: Mapping[int, int], given: list[Tensor]
    ) -> None:
        def stand_in(leaf: Any) -> Any:
            return Slot(taken[id(leaf)]) if isinstance(leaf, Tensor) and id(leaf) in taken else leaf

        placed, named = tree_map(stand_in, (tuple(args), dict(kwargs)))
        gives = tuple(self._new(tensor) for tensor in given)
        operation = Operation(name, func, placed, named, tuple(taken.values()), gives, self._where())
        self.operations.append(operation)
        self.makers |= dict.fromkeys(gives, operation)

    def _number(self, tensor: Tensor) -> int:
        number = self._numbers.get(id(tensor))
        if number is not None and not self._stale(number):
            return number
        new = self._new(tensor)
        if number is not None:
            self.lost.add(new)
        return new

    def _new(self, tensor: Tensor) -> int:
        self._numbers[id(tensor)] = len(self._tensors)
        self._tensors.append(tensor)
        self._versions.append(_version(tensor))
        return len(self._tensors) - 1

    def _stale(self, number: int) -> bool:
        return _version(self._tensors[number]) != self._versions[number]

    def tensor(self, number: int) -> Tensor:
        """A tensor as it was: refused where its memory was since changed by another name."""
        if self._stale(number) or number in self.lost:
            maker, shape = self.makers.get(number), tuple(self._tensors[number].shape)
            raise UnsupportedError(
                f"What {maker or 'the model'} gave, {shape}, was changed in place through a view, or by an operation "
                "that does not say so: what it was is lost. lrp, partial-lrp and t-attr expected tensors that are "
                "changed by their own name, if at all; use heed or gae here."
            )
        return self._tensors[number]

    def filled(self, operation: Operation, tensors: Mapping[int, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """An operation's arguments, with these tensors in place of its own."""

        def fill(leaf: Any) -> Any:
            if not isinstance(leaf, Slot):
                return leaf
            return tensors[leaf.number] if leaf.number in tensors else self.tensor(leaf.number)

        return tree_map(fill, (operation.args, dict(operation.kwargs)))

    def behind(self, number: int) -> set[int]:
        """All that a tensor was computed from."""
        found: set[int] = set()
        waiting = [number]
        while waiting:
            maker = self.makers.get(waiting.pop())
            new = set(maker.takes) - found if maker else set()
            found |= new
            waiting.extend(new)
        return found

    def edges(self) -> dict[tuple[Any, int], int]:
        """The tensors that have a gradient, by their place in the graph."""
        found = {}
        for number, tensor in enumerate(self._tensors):
            if tensor.grad_fn is not None:
                edge = torch.autograd.graph.get_gradient_edge(tensor)
                found[edge.node, edge.output_nr] = number
        return found

    def calls(self, calls: Sequence[Attention], edges: Mapping[tuple[Any, int], int]) -> dict[int, int]:
        """Which recorded call an operation is, by the number of what it gave."""
        found = {}
        for call in calls:
            number = None if call.edge is None else edges.get((call.edge.node, call.edge.output_nr))
            while number is not None and self.makers[number].name in ("detach", "view_as"):
                number = self.makers[number].takes[0]
            if number is not None:
                found[number] = call.index
        return found

    def _where(self) -> str:
        return innermost(self._modules) or "the model"


def weights_in(tape: Tape, operation: Operation, call: Attention) -> tuple[int, tuple[int, ...]]:
    """Of a call that formed its own weights: their number, and the axes that put them as (..., query, key)."""
    if call.weights is None:
        raise UnsupportedError(
            f"Call {call.index} ({call.module}) weighs points between tokens (deformable attention), for which "
            "relevance propagation has no rule. heedmap expected scores of queries and keys; use heed or gae here."
        )
    args, _ = tape.filled(operation, {})
    plan = parse_einsum(args) if operation.name == "einsum" else None
    for number in operation.takes:
        tensor = tape.tensor(number)
        if tensor.data_ptr() != call.weights.data_ptr():
            continue
        if plan is None:
            return number, tuple(range(tensor.ndim))
        first = plan.operands[0] is tensor
        form = weighted(plan, tensor, plan.operands[1 if first else 0], first)
        if form is not None:
            return number, tuple(form.laid.index(axis) for axis in range(tensor.ndim))
    raise UnsupportedError(f"The weights of call {call.index} ({call.module}) were not found in its {operation.name}.")


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
