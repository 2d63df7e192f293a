"""What a model's inputs and learned parameters are called, and which of them never name a stream."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from heedmap.capture.offloading import offloaded
from heedmap.errors import InputError, UnsupportedError

# masks and positions say where tokens are, not what they are
AUXILIARY = re.compile(
    r"mask|position|token_type|segment|(^|_)pos(_|$)|(^|_)lengths?$|grid_thw|image_sizes|spatial_shapes", re.IGNORECASE
)
CACHES = ("past_key_values", "cache_params", "past_key_value", "layer_past")


def arguments(
    model: nn.Module, inputs: Any, take: Callable[[str, Tensor], Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments in which every tensor is fresh and detached, as `take` returned it."""
    positional, keywords = _arrange(inputs)
    for key in CACHES:
        cache = keywords.get(key)
        if cache is not None and _length(cache):
            raise UnsupportedError(
                f"`{key}` holds {_length(cache)} tokens of an earlier forward, whose attention was not seen. "
                "heedmap expected the whole sequence in one forward: leave the cache out and pass all tokens."
            )
    parameters = _parameters(model)

    def enter(name: str, value: Any) -> Any:
        def fresh(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return take(name, leaf.clone() if leaf.is_inference() else leaf.detach())

        return pytree.tree_map(fresh, value)

    args = tuple(
        enter(parameters[i] if i < len(parameters) else f"input_{i}", value) for i, value in enumerate(positional)
    )
    return args, {key: enter(key, value) for key, value in keywords.items()}


def _arrange(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        if not all(isinstance(key, str) for key in inputs):
            raise InputError(
                f"A mapping of inputs is passed as keywords; its keys are {list(inputs)}, not all strings."
            )
        return (), dict(inputs)
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    raise InputError(
        f"The inputs are a {type(inputs).__name__}. heedmap expected a mapping of keywords (what a processor returns), "
        "a tensor, or a tuple of positional arguments."
    )


def _parameters(model: nn.Module) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, item in inspect.signature(model.forward).parameters.items() if item.kind in kinds]


def _length(cache: Any) -> int:
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    leaves = [leaf for leaf in pytree.tree_leaves(cache) if isinstance(leaf, Tensor)]
    return max((leaf.shape[-2] for leaf in leaves if leaf.ndim >= 2), default=0)


def unwrapped(model: nn.Module) -> tuple[nn.Module, bool]:
    """The module behind a `torch.compile` wrapper, and whether anything in it is compiled."""
    inner = getattr(model, "_orig_mod", model)
    compiled = inner is not model or any(
        "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
        for module in inner.modules()
    )
    scripted = [name for name, module in inner.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        raise UnsupportedError(
            f"{scripted[0] or 'The model'} is a scripted module: its operations cannot be seen. "
            "Explain the model it was scripted from."
        )
    return inner, compiled


def check_parameters(model: nn.Module) -> None:
    """Refuse parameters through which no gradient can be computed."""
    given = {"on the meta device": lambda p: p.is_meta, "built under inference_mode": lambda p: p.is_inference()}
    for name, parameter in model.named_parameters():
        for what, met in given.items():
            if met(parameter) and not (parameter.is_meta and offloaded(model, name)):
                raise UnsupportedError(
                    f"Parameter {name!r} is {what}: no gradient can be computed through it. heedmap expected ordinary "
                    "parameters; load the model's weights outside of that context."
                )
