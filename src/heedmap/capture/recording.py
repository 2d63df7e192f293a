"""One forward pass, recorded; and the backward passes that read it."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.capture.attention import Attention
from heedmap.capture.names import arguments, unwrapped
from heedmap.capture.recorder import Recorder
from heedmap.errors import NoAttentionError
from heedmap.records import Base, Heads, Mark, Name, Origin

Step = Callable[[int, Heads, Tensor], bool]

_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_locks_guard = threading.Lock()


class Recording:
    """What one forward pass left behind."""

    def __init__(self, recorder: Recorder, output: Any, sizes: dict[str, tuple[int, ...]]) -> None:
        self._recorder = recorder
        self.output = output
        self.sizes = sizes  # the shape of each input

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
    def causal(self) -> bool:
        """Whether some call lets its tokens look only back."""
        return any(call.looks_back() for call in self.calls)

    def evaluate(self, target: Callable[[Any], Tensor]) -> tuple[Tensor, Origin | None]:
        """A target's value, and what it was computed from."""
        recorder = self._recorder
        recorder.after_model = True
        with graph_on(), recorder:
            value = target(self.output)
        return value, recorder.origin(value)

    def backward(self, value: Tensor, batches: Sequence[int], step: Step, keep: bool) -> None:
        """Deliver each call with the gradient of its output, last call first; `keep` the graph for another target.

        A call's tensors are let go as soon as `step` says that it does not hold on to them.
        """

        def meet(index: int, gradient: Tensor) -> None:
            call, batch = self.calls[index], batches[index]
            with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
                held = step(index, call.heads(batch), call.gradient(gradient, batch))
            if not keep and not held:
                call.release()

        valve = self._recorder.valve
        valve.visit = meet
        try:
            torch.autograd.grad(value.sum(), self._recorder.anchor, retain_graph=keep, allow_unused=True)
        finally:
            valve.visit = None

    def pull(self, tensors: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradient at every call's output of `cotangents` at `tensors`, along paths through no attention."""
        edges = [call.edge for call in self.calls if call.edge is not None]
        valve = self._recorder.valve
        valve.closed = True
        try:
            found = iter(torch.autograd.grad(tensors, edges, cotangents, retain_graph=True, allow_unused=True))
        finally:
            valve.closed = False
        return [None if call.edge is None else next(found) for call in self.calls]


@contextlib.contextmanager
def record(model: nn.Module, inputs: Any) -> Iterator[Recording]:
    """Run the model once, as it stands, and record it. One model is recorded by one thread at a time."""
    with _lock(model), graph_on():
        inner, compiled = unwrapped(model)
        args, kwargs, named = arguments(inner, inputs)
        recorder = Recorder(inner, named)
        with _eagerly(compiled), recorder:
            output = inner(*args, **kwargs)
        if not recorder.calls:
            raise _no_attention(inner, recorder)
        sizes = {}
        for name, tensor in named:
            sizes.setdefault(name, tuple(tensor.shape))
        yield Recording(recorder, output, sizes)


@contextlib.contextmanager
def graph_on() -> Iterator[None]:
    """Gradients are computed whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _eagerly(compiled: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


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
