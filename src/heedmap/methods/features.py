"""The features of tokens, as a call reads them: found by following its values back to the map that made them.

Nothing is hooked, and no module is named: a function mode notes what each linear map and convolution took, and the
graph leads from the values to the nearest of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heedmap.capture import Recording
from heedmap.checking import recorded, start_states
from heedmap.errors import UnsupportedError
from heedmap.methods import dense
from heedmap.methods.asking import questions
from heedmap.methods.ways import ways_of
from heedmap.propagation import formed
from heedmap.records import Call, Explanation, Readout
from heedmap.streams import Declaration

MAKERS = {"linear": (0, "input"), "conv2d": (0, "input"), "addmm": (1, "mat1")}  # where each takes its tokens
TOKENS_FIRST = "multi_head_attention_forward"  # the seam before which torch puts tokens before examples

Form = Callable[[Tensor, Tensor, Tensor], Tensor]  # features, gradient (batch, token, channel), counted (batch, token)


class Made(TorchFunctionMode):
    """What each linear map and convolution of the forward pass was computed from, by its node in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.takes: dict[Any, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in MAKERS and result.grad_fn is not None:
            position, keyword = MAKERS[name]
            self.takes[result.grad_fn] = args[position] if len(args) > position else (kwargs or {})[keyword]
        return result

    def behind(self, tensor: Tensor) -> Tensor | None:
        """What the nearest of them took, along the graph."""
        return next((self.takes[node] for node in graph(tensor.grad_fn) if node in self.takes), None)


def graph(node: Any, onward: Callable[[Any], bool] = lambda node: True) -> Iterator[Any]:
    """A node of the graph and those behind it, nearest first and each once; `onward`: whether to go behind one."""
    waiting, met = deque([node]), set()
    while waiting:
        node = waiting.popleft()
        if node is None or node in met:
            continue
        met.add(node)
        yield node
        if onward(node):
            waiting.extend(before for before, _ in node.next_functions)


def features_of(call: Call, recording: Recording, made: Made, takes: str) -> Tensor:
    """The tokens that a call's values were computed from; `takes` ends the message where they are not known."""
    seen = recording.calls[call.index]
    tokens = made.behind(seen.values)
    flat = tokens is not None and tokens.ndim == 2 and len(tokens) % call.keys == 0
    if (
        tokens is None
        or not (tokens.ndim == 3 or flat)
        or not tokens.requires_grad
        or recording.origin(tokens) != seen.origins[2]
    ):
        raise _unknown(call, takes)
    return tokens


def _unknown(call: Call, takes: str) -> UnsupportedError:
    return UnsupportedError(
        f"The values of call {call.index} ({call.module}) are not a linear map of the tokens of {call.read}, so "
        f"their features are not known. {takes}"
    )


def laid(tensor: Tensor, call: Call) -> Tensor:
    """(batch, token, channel), from that, (token, batch, channel) or (batch * token, channel); in no half precision."""
    tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    if tensor.ndim == 2:
        return tensor.unflatten(0, (-1, call.keys))
    return tensor.transpose(0, 1) if call.seam == TOKENS_FIRST or tensor.shape[1] != call.keys else tensor


def counted(weights: Tensor, row: Tensor | None = None) -> Tensor:
    """The keys that count, (batch, key): those that no mask hides and, by a row of the same stream, the others.

    Where the answer is read at all of them, all count.
    """
    heard = (weights > 0).any(1).any(1)
    if row is None:
        return heard
    others = heard & (row == 0)
    return others.where(others.any(1, keepdim=True), heard)


def silenced(map: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
    """NaN at the answer's own tokens where they do not count; 0 where a mask hides what is there."""
    heard = counted(weights)
    return (map * heard).masked_fill(heard & ~keys, float("nan"))


def on_features(
    name: str,
    form: Form,
    model: nn.Module,
    inputs: Any,
    targets: Sequence[Any],
    *,
    wiring: Declaration | None = None,
    readout: Readout | Sequence[Readout] | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> list[Explanation]:
    """A number for each token from the features that the answer's stream last reads, and their gradient."""
    explanations = []
    made = Made()
    takes = f"{name} takes models whose last attention reads linear maps of its tokens. Use heed or gae here."
    with made, recorded(model, inputs, wiring, verify, edits, stems=True) as (recording, wired):
        for asked in questions(model, inputs, targets, recording, wired, readout is not None, verify):
            starts = start_states(readout, asked.origin, wired, recording.marks, asked.alone)
            ways = ways_of(recording, wired, asked)
            with torch.autocast(asked.value.device.type, enabled=False):
                rows, named = dense.opened(recording, wired, asked, starts)
            reads = [(state, call) for state in rows for call in dense.last_calls(wired, state).values()]
            features = [features_of(call, recording, made, takes) for _, call in reads]
            found = torch.autograd.grad(asked.value.sum(), features, retain_graph=asked.more, allow_unused=True)
            flow: dense.Streams = {}
            with torch.no_grad(), torch.autocast(asked.value.device.type, enabled=False):
                for (state, call), tokens, gradient in zip(reads, features, found, strict=True):
                    weights = formed(recording.calls[call.index].heads(asked.sizes[call.index]))
                    keys = counted(weights, rows[state] if call.read.stream == state.stream else None)
                    gradient = torch.zeros_like(tokens) if gradient is None else gradient
                    if laid(tokens, call).shape[:2] != keys.shape:
                        raise _unknown(call, takes)
                    parts = laid(tokens, call), laid(gradient, call), keys.to(tokens.device)
                    map = form(*(ways.whole(part) for part in parts)).view_as(keys)
                    dense.add(flow, call.read.stream, silenced(map.to(asked.value.device), weights, keys))
                relevance, begun = dense.aligned(wired, ways.home(flow))
            where = [*named, *(f"{call.read}, as call {call.index} reads it" for _, call in reads)]
            explanations.append(asked.answered(f"{name}:tokens", "", relevance, begun, wired, where))
    return explanations
