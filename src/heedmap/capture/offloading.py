"""Weights that a hook, accelerate's, brings before the forward of a layer and drops behind it.

A graph would keep each of them until its backward pass, and with them the whole model on the device that computes. Here
it keeps where they come from, and brings them once more when the backward pass arrives.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef


class Place(NamedTuple):
    """Where a weight comes from, and how the saved tensor lies in it."""

    source: Any
    name: str
    device: torch.device
    dtype: torch.dtype
    layout: tuple[torch.Size, tuple[int, ...], int]

    def bring(self) -> Tensor:
        return self.source[self.name].to(self.device, self.dtype).contiguous().as_strided(*self.layout)


class Brought:
    """The weights that are there now, by their memory."""

    def __init__(self) -> None:
        self._sources: dict[int, tuple[StorageWeakRef, Any, str, torch.dtype]] = {}

    def note(self, module: nn.Module, name: str, weight: Tensor) -> None:
        source = _source(module)
        if source is None or not weight.is_floating_point() or not weight.is_contiguous() or name not in source:
            return
        storage = weight.untyped_storage()
        self._sources[storage._cdata] = StorageWeakRef(storage), source, name, weight.dtype

    def keep(self, tensor: Tensor) -> Tensor | Place:
        storage = tensor.untyped_storage()
        reference, source, name, dtype = self._sources.get(storage._cdata, (None, None, "", None))
        if reference is None or reference.expired() or tensor.dtype != dtype:
            return tensor
        layout = (tensor.shape, tensor.stride(), int(tensor.storage_offset()))
        return Place(source, name, tensor.device, tensor.dtype, layout)

    def within(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Inside, a graph keeps places instead of weights; where nothing is offloaded, a graph as any other."""
        if all(_source(module) is None for module in model.modules()):
            return contextlib.nullcontext()
        return torch.autograd.graph.saved_tensors_hooks(self.keep, _brought_again)


def offloaded(model: nn.Module, name: str) -> bool:
    """Whether a parameter is brought by the hook of its layer or of a module around it."""
    paths = name.split(".")[:-1]
    around = (model.get_submodule(".".join(paths[:depth])) for depth in range(len(paths) + 1))
    return any(getattr(hook, "offload", False) for module in around for hook in _hooks(module))


def _brought_again(kept: Tensor | Place) -> Tensor:
    return kept.bring() if isinstance(kept, Place) else kept


def _source(module: nn.Module) -> Any:
    """The mapping of names to weights that a module's hook brings them from."""
    return next(
        (getattr(hook, "weights_map", None) for hook in _hooks(module) if getattr(hook, "offload", False)), None
    )


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    hook = getattr(module, "_hf_hook", None)
    return () if hook is None else (hook, *getattr(hook, "hooks", ()))
