"""What every tensor comes from, followed from operation to operation."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from heedmap.capture import operations as ops
from heedmap.capture.attention import Attention
from heedmap.capture.labels import Labels, union
from heedmap.capture.names import AUXILIARY
from heedmap.capture.offloading import Brought
from heedmap.capture.tap import Tap, Valve
from heedmap.records import Base, Mark, Name, Origin

EMPTY = Origin()  # nothing is upstream
REARRANGED, DETACHED = " (rearranged)", " (detached)"
ENTRY = str(Path(__file__).with_name("recording.py"))  # where the caller's own frames begin


class Tracker:
    """Keeps the origins of tensors while a model runs, and marks what they alone cannot tell."""

    def __init__(self, model: nn.Module, stems: bool) -> None:
        super().__init__()
        self.calls: list[Attention] = []
        self.names: list[Name] = []
        self.bases: list[Base] = []
        self.marks: list[Mark] = []
        self.sizes: dict[str, tuple[int, ...]] = {}  # the shape of each input
        self.stems: dict[int, Any] = {}  # where the graph begins at a base, by the number of the base
        self.after_model = False  # the target is being computed
        self.valve = Valve()
        self.anchor = torch.zeros((), requires_grad=True)
        self._stems = stems
        self._origins = Labels()
        self._touched: dict[int, tuple[StorageWeakRef, Origin]] = {}
        self._primary = 0  # the bits of names that are inputs with content of their own
        self._softmaxes = 0  # the bits of marks that are softmaxes
        self._modules = {id(module): path for path, module in model.named_modules()}
        self._paths = dict(model.named_modules())
        own = (*model.named_parameters(), *model.named_buffers())
        self._parameters = {id(t): name for name, t in own}
        self._kept = [t for _, t in own]  # so that no other tensor gets their ids where they are exchanged
        self.brought = Brought()
        self._brought = Labels()  # the names of parameters that a layer brought for its own forward
        self._parameter_origins: dict[str, Origin] = {}
        self._tapped: dict[int, tuple[Tensor, Tensor]] = {}  # beside each its parameter, so that its id stays its own

    def enter(self, name: str, tensor: Tensor) -> Tensor:
        """Take in a tensor of the model's inputs; the model is given what is returned."""
        self.sizes.setdefault(name, tuple(tensor.shape))
        kind = "auxiliary" if AUXILIARY.search(name) else "input"
        bit = self._name(Name(name, kind))
        if kind == "input":
            self._primary |= bit
        origin = Origin(names=bit)
        if tensor.is_floating_point():
            origin = origin | self._base(name, origin, tensor)
            if self._stems and kind == "input":
                tensor = self._tap_base(tensor)
        self._origins.set(tensor, origin)
        return tensor

    def _tap_base(self, tensor: Tensor) -> Tensor:
        """Let the graph begin where tokens were laid out last, so that the probe sees the first call."""
        if not tensor.is_floating_point() or not torch.is_grad_enabled():
            return tensor
        number = len(self.bases) - 1
        tapped: Any = Tap.apply(tensor, self.anchor, self.valve, -1 - number)
        self.stems[number] = torch.autograd.graph.get_gradient_edge(tapped)
        return tapped

    def _frozen(self, name: str, value: Any) -> Any:
        """The same arguments with parameters detached: they stay out of the graph, and are never touched."""
        if isinstance(value, Tensor):
            if not value.requires_grad or self._named(value) is None:
                return value
            return self._detached(name, value)
        if isinstance(value, (tuple, list)):
            return type(value)([self._frozen(name, item) for item in value]) if _plain(value) else value
        if isinstance(value, dict):
            return {key: self._frozen(name, item) for key, item in value.items()}
        return value

    def _detached(self, name: str, parameter: Tensor) -> Tensor:
        if not self._stems or not torch.is_grad_enabled() or name in ops.WEIGHTS or name == "embedding":
            return parameter.detach()
        if id(parameter) not in self._tapped:
            origin = self.origin(parameter)
            assert origin is not None
            number = origin.bases.bit_length() - 1
            tapped: Any = Tap.apply(parameter.detach(), self.anchor, self.valve, -1 - number)
            self.stems[number] = torch.autograd.graph.get_gradient_edge(tapped)
            self._tapped[id(parameter)] = parameter, tapped
        return self._tapped[id(parameter)][1]

    def origin(self, tensor: Tensor) -> Origin | None:
        known = self._origins.get(tensor)
        if self._touched and (known is None or id(tensor) not in self._parameters):
            reference, changed = self._touched.get(_memory(tensor), (None, None))
            if reference is not None and changed is not None and not reference.expired():
                known = changed if known is None else known | changed
        if known is not None:
            return known
        name = self._named(tensor)
        if name is None:
            return None
        if name not in self._parameter_origins:
            origin = Origin(names=self._name(Name(name, "parameter")))
            self._parameter_origins[name] = origin | self._base(name, origin, tensor)
        return self._parameter_origins[name]

    def _named(self, tensor: Tensor) -> str | None:
        """What a parameter or a buffer is called; one that is offloaded is another tensor in every forward."""
        name = self._parameters.get(id(tensor))
        if name is not None or not isinstance(tensor, nn.Parameter):
            return name
        name = self._brought.get(tensor)
        if name is None and (path := self._where()) in self._paths:
            held = self._paths[path]._parameters.items()
            own = next((own for own, parameter in held if parameter is tensor), None)
            if own is not None:
                name = f"{path}.{own}"
                self._brought.set(tensor, name)
                self.brought.note(self._paths[path], own, tensor)
        return name

    def _name(self, name: Name) -> int:
        if name not in self.names:
            self.names.append(name)
        return 1 << self.names.index(name)

    def _base(self, operation: str, origin: Origin, tensor: Tensor) -> Origin:
        self.bases.append(
            Base(operation, bool(origin.names & self._primary), origin.names, tuple(tensor.shape), origin.bases)
        )
        return Origin(bases=1 << (len(self.bases) - 1))

    def _rearranged(self, name: str, args: Any, origin: Origin) -> Origin:
        """A stream whose own tokens were put in another order is no longer called by its input alone."""
        source = args[2] if name == "__setitem__" else args[0] if args else None
        moved = name.strip("_") in ops.REARRANGES or ops.indexed(name, args)
        told = self.origin(source) if moved and isinstance(source, Tensor) else None
        if told is None or not told.names & self._primary:
            return origin
        texts = [n.text for i, n in enumerate(self.names) if told.names & self._primary & 1 << i]
        bit = self._name(Name("+".join(texts).removesuffix(REARRANGED) + REARRANGED, "input"))
        self._primary |= bit
        return origin._replace(names=origin.names & ~(told.names & self._primary) | bit)

    def _detached_choice(self, origin: Origin, tensor: Tensor) -> Origin:
        """Tokens that were chosen from those of a state and detached from it begin a stream; others stay what they are.

        A detector takes the best of its encoder's tokens so, as queries or as their places.
        """
        chosen = any(
            origin.marks >> bit & 1 and mark.kind == "move" and mark.operation.strip("_") in ops.CHOOSES
            for bit, mark in enumerate(self.marks)
        )
        if not origin.calls or not chosen:
            return origin
        own = origin.names & self._primary or origin.names
        texts = [n.text for i, n in enumerate(self.names) if own & 1 << i]
        begun = Origin(names=self._name(Name("+".join(texts) + DETACHED, "auxiliary")))
        return begun | self._base("detach", begun, tensor)

    def _touch(self, tensor: Tensor, origin: Origin) -> None:
        """A tensor was changed in place: so was all that shares its memory."""
        storage = tensor.untyped_storage()
        _, before = self._touched.get(storage._cdata, (None, EMPTY))
        self._touched[storage._cdata] = StorageWeakRef(storage), before | origin

    def _join(self, name: str, args: Any, kwargs: Any, operands: list[Tensor]) -> Origin | None:
        """The union of the operands' origins, marked where depths meet or tokens may be weighed."""
        known = [(tensor, self.origin(tensor)) for tensor in operands]
        joined = union(origin for _, origin in known)
        if joined is None or len(known) < 2:
            return joined
        floating = [(tensor, origin) for tensor, origin in known if tensor.is_floating_point()]
        if any(origin is None and tensor.requires_grad for tensor, origin in floating):
            joined |= self._mark("unseen", name, joined)
        labelled = [(tensor, origin) for tensor, origin in floating if origin is not None]
        if not joined.calls or len({origin for _, origin in labelled}) < 2:
            return joined
        depths = {(o.calls, o.names & self._primary) for _, o in labelled} - {(0, 0)}
        if len(depths) < 2:
            return self._weigh(name, joined, [origin for _, origin in labelled])
        if name.strip("_") in ops.SPLICES and not ops.keeps_tokens(name, args, kwargs, operands):
            joined |= self._mark("splice", name, joined)
        deeper, a = max(labelled, key=lambda item: item[1].calls)
        call = self.calls[a.calls.bit_length() - 1]
        tokens, channels = call.counts[0], call.values.shape[-1] * (call.lead[-1] if call.lead else 1)
        for older, b in labelled:
            if (b.calls, b.names & self._primary) in ((0, 0), (a.calls, a.names & self._primary)):
                continue
            tokenwise = all(_has_tokens(each, tokens, channels) for each in (deeper, older))
            if not tokenwise or _contains(a, b, self._primary):
                joined |= self._mark("join", name, joined, older=b, tokenwise=tokenwise)
        return self._weigh(name, joined, [origin for _, origin in labelled])

    def _weigh(self, name: str, joined: Origin, origins: list[Origin]) -> Origin:
        """Mark where the result of a softmax that met no seam multiplies what does not come from it."""
        if name.strip("_") not in ops.MULTIPLIES:
            return joined
        for weights in origins:
            for other in origins:
                lone = weights.marks & self._softmaxes & ~other.marks
                if lone and weights.calls & other.calls:
                    sizes = self.marks[lone.bit_length() - 1].sizes
                    return joined | self._mark("weighing", name, joined, sizes=sizes)
        return joined

    def _mark(self, kind: str, operation: str, upstream: Origin, **more: Any) -> Origin:
        self.marks.append(Mark(kind, operation, self._where(), upstream, after_model=self.after_model, **more))
        bit = 1 << (len(self.marks) - 1)
        if kind == "softmax":
            self._softmaxes |= bit
        return Origin(marks=bit)

    def _where(self) -> str:
        return innermost(self._modules) or ("the target" if self.after_model else "the model")


def innermost(modules: Mapping[int, str]) -> str | None:
    """The path of the innermost of these modules that is running, read off the stack: nothing is hooked."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != ENTRY:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in modules:
            return modules[id(owner)] or type(owner).__name__
        frame = frame.f_back
    return None


def _contains(a: Origin, b: Origin, primary: int) -> bool:
    """Whether a state holds all that an older one holds, and more."""
    mine, other = (a.calls, a.names & primary), (b.calls, b.names & primary)
    return mine != other and any(other) and not (other[0] & ~mine[0]) and not (other[1] & ~mine[1])


def _has_tokens(tensor: Tensor, count: int, channels: int) -> bool:
    """Whether tokens lie apart in a tensor: channels are last, or first, as convolutions have them."""
    if tensor.ndim == 2:
        return tensor.shape[0] % count == 0
    if channels != count and tensor.shape[1:] == (channels, count):
        return True
    return count in tensor.shape[:-1] or math.prod(tensor.shape[1:-1]) == count


def _memory(tensor: Tensor) -> int:
    """What tells the memory of a tensor; 0 inside vmap, where a tensor has none of its own."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # type: ignore[attr-defined]
    return 0 if wrapped else tensor.untyped_storage()._cdata


def _plain(value: Any) -> bool:
    return type(value) in (tuple, list, torch.Size)
