"""The papers' equations on dense attention, token by token, with nothing taken from the package.

The model runs twice. The first run keeps the weights A of every call and their gradient. In the second the graph is cut
at the result of every call, and one vector-Jacobian product per token says from which tokens of which earlier results a
query or a value was computed. Then, call by call, with full matrices over all tokens:

    A_bar = E_heads(grad A * A)
    R[reading] <- R[reading] + A_bar @ R[read]

A token is a pair (call, row): a row of the queries as it stands after that call. Each row of a call's queries and
values comes from one earlier token; or from none: then it is a token as it enters. Where several tokens became one, of
which each went nowhere else, its R is the mean of theirs, weighed by the size of the target's gradient at each. Where a
row was mixed in any other way the equations say nothing, and nothing is compared.

`places.py` tells of a token that enters where in the model's inputs it comes from.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .attending import Attended, watched
from .places import Place, lays_out, places

Token = tuple[int, int]  # a call, and a row of its queries
Made = tuple[Token, ...]  # what a row was made from; nothing where it enters
MOST = 8000  # vector-Jacobian products: more would take minutes


class NotComparedError(Exception):
    """The equations, or this restatement of them, have no answer here."""


@dataclass(frozen=True)
class Told:
    """What flowed from the tokens that entered at one end of a call: its "reading" or its "read" tokens."""

    call: int
    end: str
    flowed: Tensor  # (token,)
    places: Sequence[Place | None] = ()  # where each of them comes from; None of what no input is in


@dataclass(frozen=True)
class Truth:
    """What flowed to the target from every token that entered, and what would have without the first call's map."""

    calls: int
    told: list[Told]
    short: list[Told]


def truth(
    model: nn.Module,
    inputs: Mapping[str, Any],
    target: Callable[[Any], Tensor],
    placed: bool = False,
    begins: tuple[nn.Module, str] | None = None,
) -> Truth:
    """The truth for one example; `placed` also tells where each token that enters comes from.

    At what a module is given under a name (`begins`) tokens enter, whatever they were made of.
    """
    leaves = {name: value.detach().clone() for name, value in inputs.items() if isinstance(value, Tensor)}
    for leaf in leaves.values():
        leaf.requires_grad_(leaf.is_floating_point())  # so that what was made of it can be told
    given = {name: leaves[name].clone() if name in leaves else value for name, value in inputs.items()}
    torch.manual_seed(0)  # some models draw numbers
    with watched(model, cut=False) as whole:
        value = target(model(**given))
    maps, sizes = _maps(whole, value)
    torch.manual_seed(0)
    with watched(model, cut=True) as cut, _begun(begins):
        value = target(model(**given))
    if [call.counts for call in cut] != [call.counts for call in whole]:
        raise NotComparedError("two runs of the model are not alike")
    origins = _Origins(cut)
    short = [torch.zeros_like(maps[0]), *maps[1:]]
    entered = _Entered(origins, leaves if placed else None)
    told, without = (_walked(origins, entered, each, sizes, value) for each in (maps, short))
    return Truth(len(cut), told, without)


@contextlib.contextmanager
def _begun(begins: tuple[nn.Module, str] | None) -> Iterator[None]:
    if begins is None:
        yield
        return
    module, name = begins

    def enter(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, name: kwargs[name].detach().requires_grad_()}

    handle = module.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _maps(calls: Sequence[Attended], value: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """A_bar of each call, (group, query, key), and the size of the target's gradient at each row of its result."""
    if not calls:
        raise NotComparedError("the oracle sees no attention")
    tensors = [*(call.weights for call in calls), *(call.output for call in calls)]
    found = torch.autograd.grad(value.sum(), tensors, allow_unused=True, materialize_grads=True)
    maps = [call.map(gradient) for call, gradient in zip(calls, found[: len(calls)], strict=True)]
    return maps, [call.sizes(gradient) for call, gradient in zip(calls, found[len(calls) :], strict=True)]


class _Origins:
    """From which token each row of each call's queries and values was computed, of one run that was cut."""

    def __init__(self, calls: Sequence[Attended]) -> None:
        if sum(groups * (queries + keys) for groups, queries, keys in (call.counts for call in calls)) > MOST:
            raise NotComparedError("too many tokens for dense matrices")
        self.calls = calls
        self.reading: list[list[Made]] = []
        self.read: list[list[Made]] = []
        for index, call in enumerate(calls):
            self.reading.append(self._rows(index, "queries", call.rows(call.queries)))
            self.read.append(self._rows(index, "values", call.rows(call.values)))
            groups, queries, keys = call.counts
            if (len(self.reading[-1]), len(self.read[-1])) != (groups * queries, groups * keys):
                raise NotComparedError("groups of heads that share rows")

    def _rows(self, index: int, what: str, tensor: Tensor) -> list[Made]:
        """`tensor` is (group, head, token, channel); the rows of all groups, one group behind the other."""
        groups, _, tokens, _ = tensor.shape
        if not tensor.requires_grad or not index:
            return [()] * (groups * tokens)
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(index)).to(tensor)
        rows: list[Made] = []
        for group in range(groups):
            for token in range(tokens):
                ask = torch.zeros_like(tensor)
                ask[group, :, token] = noise[group, :, token]
                rows.append(tuple(sorted(self.last(self.behind(tensor, ask, index)))))
        went = Counter(token for made in rows for token in made)
        for made in rows:
            if len(made) > 1 and (any(went[token] > 1 for token in made) or len({call for call, _ in made}) > 1):
                raise NotComparedError(f"{what} of call {index} are mixed from several tokens")
        return rows

    def behind(self, tensor: Tensor, ask: Tensor, before: int) -> dict[Token, Tensor]:
        """The tokens of the calls before `before` that have a gradient, each with its gradient's norm."""
        earlier = self.calls[:before]
        found = torch.autograd.grad(
            tensor, [call.output for call in earlier], ask, retain_graph=True, allow_unused=True
        )
        met = {}
        for index, (call, gradient) in enumerate(zip(earlier, found, strict=True)):
            if gradient is not None:
                norms = call.sizes(gradient)
                met |= {(index, row): norms[row] for row in norms.nonzero()[:, 0].tolist()}
        return met

    def last(self, met: Iterable[Token]) -> set[Token]:
        """Those of some tokens that no other of them holds through its residual branch."""
        met = set(met)
        held: set[Token] = set()
        for token in sorted(met, reverse=True):
            waiting = list(self.reading[token[0]][token[1]])
            while waiting:
                before = waiting.pop()
                if before not in held:
                    held.add(before)
                    waiting += self.reading[before[0]][before[1]]
        return met - held


class _Entered:
    """The tokens that enter, kind by kind: those whose making shares an operation are the same tokens."""

    def __init__(self, origins: _Origins, leaves: Mapping[str, Tensor] | None) -> None:
        self.counts: list[int] = []
        self.first: list[tuple[int, str]] = []  # the call that meets them first, and its end
        self.kind: dict[tuple[int, str], int] = {}
        self.places: list[list[Place | None]] = []  # of each kind's tokens
        made: list[set[Any]] = []
        for index, call in enumerate(origins.calls):
            ends = (("reading", origins.reading, call.queries), ("read", origins.read, call.values))
            for end, rows, tensor in ends:
                if () not in rows[index]:
                    continue
                own, count = _made(tensor), len(rows[index])
                alike = [
                    kind
                    for kind, nodes in enumerate(made)
                    if self.counts[kind] == count and (nodes & own or self.kind.get((index, "reading")) == kind)
                ]
                if not alike:
                    self.counts.append(count)
                    self.first.append((index, end))
                    made.append(set())
                    enters = [not each for each in rows[index]]
                    self.places.append([] if leaves is None else places(call.rows(tensor), enters, leaves))
                self.kind[index, end] = kind = alike[0] if alike else len(made) - 1
                made[kind] |= own


def _made(tensor: Tensor) -> set[Any]:
    """The operations that a tensor was made by, as far as they are not those of parameters alone."""
    depends: dict[Any, bool] = {}
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting[-1]
        before = [] if node is None else [each for each, _ in node.next_functions if each is not None]
        unknown = [each for each in before if each not in depends]
        if node is None or node in depends:
            waiting.pop()
        elif unknown:
            waiting.extend(unknown)
        else:
            depends[node] = lays_out(node) or any(depends[each] for each in before)
            waiting.pop()
    return {node for node, content in depends.items() if content}


def _walked(
    origins: _Origins, entered: _Entered, maps: Sequence[Tensor], sizes: Sequence[Tensor], value: Tensor
) -> list[Told]:
    """The equations, and the answer's rows: those of the last states, by the norm of their gradient."""
    identity = torch.eye(sum(entered.counts), dtype=maps[0].dtype)
    begun = identity.split(entered.counts)  # the rows of R before any call
    after: list[Tensor] = []
    start: list[Tensor] = []

    def state(rows: Sequence[Made], end: tuple[int, str], matrices: Sequence[Tensor]) -> Tensor:
        own = begun[entered.kind[end]] if end in entered.kind else []
        return torch.stack([_merged(made, matrices, sizes) if made else own[i] for i, made in enumerate(rows)])

    for index, (a_bar, reading, read) in enumerate(zip(maps, origins.reading, origins.read, strict=True)):
        passed = a_bar @ state(read, (index, "read"), after).unflatten(0, (len(a_bar), -1))
        after.append(state(reading, (index, "reading"), after) + passed.flatten(0, 1))
        start.append(state(reading, (index, "reading"), start))
    met = origins.behind(value, torch.ones_like(value), len(maps))
    answer = maps[0].new_zeros(len(identity))
    ends = origins.last(met)
    if not ends:
        raise NotComparedError("the target reads no attention call")
    for call in {call for call, _ in ends}:
        rows = [row for index, row in ends if index == call]
        total = sum(met[call, row] for row in rows)
        for row in rows:
            answer = answer + met[call, row] / total * (after[call][row] - start[call][row])
    flowed = answer.split(entered.counts)
    return [
        Told(call, end, each, places)
        for (call, end), each, places in zip(entered.first, flowed, entered.places, strict=True)
    ]


def _merged(made: Made, matrices: Sequence[Tensor], sizes: Sequence[Tensor]) -> Tensor:
    """The row of R of what was made from these tokens: their mean by the size of the target's gradient."""
    rows = torch.stack([matrices[call][row] for call, row in made])
    weight = torch.stack([sizes[call][row] for call, row in made])
    total = weight.sum()
    return (weight / total if total > 0 else torch.full_like(weight, 1 / len(made))) @ rows
