"""What the operations of torch do to tokens, as far as their names tell."""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SDPA = F.scaled_dot_product_attention
MHA = F.multi_head_attention_forward
SOFTMAX = frozenset({torch.softmax, torch.Tensor.softmax, F.softmax, torch.special.softmax})
PRODUCTS = frozenset({"matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "einsum"})

# these leave every token where it is; any other operation lays tokens out anew
TOKENWISE = frozenset(
    """
    add sub rsub mul div true_divide floor_divide pow neg abs exp expm1 log log1p sqrt rsqrt reciprocal square sign
    sin cos tanh sigmoid relu relu6 gelu silu mish elu selu celu leaky_relu softplus hardtanh hardswish hardsigmoid
    erf clamp clip clamp_min clamp_max maximum minimum where masked_fill nan_to_num addcmul addcdiv lerp
    linear layer_norm rms_norm group_norm batch_norm dropout feature_dropout alpha_dropout normalize
    copy view view_as reshape reshape_as
    transpose permute movedim moveaxis swapaxes t flatten unflatten unsqueeze squeeze
    expand expand_as broadcast_to contiguous clone detach to type type_as float double half bfloat16 cuda cpu repeat
    chunk split tensor_split unbind select narrow __getitem__ __get__ requires_grad
    matmul __matmul__ __rmatmul__ bmm baddbmm einsum addmm mm
    __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ __truediv__ __rtruediv__ __itruediv__
    __pow__ __neg__
    linear_dynamic linear_dynamic_fp16
    gemm_4bit.default int8_vectorwise_quant.default int8_scaled_mm.default int8_mixed_scaled_mm
    """.split()
)
# these may put tokens of several tensors side by side
SPLICES = frozenset(
    """
    cat concat concatenate stack hstack vstack where masked_scatter index_put scatter index_copy index_add index_fill
    slice_scatter select_scatter setitem
    """.split()
)
MULTIPLIES = frozenset("mul imul rmul matmul bmm einsum baddbmm mm".split())
# what attention weights and scores may pass through between softmax and matmul, or matmul and softmax
KEEPS_WEIGHTS = frozenset(
    """
    dropout view reshape transpose flatten unflatten unsqueeze squeeze expand contiguous clone to type type_as float
    double half bfloat16 mul div masked_fill where nan_to_num __mul__ __rmul__ __truediv__ __getitem__
    """.split()
)
KEEPS_SCORES = KEEPS_WEIGHTS | frozenset(
    """
    add sub clamp clip clamp_min clamp_max maximum minimum max min tanh cat concat concatenate
    masked_fill_ add_ mul_ div_ sub_ __add__ __radd__
    __iadd__ __sub__ __imul__ __itruediv__ true_divide
    """.split()
)
# no data passes from their arguments to their result
DATALESS = frozenset(
    "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full".split()
)
# arguments that weigh channels, never tokens: position -> name
WEIGHTS = {
    "linear": ((1, "weight"), (2, "bias")),
    "layer_norm": ((2, "weight"), (3, "bias")),
    "rms_norm": ((2, "weight"),),
    "group_norm": ((2, "weight"), (3, "bias")),
    "batch_norm": ((1, "running_mean"), (2, "running_var"), (3, "weight"), (4, "bias")),
    "conv1d": ((1, "weight"), (2, "bias")),
    "conv2d": ((1, "weight"), (2, "bias")),
    "conv3d": ((1, "weight"), (2, "bias")),
    "conv_transpose1d": ((1, "weight"), (2, "bias")),
    "conv_transpose2d": ((1, "weight"), (2, "bias")),
    "addmm": ((0, "input"), (2, "mat2")),
    "prelu": ((1, "weight"),),
    "type_as": ((1, "other"),),
    "to": ((1, "other"),),
}


def name_of(function: Any) -> str:
    return getattr(function, "__name__", None) or str(function)


def in_place(name: str) -> bool:
    if name.startswith("__"):
        return name in {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__"}
    return name.endswith("_") and name != "requires_grad_"


# these put the tokens of one tensor in another order
REARRANGES = frozenset(
    "flip fliplr flipud roll rot90 gather take_along_dim index_select sort setitem masked_select".split()
)
CHOOSES = frozenset("gather take_along_dim index_select sort masked_select".split())
# where these put tokens may hang on what the tokens say
BY_INDEX = CHOOSES | frozenset(
    """
    __getitem__ __setitem__ embedding repeat_interleave topk take index_put index_add index_copy index_fill
    index_reduce scatter scatter_add scatter_reduce masked_scatter
    """.split()
)
# these leave tokens where they are as long as they reduce the last axis
REDUCES = frozenset("mean sum var std norm amax amin max min prod logsumexp softmax log_softmax argmax cumsum".split())


def by_index(name: str) -> bool:
    """Whether an operation that moves tokens is told by a tensor where to."""
    return name in BY_INDEX or name.rstrip("_") in BY_INDEX


def turns(name: str, args: Any, kwargs: Any) -> bool:
    """Whether an operation swaps the last two axes of a tensor."""
    given = [*args[1:], *kwargs.values()]
    if name not in ("transpose", "swapaxes", "swapdims", "permute") or not args:
        return False
    axes = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
    axes, last = [axis % args[0].ndim for axis in axes], args[0].ndim - 1
    return sorted(axes) == [last - 1, last] if name != "permute" else axes[-2:] == [last, last - 1]


def indexed(name: str, args: Any, kinds: tuple[type, ...] = (Tensor,)) -> bool:
    """Whether something is picked by a tensor of indices."""
    index = args[1] if name == "__getitem__" else ()
    return any(isinstance(part, kinds) for part in (index if isinstance(index, tuple) else (index,)))


def keeps_tokens(name: str, args: Any, kwargs: Any, operands: list[Tensor]) -> bool:
    """Whether an operation leaves every token where it is, as far as its name and arguments tell."""
    axis = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    if name in ("cat", "concat", "concatenate"):
        if sum(tensor.numel() > 0 for tensor in operands) == 1:
            return True  # a cache that begins empty
        return axis == -1 or axis == operands[0].ndim - 1
    if name == "stack":
        return axis == -1 or axis == operands[0].ndim  # channels side by side
    if name == "__getitem__":
        return not indexed(name, args, (Tensor,) if operands[0].is_floating_point() else (Tensor, list))
    if name == "__setitem__" and args[0].is_floating_point() and isinstance(args[1], tuple) and len(args[1]) == 2:
        return args[1][0] is Ellipsis and isinstance(args[1][1], (int, slice))  # some channels of every token
    if name in ("conv1d", "conv2d", "conv3d"):
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        ahead = args[3] if len(args) > 3 else kwargs.get("stride", 1)
        return weight.shape[2:].numel() == 1 and set(ahead if isinstance(ahead, (tuple, list)) else (ahead,)) == {1}
    if name in REDUCES:
        if isinstance(axis, Tensor) or kwargs.get("other") is not None:
            return True  # the lesser or greater of two
        if not operands[0].is_floating_point():
            return False  # the last axis of words is that of tokens
        axes = axis if isinstance(axis, (tuple, list)) else (axis,)
        return all(each in (-1, operands[0].ndim - 1) for each in axes)
    return (name if name.startswith("__") else name.rstrip("_")) in TOKENWISE


def _open_up(function: Any) -> Any:
    """A twin of a Python function of torch that always runs its inside, so that a mode sees its operations.

    torch leaves such a function at its first line when a mode is active, and switches the mode off while the mode
    handles it. The twin has globals of its own in which nothing ever asks for a handler; torch's are untouched.
    """
    own = dict(function.__globals__, has_torch_function=lambda arguments: False)
    twin = types.FunctionType(function.__code__, own, function.__name__, function.__defaults__, function.__closure__)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


MHA_INSIDE = _open_up(MHA)
