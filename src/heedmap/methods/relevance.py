"""The relevance pass of the LRP family: backward over the tape of an unmodified model, a rule for each operation.

It begins at what the target read of the output, with the target's gradient there: for a logit, 1 at this logit. It ends
where tokens were laid out, before their first attention; from there it goes on to the pixels of a picture, if only a
convolution lies between. The relevance of the weights of each call is kept on the way. Each example has a pass of its
own, because the rule of sums takes totals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heedmap.capture import Recording
from heedmap.capture.tape import Operation, Tape
from heedmap.checking import recorded
from heedmap.errors import InputError, UnsupportedError
from heedmap.methods.asking import Question
from heedmap.methods.rulebook import Rulebook, at_least_single
from heedmap.records import Wiring
from heedmap.streams import Declaration

RULES = ("ours", "orig")

Watch = Callable[[Operation, Mapping[int, Tensor]], None]


@dataclass(frozen=True)
class Arrived:
    """Where the relevance of one target came to."""

    weights: Mapping[int, Tensor]  # of each call, (batch, head, query, key)
    tokens: Mapping[str, Tensor]  # of each stream as it was laid out, (batch, token)
    pixels: Tensor | None  # (batch, height, width)


@contextlib.contextmanager
def taped(
    model: nn.Module,
    inputs: Any,
    rules: str,
    wiring: Declaration | None = None,
    verify: str | bool = "once",
    edits: Mapping[int, Tensor] | None = None,
) -> Iterator[tuple[Recording, Wiring, Pass]]:
    """Run, wire and tape a model, for a pass by the rules of this name."""
    if rules not in RULES:
        raise InputError(f"rules is {rules!r}. heedmap expected {' or '.join(map(repr, RULES))}.")
    tape = Tape(model)
    with contextlib.ExitStack() as stack:
        with tape:
            recording, wired = stack.enter_context(recorded(model, inputs, wiring, verify, edits, stems=True))
        yield recording, wired, Pass(tape, recording, wired, orig=rules == "orig")


class Pass:
    """Begin it at a question: `arrived`. `watch` is told of each operation, and of all relevance that is on its way."""

    def __init__(self, tape: Tape, recording: Recording, wiring: Wiring, orig: bool) -> None:
        self._tape = tape
        self._recording = recording
        self._wiring = wiring
        self._edges = tape.edges()
        self._book = Rulebook(tape, recording, tape.calls(recording.calls, self._edges), orig)
        self._scores = self._book.scores()
        self.watch: Watch | None = None

    def arrived(self, asked: Question, only: Collection[int] = ()) -> Arrived:
        """`only`: the pass may end when it has come to the weights of these calls."""
        began = self._begun(asked.value)
        weights: dict[int, Tensor] = {}
        tokens: dict[str, list[Tensor]] = {}
        painted = []
        with torch.no_grad(), torch.autocast(asked.value.device.type, enabled=False):
            for example in range(len(asked.value)):
                self._book.begin(asked.sizes)
                came = self._down({number: seeds[example] for number, seeds in began.items()}, only)
                for index, each in self._book.weights.items():
                    weights[index] = weights[index] + each if index in weights else each
                for stream, (number, each) in came.items():
                    tokens.setdefault(stream, []).append(self._by_token(each, stream, asked, example))
                    self._paint(stream, number, each)
                if self._book.painted is not None:
                    painted.append(self._book.painted.unflatten(0, (len(asked.value), -1))[example])
        whole = {name: torch.cat(tokens[name]) for name in self._wiring.tokens if name in tokens}
        return Arrived(weights, whole, torch.cat(painted) if painted else None)

    def _paint(self, stream: str, number: int, relevance: Tensor) -> None:
        """Follow a picture's tokens to its pixels, where only a convolution of the picture itself lies between."""
        if any(len(self._recording.sizes.get(name, ())) == 4 for name in stream.split("+")):
            with contextlib.suppress(UnsupportedError):
                self._down({number: relevance}, stem=True)

    # -- where it begins ---------------------------------------------------------------------------------------------

    def _begun(self, value: Tensor) -> dict[int, list[Tensor]]:
        """The gradient of each example's number by what the target read of the model, by the number of that tensor."""
        read = self._read(value)
        tensors = [self._tape.tensor(number) for number in read]
        found: dict[int, list[Tensor]] = {number: [] for number in read}
        for example in range(len(value)):
            gradients = torch.autograd.grad(value[example], tensors, retain_graph=True, allow_unused=True)
            for number, tensor, gradient in zip(read, tensors, gradients, strict=True):
                given = torch.zeros_like(tensor) if gradient is None else gradient
                found[number].append(given.to(at_least_single(tensor)))
        return found

    def _read(self, value: Tensor) -> list[int]:
        """The tensors of the forward pass that the target was computed from directly."""
        read: set[int] = set()
        met: set[Any] = set()
        waiting: list[tuple[Any, int]] = [(value.grad_fn, value.output_nr)]
        while waiting:
            edge = waiting.pop()
            if edge[0] is None or edge in met:
                continue
            met.add(edge)
            if edge in self._edges:
                read.add(self._edges[edge])
            else:
                waiting.extend(edge[0].next_functions)
        if any(self._tape.behind(later) & read for later in read):
            raise UnsupportedError(
                "The target reads two tensors of the model's output, and one is made from the other. heedmap "
                "expected relevance to begin at one depth; explain each part by itself."
            )
        return sorted(read)

    # -- the pass ----------------------------------------------------------------------------------------------------

    def _down(
        self, pending: dict[int, Tensor], only: Collection[int] = (), stem: bool = False
    ) -> dict[str, tuple[int, Tensor]]:
        """Go through the operations, last first. A stream's relevance is taken where all of it has come together.

        In the `stem`, before the first attention, nothing is taken, and learned positions have a share of their own.
        """
        tokens: dict[str, tuple[int, Tensor]] = {}
        for operation in reversed(self._tape.operations):
            given = {number: pending[number] for number in operation.gives if number in pending}
            if not given:
                continue
            if self.watch is not None and not stem:
                self.watch(operation, pending | dict(tokens.values()))
            stream = None if stem or len(given) > 1 else self._gathered(next(iter(given)), pending)
            for number in given:
                del pending[number]
            if stream is not None and stream not in tokens:
                tokens[stream] = next(iter(given.items()))
                continue
            for number, share in self._book.shares(operation, given, stem):
                pending[number] = pending[number] + share if number in pending else share
            if only and set(only) <= self._book.weights.keys():
                return {}
        for number in () if stem else list(pending):  # tokens that are a learned parameter, or an input as it is
            stream = self._gathered(number, pending)
            if stream is not None and stream not in tokens:
                tokens[stream] = number, pending.pop(number)
        return tokens

    def _gathered(self, number: int, pending: Mapping[int, Tensor]) -> str | None:
        """The stream of which all relevance that is on its way is here."""
        stream = self._stream(number)
        alone = stream is not None and all(self._stream(other) != stream for other in pending if other != number)
        return stream if alone and (not self._wiring.moved or self._as_entered(number, stream)) else None

    def _as_entered(self, number: int, stream: str | None) -> bool:
        """Whether the tokens of a tensor stand as they were laid out: in windows they do not."""
        layouts, shape = self._wiring.layouts.get(stream or "", 0), tuple(self._tape.tensor(number).shape)
        for base in (base for bit, base in enumerate(self._recording.bases) if layouts >> bit & 1):
            if not base.operation.startswith("conv"):
                if shape[:-1] == base.shape[:-1]:
                    return True
            elif shape == base.shape or shape[:-1] in ((base.shape[0], base.tokens), (base.tokens,)):
                return True
        return False

    def _by_token(self, relevance: Tensor, stream: str, asked: Question, example: int) -> Tensor:
        """The relevance of each token of one example, or of each of its pictures, (picture, token)."""
        tokens = self._wiring.tokens[stream]
        if not self._wiring.moved:
            return _by_token(relevance, tokens, example)[None]
        if relevance.ndim == 4 and relevance.shape[-2:].numel() == tokens:
            relevance = relevance.flatten(2).mT
        if relevance.shape[:-1].numel() != asked.examples(stream, self._wiring) * tokens:
            raise _laid_out(relevance, tokens)
        return relevance.sum(-1).reshape(len(asked.value), -1, tokens)[example]

    def _stream(self, number: int) -> str | None:
        """The stream that a tensor is a part of, before any attention."""
        origin = self._book.origin(number)
        if origin is None or origin.calls or number in self._scores:
            return None
        return next((name for name, bases in self._wiring.layouts.items() if origin.bases & bases), None)


def _by_token(relevance: Tensor, tokens: int, example: int) -> Tensor:
    """One example's relevance of each token: all that is not of the example is 0."""
    if relevance.ndim == 4 and relevance.shape[-2:].numel() == tokens:
        return relevance.sum((0, 1)).flatten()
    axes = [axis for axis in range(relevance.ndim - 1) if relevance.shape[axis] == tokens]
    if not axes or relevance.ndim > 3:
        raise _laid_out(relevance, tokens)
    if len(axes) == 2:  # as many tokens as examples
        rows = relevance.flatten(1).any(1)
        rows[example] = False
        axes = [0] if bool(rows.any()) else [1]
    return relevance.sum([axis for axis in range(relevance.ndim) if axis != axes[0]])


def _laid_out(relevance: Tensor, tokens: int) -> UnsupportedError:
    return UnsupportedError(
        f"{tokens} tokens were laid out as {tuple(relevance.shape)}. heedmap expected (batch, token, channel)."
    )
