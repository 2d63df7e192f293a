"""One forward pass, recorded; and the backward passes that read it."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.capture.attention import Attention
from heedmap.capture.names import arguments, unwrapped
from heedmap.capture.recorder import Recorder
from heedmap.capture.tap import Gradients, Wanted
from heedmap.errors import InputError, NoAttentionError
from heedmap.records import Base, Heads, Mark, Name, Origin

Again = Callable[[], contextlib.AbstractContextManager["Recording"]]
Step = Callable[[int, Heads, Tensor, Wanted | None], tuple[bool, Gradients | None]]

_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_locks_guard = threading.Lock()
_stances: list[None] = []  # one for every thread that runs a model eagerly
_stance: list[Any] = []


class Recording:
    """What one forward pass left behind."""

    def __init__(self, recorder: Recorder, output: Any, again: Again) -> None:
        self._recorder = recorder
        self.output = output
        self.rooted = again  # the same run once more, with a graph that begins where tokens are laid out

    @property
    def calls(self) -> Sequence[Attention]:
        return self._recorder.calls

    @property
    def names(self) -> Sequence[Name]:
        return self._recorder.names

    @property
    def bases(self) -> Sequence[Base]:
        return self._recorder.bases

    @property
    def marks(self) -> Sequence[Mark]:
        return self._recorder.marks

    @property
    def sizes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each input."""
        return self._recorder.sizes

    def origin(self, tensor: Tensor) -> Origin | None:
        """What a tensor of the forward pass was computed from."""
        return self._recorder.origin(tensor)

    @property
    def stemmed(self) -> bool:
        """Whether the graph begins where tokens were laid out, so that the first calls can be probed too."""
        return bool(self._recorder.stems)

    @property
    def digest(self) -> int:
        """Of all operations met with their numbers, in order."""
        return self._recorder.digest

    @property
    def unsteady(self) -> bool:
        """Whether something met may mix tokens on one input, and not on another."""
        return self._recorder.unsteady

    @property
    def causal(self) -> bool:
        """Whether some call lets its tokens look only back."""
        return any(call.looks_back() for call in self.calls)

    def forget(self) -> None:
        """Let go of all tensors, to make room for another recording."""
        self.output = None
        for call in self.calls:
            call.release()
        self._recorder.stems.clear()

    def evaluate(self, target: Callable[[Any], Tensor]) -> tuple[Tensor, Origin | None]:
        """A target's value, and what it was computed from."""
        recorder = self._recorder
        recorder.after_model = True
        with graph_on(), recorder:
            value = target(self.output)
        return value, recorder.origin(value)

    def backward(self, value: Tensor, batches: Sequence[int], step: Step, keep: bool) -> None:
        """Deliver each call with the gradient of its output, last call first; `keep` the graph for another target.

        `step` says whether it holds on to the call's tensors; else they are let go at once. It may also return the
        gradients of queries, keys and values, if it has formed those that are wanted.
        """

        def meet(index: int, gradient: Tensor, wanted: Wanted | None) -> Gradients | None:
            if index < 0:
                return None
            call, batch = self.calls[index], batches[index]
            with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
                held, found = step(index, call.heads(batch), call.gradient(gradient, batch), wanted)
                found = None if found is None else call.folded(found)
            if not keep and not held:
                call.release()
            return found

        valve = self._recorder.valve
        valve.visit = meet
        try:
            torch.autograd.grad(value.sum(), self._recorder.anchor, retain_graph=keep, allow_unused=True)
        finally:
            valve.visit = None

    def pull(
        self, tensors: Sequence[Tensor], cotangents: Sequence[Tensor], at: Sequence[int] | None = None
    ) -> dict[int, Tensor]:
        """The gradient at the outputs of calls (all, or those named) of `cotangents` at `tensors`.

        Only along paths that pass through no attention; what is not reached is left out. Bases count backward: -1 is
        the first, and they are looked at where no calls are named.
        """
        edges = {call.index: call.edge for call in self.calls if call.edge is not None}
        edges |= {-1 - number: edge for number, edge in self._recorder.stems.items()}
        if at is not None:
            edges = {index: edges[index] for index in at if index in edges}
        if not edges:
            return {}
        valve = self._recorder.valve
        valve.closed = True
        try:
            found = torch.autograd.grad(tensors, list(edges.values()), cotangents, retain_graph=True, allow_unused=True)
        finally:
            valve.closed = False
        return {index: each for index, each in zip(edges, found, strict=True) if each is not None}

    def pull_to(self, places: Sequence[tuple[Any, int]], tensor: Tensor, cotangent: Tensor) -> list[Tensor | None]:
        """The gradient of `cotangent` at a tensor, at some places of the graph (node, number of its output)."""
        edges = [torch.autograd.graph.GradientEdge(node, number) for node, number in places]
        self._recorder.valve.closed = True
        try:
            found = torch.autograd.grad([tensor], edges, [cotangent], retain_graph=True, allow_unused=True)
        finally:
            self._recorder.valve.closed = False
        return list(found)


@contextlib.contextmanager
def record(
    model: nn.Module, inputs: Any, stems: bool = False, edits: Mapping[int, Tensor] | None = None
) -> Iterator[Recording]:
    """Run the model once, as it stands, and record it. One model is recorded by one thread at a time.

    With `stems` the graph begins where tokens are laid out, not at the first calls, so that these can be probed.
    `edits` are weights (batch, head, query, key) that stand in place of what the softmax of a call would give.
    """
    before = torch.get_rng_state()

    @contextlib.contextmanager
    def rooted() -> Iterator[Recording]:
        now = torch.get_rng_state()
        torch.set_rng_state(before)
        try:
            with record(model, inputs, True, edits) as whole:
                yield whole
        finally:
            torch.set_rng_state(now)

    with _lock(model), graph_on():
        inner, compiled = unwrapped(model)
        recorder = Recorder(inner, stems, edits)
        args, kwargs = arguments(inner, inputs, recorder.enter)
        with _eagerly(compiled), recorder.brought.within(inner), recorder:
            output = inner(*args, **kwargs)
        if not recorder.calls:
            raise _no_attention(inner, recorder)
        left = sorted(set(recorder.edits) - set(range(len(recorder.calls))))
        if left:
            raise InputError(
                f"edits names {', '.join(map(str, left))}, and {type(inner).__name__} attends {len(recorder.calls)} "
                f"times. heedmap expected numbers of calls, 0 to {len(recorder.calls) - 1}."
            )
        yield Recording(recorder, output, rooted)


@contextlib.contextmanager
def graph_on() -> Iterator[None]:
    """Gradients are computed whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextlib.contextmanager
def _eagerly(compiled: bool) -> Iterator[None]:
    """Compiled code runs as it was written: inside a graph of its own nothing can be seen.

    torch keeps one stance for the whole process, so the first thread to come sets it and the last to go restores it.
    """
    if not compiled and "torch._dynamo" not in sys.modules:
        yield
        return
    with _locks_guard:
        _stances.append(None)
        if len(_stances) == 1:
            _stance[:] = [torch.compiler.set_stance("force_eager")]
            _stance[0].__enter__()
    try:
        yield
    finally:
        with _locks_guard:
            _stances.pop()
            if not _stances:
                _stance.pop().__exit__(None, None, None)


def _lock(model: nn.Module) -> threading.RLock:
    with _locks_guard:
        return _locks.setdefault(model, threading.RLock())


def _no_attention(model: nn.Module, recorder: Recorder) -> NoAttentionError:
    softmaxes = [mark for mark in recorder.marks if mark.kind == "softmax"]
    hint = (
        f"A softmax was met in {softmaxes[0].module}, but its result weighs nothing by a matrix product. "
        if softmaxes
        else ""
    )
    return NoAttentionError(
        f"No attention was met in {type(model).__name__}. heedmap sees scaled_dot_product_attention, "
        f"softmax followed by a matrix product, and multi_head_attention_forward. {hint}"
        "Explain a model that attends, or write its attention in one of these forms."
    )
