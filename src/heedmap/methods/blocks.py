"""The parts of a block around its attention, found along the graph: output projection, residual stream, patches.

As in `features`, nothing is hooked and no module is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heedmap.capture import Recording
from heedmap.errors import UnsupportedError
from heedmap.methods.features import TOKENS_FIRST, Made, graph
from heedmap.propagation import formed
from heedmap.records import Call

WEIGHTS = {"linear": (1, "weight"), "addmm": (2, "mat2")}
SUMS = frozenset("add __add__ __radd__".split())
# nodes of the graph that only lay numbers out anew
LAYS = frozenset(
    "View UnsafeView ReshapeAlias Transpose Permute T Clone Alias Squeeze Unsqueeze Select ToCopy Expand".split()
)
PASSES = LAYS | {"Mul", "Add"}  # and what a branch may pass before it is added: a scale for each channel, a bias
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class Linear:
    """One linear map as it ran."""

    takes: Tensor
    weight: Tensor  # (channel out, channel in)
    bias: Tensor | None
    node: Any  # of what it gave

    def __call__(self, tensor: Tensor, bias: bool = False) -> Tensor:
        mapped = tensor @ self.weight.to(tensor).mT
        return mapped + self.bias.to(tensor) if bias and self.bias is not None else mapped


@dataclass(frozen=True)
class Patches:
    """Where the patches of a picture stand in a stream: row by row from token `first` on."""

    first: int
    rows: int
    columns: int

    @property
    def tokens(self) -> slice:
        return slice(self.first, self.first + self.rows * self.columns)


class Parts(Made):
    """Also the weights of linear maps, the results of convolutions, and the terms of sums."""

    def __init__(self) -> None:
        super().__init__()
        self._linear: list[Linear] = []
        self._maps: dict[Any, Tensor] = {}
        self.sums: list[tuple[Tensor, Tensor, Tensor]] = []  # both terms and the result, in the order they ran

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = super().__torch_function__(func, types, args, kwargs)
        name = getattr(func, "__name__", "")
        if not isinstance(result, Tensor) or result.grad_fn is None:
            return result
        if name in WEIGHTS:
            position, keyword = WEIGHTS[name]
            weight = args[position] if len(args) > position else kwargs[keyword]
            bias = args[0] if name == "addmm" else args[2] if len(args) > 2 else kwargs.get("bias")
            weight = weight.detach().mT if name == "addmm" else weight.detach()
            bias = None if bias is None else bias.detach()
            self._linear.append(Linear(self.takes[result.grad_fn], weight, bias, result.grad_fn))
        elif name == "conv2d":
            self._maps[result.grad_fn] = result
        elif name in SUMS and len(args) > 1 and isinstance(args[0], Tensor) and isinstance(args[1], Tensor):
            self.sums.append((args[0], args[1], result))
        return result

    def projection(self, call: Call, recording: Recording, batch: int) -> Linear | None:
        """The linear map that takes a call's heads, put side by side, and nothing else."""
        seen = recording.calls[call.index]
        if seen.edge is None:
            return None
        for linear in self._linear:
            if any(node is seen.edge.node for node in _behind(linear.takes.grad_fn, LAYS)):
                heads = seen.heads(batch)
                own = side_by_side(formed(heads) @ heads.values.detach().to(formed(heads).dtype))
                fits = any(_close(given.reshape(own.shape), own) for given in _ways(linear.takes, own))
                return linear if fits else None
        return None

    def residual(self, linear: Linear, call: Call, recording: Recording) -> Tensor | None:
        """What the projected heads are added to, if the call's values come from it: (batch, token, channel)."""
        for a, b, _ in self.sums:
            for branch, stream in ((a, b), (b, a)):
                if stream.shape == branch.shape and self._is_branch(branch, linear):
                    values = recording.calls[call.index].values
                    seen = stream.grad_fn is not None and self._made_of(self.behind(values), stream)
                    return _tokens_second(stream.detach(), call) if seen else None
        return None

    def result(self, tokens: int) -> Tensor | None:
        """The last sum of the forward pass over so many tokens: what leaves the last block."""
        return next((found.detach() for *_, found in reversed(self.sums) if tokens in found.shape[:-1]), None)

    def patches(self, tokens: Tensor) -> Patches | None:
        """The patches among tokens (batch, token, channel), if one convolution laid them out; tried, not guessed."""
        grid = self._map_behind(tokens)
        if grid is None or grid.shape[-2:].numel() > tokens.shape[1] or len(grid) != len(tokens):
            return None
        rows, columns = grid.shape[-2:]
        generator = torch.Generator().manual_seed(0)
        code = 1 + torch.rand(tokens.shape[1], generator=generator).to(tokens)
        plain = torch.rand(tokens.shape, generator=generator).to(tokens) + 0.5
        once, coded = (
            torch.autograd.grad(tokens, grid, cotangent, retain_graph=True)[0]
            for cotangent in (plain, plain * code[:, None])
        )
        for first in range(tokens.shape[1] - rows * columns + 1):
            patches = Patches(first, rows, columns)
            told = once * code[patches.tokens].view(rows, columns)
            if _close(told, coded, 1e-3) and bool(once.abs().sum(1).gt(0).all()):
                return patches
        return None

    def _map_behind(self, tensor: Tensor) -> Tensor | None:
        return next((self._maps[node] for node in graph(tensor.grad_fn) if node in self._maps), None)

    def _is_branch(self, branch: Tensor, linear: Linear) -> bool:
        return any(node is linear.node for node in _behind(branch.grad_fn, PASSES, self.takes))

    def _made_of(self, tensor: Tensor | None, stream: Tensor) -> bool:
        """Whether a tensor is a stream's, token by token normalised: no linear map lies between."""
        nodes = () if tensor is None else graph(tensor.grad_fn, lambda node: node not in self.takes)
        return any(node is stream.grad_fn for node in nodes)


def side_by_side(tensor: Tensor) -> Tensor:
    """(batch, token, head * channel), from (batch, head, token, channel)."""
    return tensor.transpose(1, 2).flatten(2)


def _behind(node: Any, passes: frozenset[str], stops: Any = ()) -> Iterator[Any]:
    """A node and those behind it, as long as only such nodes lie between."""
    return graph(node, lambda node: node not in stops and node.name().partition("Backward")[0] in passes)


def _ways(takes: Tensor, own: Tensor) -> list[Tensor]:
    """A linear map's tokens with examples first: flat ones and tokens before examples are turned."""
    takes = takes.detach().to(own)
    batch, tokens, channels = own.shape
    if takes.numel() != own.numel():
        return []
    turned = takes.reshape(tokens, batch, channels).transpose(0, 1)
    return [takes.reshape(own.shape), turned]


def _tokens_second(tensor: Tensor, call: Call) -> Tensor | None:
    if tensor.ndim != 3 or (call.seam == TOKENS_FIRST and len(tensor) == tensor.shape[1]):
        return None  # whether examples or tokens come first cannot be told
    return tensor if tensor.shape[1] == call.queries else tensor.transpose(0, 1)


def _close(a: Tensor, b: Tensor, tolerance: float | None = None) -> bool:
    limit = CLOSE.get(b.dtype, 3e-2) if tolerance is None else max(tolerance, CLOSE.get(b.dtype, 3e-2))
    return bool((a - b).abs().max() <= limit * b.abs().max().clamp(min=1e-12))


def refused(what: str, call: Call, takes: str) -> UnsupportedError:
    return UnsupportedError(f"Of call {call.index} ({call.module}) {what}. {takes}")
