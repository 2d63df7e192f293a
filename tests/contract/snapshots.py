"""What must be the same before and after: a model, its inputs, torch itself."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as modules

FUNCTIONS = (
    (F, "scaled_dot_product_attention"),
    (F, "multi_head_attention_forward"),
    (F, "softmax"),
    (F, "dropout"),
    (F, "linear"),
    (torch, "softmax"),
    (torch, "matmul"),
    (torch, "bmm"),
    (torch, "einsum"),
    (Tensor, "softmax"),
    (Tensor, "matmul"),
    (Tensor, "__matmul__"),
    (Tensor, "__torch_function__"),
    (nn.Module, "__call__"),
    (nn.MultiheadAttention, "forward"),
)


def torch_state() -> dict[str, Any]:
    """Torch's own functions by identity, and every switch of this thread that a recording might turn."""
    state = {f"{owner.__name__}.{name}": id(vars(owner)[name]) for owner, name in FUNCTIONS if name in vars(owner)}
    state |= {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "autocast cache": torch.is_autocast_cache_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "function modes": len(torch.overrides._get_current_function_mode_stack()),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "saved tensor hooks": torch._C._autograd._top_saved_tensors_default_hooks(True) is None,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fastpath": torch.backends.mha.get_fastpath_enabled(),
        "global hooks": (len(modules._global_forward_hooks), len(modules._global_forward_pre_hooks)),
        "threads": torch.get_num_threads(),
    }
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    state["stance"] = str(dynamo._stance.stance) if dynamo else "default"
    return state


def model_state(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that can be compared by ==: numbers as bytes, objects by identity."""
    state: dict[str, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[name] = tensor_state(tensor)
    for path, module in model.named_modules():
        state[f"{path} training"] = module.training
        state[f"{path} class"] = type(module)
        state[f"{path} attributes"] = sorted(vars(module))
        state[f"{path} forward"] = id(vars(module).get("forward"))
        for key, value in vars(module).items():
            if "hook" in key and isinstance(value, dict):
                state[f"{path} {key}"] = [(number, id(hook)) for number, hook in value.items()]
    return state


def tensor_state(tensor: Tensor) -> tuple[Any, ...]:
    grad = tensor.grad if tensor.is_leaf else None
    return (
        id(tensor),
        tensor.data_ptr(),
        None if tensor.is_inference() else tensor._version,
        tensor.dtype,
        tuple(tensor.shape),
        tensor.requires_grad,
        tensor.is_leaf,
        sorted(vars(tensor)),
        id(tensor._backward_hooks) if tensor._backward_hooks else None,
        number_bytes(tensor),
        None if grad is None else (id(grad), grad.data_ptr(), number_bytes(grad)),
    )


def number_bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().clone().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is not as it was: a short list for a failing test's message."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key, "absent") != after.get(key, "absent"))
