"""Devices that are not there: tensors that say where they lie, and operations that refuse to mix them.

An operation on tensors of two devices fails as it does on accelerators; numbers and indices may come from the first
processor. What is computed is computed on the processor, so results can be compared bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
HERE, FAR, FARTHER = torch.device("cpu"), torch.device("cpu:1"), torch.device("cpu:2")
MOVES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class Elsewhere(Tensor):
    """A tensor of the processor that says it lies on another device."""

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> Elsewhere:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=device, **layout)

    def __init__(self, inner: Tensor, device: torch.device) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()


class Devices(TorchDispatchMode):
    """Inside, what is made on one of these devices lies there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    checked = tree_leaves((args[0], args[2:])) if func in INDEXED else operands
    met = {leaf.device for leaf in checked if isinstance(leaf, Tensor) and leaf.ndim}
    if len(met) > 1 and func not in MOVES:
        raise RuntimeError(f"{func} meets tensors of several devices: {sorted(map(str, met))}")
    place = kwargs.get("device") or next((leaf.device for leaf in operands if isinstance(leaf, Elsewhere)), HERE)
    if "device" in kwargs:
        kwargs = {**kwargs, "device": HERE}
    result = func(*tree_map(bare, args), **tree_map(bare, kwargs))
    changed = [leaf for leaf in operands if bare(leaf) is result] if func._schema.is_mutable else []
    if changed:
        return changed[0]
    if torch.device(place).index in (None, 0):
        return result
    return tree_map(lambda leaf: Elsewhere(leaf, place) if isinstance(leaf, Tensor) else leaf, result)


def bare(value: Any) -> Any:
    """The tensor of the processor behind one that says it lies elsewhere."""
    return value.inner if isinstance(value, Elsewhere) else value


def spread(model: nn.Module, places: dict[str, torch.device]) -> nn.Module:
    """Modules put on other devices, and inputs brought to where each module's weights lie, as a device map does it."""
    for path, device in places.items():
        for module in model.get_submodule(path).modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(Elsewhere(parameter.detach(), device))
    for path, module in model.named_modules():
        if module._parameters or path in places:
            module.register_forward_pre_hook(_bring, with_kwargs=True)
        if getattr(getattr(module, "config", None), "use_cache", False):
            module.config.use_cache = False
    return model


def _bring(module: nn.Module, args: Any, kwargs: Any) -> Any:
    own = next(module.parameters()).device

    def bring(leaf: Any) -> Any:
        return leaf.to(own) if isinstance(leaf, Tensor) and leaf.device != own else leaf

    return tree_map(bring, args), tree_map(bring, kwargs)
