"""Which rule of `rules` an operation of the tape meets, by its name and by what its tensors are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from heedmap.capture import Recording
from heedmap.capture.labels import tensors
from heedmap.capture.operations import DATALESS, SDPA, in_place
from heedmap.capture.tape import Operation, Slot, Tape, weights_in
from heedmap.errors import UnsupportedError
from heedmap.methods import rules
from heedmap.records import Origin

SAME_NAME = {
    "iadd": "add", "radd": "add", "isub": "sub", "imul": "mul", "rmul": "mul", "multiply": "mul", "itruediv": "div",
    "truediv": "div", "true_divide": "div", "divide": "div", "subtract": "sub", "concat": "cat", "concatenate": "cat",
}  # fmt: skip
UNCHANGED = frozenset(
    """
    relu relu6 gelu silu mish tanh sigmoid elu selu celu leaky_relu softplus hardtanh hardswish hardsigmoid erf pow exp
    sqrt square abs neg clamp clip clamp_min clamp_max nan_to_num softmax log_softmax layer_norm rms_norm group_norm
    batch_norm normalize dropout detach view_as to type type_as float double half bfloat16 contiguous clone
    """.split()
)
ROUTED = frozenset(
    """
    view reshape reshape_as transpose permute movedim moveaxis swapaxes t flatten unflatten unsqueeze squeeze expand
    expand_as broadcast_to repeat repeat_interleave chunk split tensor_split unbind select narrow getitem get cat stack
    where masked_fill masked_scatter roll flip pad index_select gather take_along_dim tile
    """.split()
)
PRODUCTS = frozenset("matmul rmatmul bmm mm einsum baddbmm".split())
POOL = "adaptive_avg_pool1d"  # to one: a mean
CASTS = frozenset("detach view_as to type type_as float double half bfloat16 contiguous clone".split())
MAPS = frozenset("linear conv1d conv2d conv3d addmm".split())

Shares = Sequence[tuple[int, Tensor]]


class Rulebook:
    """`shares` hands the relevance of what an operation gave to what it took.

    What it comes across on the way is kept: the relevance of the weights of each call, and of a picture's pixels.
    """

    def __init__(self, tape: Tape, recording: Recording, calls: Mapping[int, int], orig: bool) -> None:
        self._tape = tape
        self._recording = recording
        self._calls = calls  # which call it is that gave a tensor
        self._orig = orig
        self._inputs = sum(1 << bit for bit, name in enumerate(recording.names) if name.kind == "input")
        self._sizes: Sequence[int] = ()
        self.weights: dict[int, Tensor] = {}
        self.painted: Tensor | None = None

    def begin(self, sizes: Sequence[int]) -> None:
        """Of an example: `sizes` is how many examples each call holds."""
        self._sizes, self.weights, self.painted = sizes, {}, None

    def shares(self, operation: Operation, given: Mapping[int, Tensor], stem: bool) -> Shares:
        name = _named(operation)
        if name == "embedding" or name in DATALESS:
            return []  # learned numbers, or none that come from anywhere
        if len(operation.gives) == 1:
            relevance = given[operation.gives[0]]
            if operation.function is SDPA:
                return self._attended(operation, relevance)
            if operation.gives[0] in self._calls:
                return self._weighed(operation, relevance)
            if name in ("add", "sub", "rsub"):
                return self._added(operation, relevance, name, stem)
            if name in ("mul", "div"):
                return self._scaled(operation, relevance, name)
            if name in UNCHANGED:
                return [self._to(operation.takes[0], relevance)]
            if name in ("sum", "mean", POOL):
                return self._summed(operation, relevance)
            if name in PRODUCTS:
                return self._multiplied(operation, relevance, name)
            if name in MAPS:
                return self._mapped(operation, relevance, name, stem)
        if name in ROUTED:
            return self._routed(operation, given)
        raise _no_rule(operation)

    def origin(self, number: int) -> Origin | None:
        return self._recording.origin(self._tape.tensor(number))

    def _content(self, number: int) -> bool:
        """Whether something of the inputs is in a tensor: masks, positions and learned parameters are none."""
        origin = self.origin(number)
        if origin is not None:
            return bool(origin.calls or origin.names & self._inputs)
        maker = self._tape.makers.get(number)  # as it was before it was changed in place: that has no label of its own
        return maker is not None and any(map(self._content, maker.takes))

    def scores(self) -> set[int]:
        """All that lies between queries, keys and the weights of calls that formed their own."""
        found: set[int] = set()
        waiting = []
        for number, index in self._calls.items():
            maker = self._tape.makers[number]
            if maker.function is not SDPA:
                waiting.append(weights_in(self._tape, maker, self._recording.calls[index])[0])
        while waiting:
            number = waiting.pop()
            maker = self._tape.makers.get(number)
            if number not in found and maker is not None:
                found.add(number)
                waiting += () if _named(maker) in PRODUCTS else maker.takes
        return found

    def _wide(self, number: int) -> Tensor:
        tensor = self._tape.tensor(number).detach()
        return tensor.to(at_least_single(tensor))

    def _to(self, number: int, relevance: Tensor) -> tuple[int, Tensor]:
        """Handed on unchanged; where the tensor was spread over several, they sum."""
        shape = self._tape.tensor(number).shape
        return number, relevance.reshape(shape) if relevance.numel() == shape.numel() else relevance.sum_to_size(shape)

    def _attended(self, operation: Operation, relevance: Tensor) -> Shares:
        """Fused attention, as if it were not."""
        index = self._calls[operation.gives[0]]
        call, batch = self._recording.calls[index], self._sizes[index]
        self.weights[index], *others = rules.attention(call.heads(batch), call.gradient(relevance, batch))
        numbers = [slot.number for slot in operation.args[:3]]
        folded = call.folded(tuple(others))
        return [self._to(number, each) for number, each in zip(numbers, folded, strict=True) if each is not None]

    def _weighed(self, operation: Operation, relevance: Tensor) -> Shares:
        """The product of values and of weights that the model formed itself, or that an edit put there."""
        index = self._calls[operation.gives[0]]
        call = self._recording.calls[index]
        weights, axes = weights_in(self._tape, operation, call)
        shares = self._product(operation, operation.takes[-2:], relevance)
        self.weights[index] = dict(shares)[weights].permute(axes).reshape(call.heads(self._sizes[index]).shape)
        return shares

    def _added(self, operation: Operation, relevance: Tensor, name: str, stem: bool) -> Shares:
        """What adds no content, a mask or a position, takes nothing; but a learned position does in the stem."""
        takes = operation.takes
        content = [number for number in takes if self._content(number)]
        if len(takes) == 1 or (len(content) == 1 and not stem):
            return [self._to((content or takes)[0], relevance)]
        signs = {"add": (1, operation.kwargs.get("alpha", 1)), "sub": (1, -1), "rsub": (-1, 1)}[name]
        addends = [sign * self._wide(number) for sign, number in zip(signs, takes, strict=True)]
        return list(zip(takes, rules.added(addends, relevance, not self._orig), strict=True))

    def _scaled(self, operation: Operation, relevance: Tensor, name: str) -> Shares:
        """A scale takes nothing: what has no content, what divides, what is one number for several. Else half each."""
        takes = operation.takes
        content = [number for number in takes if self._content(number)]
        if len(takes) == 1 or name == "div":
            return [self._to(takes[0], relevance)]
        if len(content) == 1:
            return [self._to(content[0], relevance)]
        sizes = [self._tape.tensor(number).numel() for number in takes]
        if sizes[0] != sizes[1]:
            return [self._to(takes[0 if sizes[0] > sizes[1] else 1], relevance)]
        return [self._to(number, relevance / 2) for number in takes]

    def _summed(self, operation: Operation, relevance: Tensor) -> Shares:
        x = self._wide(operation.takes[0])
        given = operation.kwargs.get("dim", operation.args[1] if len(operation.args) > 1 else None)
        if operation.name == POOL:
            given = -1 if relevance.shape[-1] == 1 else None
        if given is None:
            raise _no_rule(operation)
        axes = [axis % x.ndim for axis in ((given,) if isinstance(given, int) else given)]
        kept = relevance.reshape([1 if axis in axes else size for axis, size in enumerate(x.shape)])
        return [(operation.takes[0], rules.summed(x, axes, kept, not self._orig))]

    def _multiplied(self, operation: Operation, relevance: Tensor, name: str) -> Shares:
        """A learned matrix is a linear map of the other one; what baddbmm adds is a mask."""
        pair = operation.takes[1:] if name == "baddbmm" and len(operation.takes) == 3 else operation.takes
        if len(pair) != 2:
            raise _no_rule(operation)
        learned = [number for number in pair if self._learned(number)]
        if len(learned) != 1:
            return self._product(operation, pair, relevance)
        (x,) = set(pair) - set(learned)

        def function(x_: Tensor, weight: Tensor) -> Tensor:
            args, kwargs = self._tape.filled(operation, {x: x_, learned[0]: weight})
            return operation.function(*args, **kwargs)

        return [(x, rules.linear(function, self._wide(x), self._wide(learned[0]), relevance, self._orig))]

    def _product(self, operation: Operation, pair: Sequence[int], relevance: Tensor) -> Shares:
        def function(a: Tensor, b: Tensor) -> Tensor:
            if operation.name == "baddbmm":
                return a @ b
            args, kwargs = self._tape.filled(operation, {pair[0]: a, pair[1]: b})
            return operation.function(*args, **kwargs)

        shares = rules.bilinear(function, self._wide(pair[0]), self._wide(pair[1]), relevance)
        return list(zip(pair, shares, strict=True))

    def _learned(self, number: int) -> bool:
        """Whether a tensor is a parameter as it is, or laid out otherwise."""
        return not self._content(number) and self._source(number, ROUTED | UNCHANGED) is not None

    def _source(self, number: int, along: frozenset[str]) -> int | None:
        """The tensor that the pass began with, and that this one is by such operations alone."""
        while (maker := self._tape.makers.get(number)) is not None:
            if _named(maker) not in along or len(maker.takes) != 1:
                return None
            number = maker.takes[0]
        return number

    def _mapped(self, operation: Operation, relevance: Tensor, name: str, stem: bool) -> Shares:
        at = 1 if name == "addmm" else 0
        names = ("mat1", "mat2") if name == "addmm" else ("input", "weight")
        slots = [_argument(operation, at + place, each) for place, each in enumerate(names)]
        x, weight = (slot.number for slot in slots)
        rest = operation.args[3:] if name.startswith("conv") else ()
        more = {key: value for key, value in operation.kwargs.items() if key not in ("input", "weight", "bias")}

        def function(x: Tensor, weight: Tensor) -> Tensor:
            if name == "addmm":
                return x @ weight
            return operation.function(x, weight, None, *rest, **more)

        if stem and name == "conv2d":
            if self._source(x, CASTS) is None:
                raise _no_rule(operation)
            self.painted = rules.box(function, self._wide(x), self._wide(weight), relevance).sum(1)
            return []
        if name != "linear":
            return [(x, rules.linear(function, self._wide(x), self._wide(weight), relevance, self._orig))]
        took, given = self._wide(x), relevance.reshape(-1, relevance.shape[-1])
        rows = given.any(-1)  # only rows that hold relevance cost anything
        took = took.reshape(-1, took.shape[-1])
        share = torch.zeros_like(took)
        share[rows] = rules.linear(function, took[rows], self._wide(weight), given[rows], self._orig)
        return [self._to(x, share)]

    def _routed(self, operation: Operation, given: Mapping[int, Tensor]) -> Shares:
        """Where the numbers came from, by the operation's own transpose."""
        with torch.enable_grad():
            leaves = {number: self._wide(number).requires_grad_() for number in operation.takes}
            changed = in_place(operation.name)
            args, kwargs = self._tape.filled(
                operation, {number: leaf.clone() if changed else leaf for number, leaf in leaves.items()}
            )
            results = [each for each in tensors(operation.function(*args, **kwargs)) if each.is_floating_point()]
            pairs = [(r, given[n]) for r, n in zip(results, operation.gives, strict=True) if n in given]
            if not all(result.requires_grad for result, _ in pairs):
                raise _no_rule(operation)
            found = torch.autograd.grad(
                [result for result, _ in pairs], list(leaves.values()), [each for _, each in pairs], allow_unused=True
            )
        return [(number, each) for number, each in zip(leaves, found, strict=True) if each is not None]


def _named(operation: Operation) -> str:
    name = operation.name.strip("_")
    return SAME_NAME.get(name, name)


def _argument(operation: Operation, position: int, name: str) -> Slot:
    return operation.args[position] if len(operation.args) > position else operation.kwargs[name]


def at_least_single(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _no_rule(operation: Operation) -> UnsupportedError:
    return UnsupportedError(
        f"Relevance arrives at {operation.name} in {operation.module}, an operation that no rule of layer-wise "
        "relevance propagation is known for. lrp, partial-lrp and t-attr expected linear maps, attention, sums and "
        "activations, as in ViT, DeiT, BERT and CLIP; use heed or gae here."
    )
