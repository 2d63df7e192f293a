"""One question put to the model again, on other inputs: what the methods share that run it many times.

Runs that differ only in numbers stand beside one another in a batch, as many as `batch_size` examples, where that is
certain to change nothing: every tensor given holds one part per example, the answer reads one stream, and the output
can be cut up. Elsewhere they are run one by one. A run is always of all the examples that were given.

Inputs are scaled as a whole: floating ones by their numbers, token ids by what they are embedded as; masks, positions
and the like stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from heedmap.capture import record
from heedmap.capture.names import AUXILIARY, arguments, unwrapped
from heedmap.errors import InputError, QuotientError, UnsupportedError
from heedmap.methods.asking import Question
from heedmap.methods.dense import changed
from heedmap.records import Call, State, Wiring
from heedmap.targets import evaluate
from heedmap.targets.expressions import Logit, leaves
from heedmap.targets.fields import logits_of

Progress = Callable[[int, int], None]  # how many of the runs are done, and how many there are
Take = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Again:
    """One question, ready to be put again."""

    model: nn.Module
    inputs: Any
    asked: Question
    together: int  # how many runs stand beside one another

    @staticmethod
    def of(model: nn.Module, inputs: Any, asked: Question, batch_size: int) -> Again:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}. heedmap expected a whole number, at least 1.")
        inner, _ = unwrapped(model)
        args, kwargs = arguments(inner, inputs, lambda name, tensor: tensor)
        given: Any = kwargs or args
        examples = len(asked.value)
        sizes = {leaf.shape[:1] for leaf in tree_leaves(given) if isinstance(leaf, Tensor)}
        alike = asked.apart and sizes == {torch.Size([examples])}
        return Again(inner, given, asked, max(1, batch_size // examples) if alike else 1)

    def parts(self, runs: int, progress: Progress | None) -> Iterator[slice]:
        """The runs that stand beside one another."""
        for start in range(0, runs, self.together):
            stop = min(start + self.together, runs)
            yield slice(start, stop)
            if progress is not None:
                progress(stop, runs)

    def given(self, runs: int, take: Take = lambda name, tensor: tensor) -> Any:
        """The inputs, `runs` times along the batch axis; of each tensor what `take` makes of it."""

        def several(name: str, tensor: Tensor) -> Tensor:
            return take(name, tensor.repeat(runs, *(1,) * (tensor.ndim - 1)) if runs > 1 else tensor)

        args, kwargs = arguments(self.model, self.inputs, several)
        return kwargs or args

    def run(self, given: Any) -> Any:
        """The model's output, as it is."""
        return self.model(**given) if isinstance(given, Mapping) else self.model(*given)

    def value(self, output: Any, runs: int) -> Tensor:
        """The target of every run, (run * example)."""
        asked = self.asked
        try:
            return torch.cat([evaluate(asked.settled, part, asked.context) for part in self._cut(output, runs)])
        except QuotientError as error:
            raise QuotientError(f"On an input that this method makes of yours: {error}") from error

    def likelihood(self, output: Any, runs: int) -> Tensor:
        """As `value`, with the probability of each class in place of its logit; a callable has its own number."""
        asked = self.asked
        if not all(isinstance(leaf, Logit) for leaf in leaves(asked.settled)):
            return self.value(output, runs)
        logits = [logits_of(part, asked.context) for part in self._cut(output, runs)]
        likely = [each.to(torch.promote_types(each.dtype, torch.float32)).softmax(-1) for each in logits]
        return torch.cat([evaluate(asked.settled, each, asked.context) for each in likely])

    def _cut(self, output: Any, runs: int) -> Iterator[Any]:
        examples = len(self.asked.value)
        for start in range(0, runs * examples, examples):
            end, whole = start + examples, runs * examples

            def cut(leaf: Any, start: int = start, end: int = end, whole: int = whole) -> Any:
                return leaf[start:end] if isinstance(leaf, Tensor) and leaf.shape[:1] == (whole,) else leaf

            yield output if runs == 1 else tree_map(cut, output)


class Scaled(TorchFunctionMode):
    """While this lasts, what ids are embedded as is scaled by `factors`, one for each example.

    Given `kept`, whatever is scaled becomes a leaf of the graph, kept by its input's name beside what it was before.
    """

    def __init__(self, factors: Tensor, kept: dict[str, list[tuple[Tensor, Tensor]]] | None = None) -> None:
        super().__init__()
        self._factors = factors
        self._kept = kept
        self._ids: dict[tuple[int, int], str] = {}  # where they lie, and how many: a model may look at them reshaped
        self._met: set[str] = set()

    def take(self, name: str, tensor: Tensor) -> Tensor:
        """An input on the path: scaled if it is floating, remembered if it holds ids."""
        if AUXILIARY.search(name) or tensor.dtype == torch.bool:
            return tensor
        if tensor.is_floating_point():
            return self._scaled(name, tensor)
        self._ids[tensor.data_ptr(), tensor.numel()] = name
        return tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if getattr(func, "__name__", "") != "embedding":
            return result
        ids = args[0] if args else kwargs["input"]
        name = self._ids.get((ids.data_ptr(), ids.numel()))
        if name is None or len(result) != len(self._factors):
            return result
        self._met.add(name)
        return self._scaled(name, result)

    def check(self) -> None:
        """Refuse ids that were never embedded: the path would not lead to them."""
        for name in sorted(set(self._ids.values()) - self._met):
            raise UnsupportedError(
                f"{name!r} is neither floating numbers nor ids that the model embeds, so it cannot be scaled. heedmap "
                "expected inputs that a path from nothing can lead to; use heed or gae here."
            )

    def _scaled(self, name: str, tensor: Tensor) -> Tensor:
        scaled = tensor * self._factors.to(tensor).view(-1, *(1,) * (tensor.ndim - 1))
        if self._kept is None:
            return scaled
        leaf = scaled.detach().requires_grad_()
        self._kept.setdefault(name, []).append((leaf, tensor.detach()))
        return leaf.clone()  # a model may change it in place


def factors(at: Sequence[float], examples: int) -> Tensor:
    """A factor for each example of each run."""
    return torch.tensor(at, dtype=torch.float64).repeat_interleave(examples)


def felt(
    again: Again, calls: Sequence[int], steps: int, edits: Mapping[int, Tensor] | None, progress: Progress | None
) -> dict[int, Tensor]:
    """The gradient of the target by the weights of its last calls, averaged over the path from nothing to the inputs.

    (batch, head, query, key), at `steps` points of which the first is 0 and the last is 1.
    """
    if steps < 2:
        raise InputError(f"steps is {steps!r}. heedmap expected at least 2: nothing, and the inputs.")
    examples = len(again.asked.value)
    at = torch.linspace(0, 1, steps, dtype=torch.float64).tolist()
    total: dict[int, Tensor] = {}
    for part in again.parts(steps, progress):
        scale = Scaled(factors(at[part], examples))
        runs = len(at[part])
        for index, gradient in _gradients(again, again.given(runs, scale.take), runs, calls, edits, scale).items():
            total[index] = total.get(index, 0) + gradient.unflatten(0, (runs, -1)).sum(0) / steps
    return total


def _gradients(
    again: Again, given: Any, runs: int, calls: Sequence[int], edits: Mapping[int, Tensor] | None, scale: Scaled
) -> dict[int, Tensor]:
    """The gradient of each run's target by the weights of its last calls."""
    several = {index: edit.repeat(runs, 1, 1, 1) for index, edit in (edits or {}).items()}
    with scale, record(again.model, given, edits=several) as recording:
        scale.check()
        value, _ = recording.evaluate(lambda output: again.value(output, runs))
        reached = recording.pull([value], [torch.ones_like(value)], calls)
        found = {}
        for index in calls:
            batch = runs * again.asked.sizes[index]
            heads = recording.calls[index].heads(batch)
            with torch.autocast(value.device.type, enabled=False):
                gradient = reached.get(index)
                if gradient is None:
                    found[index] = heads.values.new_zeros(heads.shape)
                else:
                    found[index] = changed(heads, recording.calls[index].gradient(gradient, batch)).to(value.device)
    return found


def beginning(first: int | None, calls: int, part: int) -> int:
    """The first call that counts: `first`, or behind one `part`-th of them; the last one always does."""
    if first is None:
        return calls // part
    if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first < calls:
        raise InputError(f"first is {first!r}. heedmap expected one of the stream's calls, 0 to {calls - 1}.")
    return first


def own_calls(wiring: Wiring, asked: Question, state: State, takes: str) -> list[Call]:
    """The calls that a state is made of, first to last, if all of them read the stream itself."""
    found = [wiring.calls[index] for index in sorted(asked.upstream(wiring, [state]))]
    for call in found:
        if call.read != call.reading:
            raise UnsupportedError(f"Call {call.index} ({call.module}): {call.reading} reads {call.read}. {takes}")
    return found
