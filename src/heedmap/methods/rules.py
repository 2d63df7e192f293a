"""Layer-wise relevance propagation: a rule for each kind of operation, in plain tensors.

Relevance R of what an operation gave is handed to what it took. With a | b meaning a / (b + 1e-9), and 0 where b is 0,
x+ and x- the positive and the negative part of x:

    y = f(x, W), linear     Z = f(x+, W+) + f(x-, W-), S = R | Z;  R_x = x+ * f'(W+) S + x- * f'(W-) S;  no bias
    z = f(a, b), bilinear   S = R | z;  R_a = a * (S by b) / 2,  R_b = b * (S by a) / 2: each alone would carry all of R
    z = u + v + ...         R_u = u * (R | z), then rescaled: its total becomes |total R_u| / (sum of all |totals|) of R
    an image's convolution  the box rule: L and H the image's least and largest number
                            Z = f(x, W) - f(L, W+) - f(H, W-),  R_x = x * f'(W) S - L * f'(W+) S - H * f'(W-) S
    a layout                relevance goes where the numbers came from; what was copied sums

The rules "orig", of the full and the partial LRP that others compare with, take R | f(x+, W+) and R | f(x-, W-) each by
itself, and do not rescale sums: their total doubles wherever both parts are there.

Totals are over all that is in R, so R holds one example at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from heedmap.propagation import formed
from heedmap.records import Heads

SMALL = 1e-9
Linear = Callable[[Tensor, Tensor], Tensor]


def over(a: Tensor, b: Tensor) -> Tensor:
    """a | b."""
    return (a / (b + SMALL)).where((b != 0) & (b != -SMALL), a.new_zeros(()))


def through(function: Callable[..., Tensor], tensors: Sequence[Tensor], given: Tensor) -> tuple[Tensor, ...]:
    """What `given` at the result of a function is at each of its tensors, by the function's transpose."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        return torch.autograd.grad(function(*leaves), leaves, given)


def linear(function: Linear, x: Tensor, weight: Tensor, relevance: Tensor, apart: bool) -> Tensor:
    """`apart`: the two parts each by itself, as in "orig"."""
    parts = [(x.clamp(min=0), weight.clamp(min=0)), (x.clamp(max=0), weight.clamp(max=0))]
    leaves = [part.requires_grad_() for part, _ in parts]
    with torch.enable_grad():
        results = [function(leaf, part) for leaf, (_, part) in zip(leaves, parts, strict=True)]
    below = [result.detach() for result in results]
    if not apart:
        below = [below[0] + below[1]] * 2
    shares = [over(relevance, each) for each in below]
    taken = torch.autograd.grad(results, leaves, shares)
    return sum((part.detach() * each for part, each in zip(leaves, taken, strict=True)), torch.zeros_like(x))


def bilinear(function: Linear, a: Tensor, b: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    of_a, of_b = through(function, (a, b), over(relevance, function(a, b)))
    return a * of_a / 2, b * of_b / 2


def attention(heads: Heads, relevance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the weights, the queries, the keys and the values: softmax, scale and mask change nothing."""
    assert heads.queries is not None
    assert heads.keys is not None
    some = relevance.flatten(1).any(1)
    if not bool(some.all()):
        return _of_some(heads, relevance, some)
    queries, keys, values = (each.detach().to(relevance.dtype) for each in (heads.queries, heads.keys, heads.values))
    weights = formed(heads).to(relevance.dtype)
    of_weights, of_values = bilinear(torch.matmul, weights, values, relevance)
    of_queries, of_keys = bilinear(torch.matmul, queries, keys.mT, of_weights)
    return of_weights, of_queries, of_keys.mT, of_values


def _of_some(heads: Heads, relevance: Tensor, some: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Only examples that hold relevance cost anything."""
    assert heads.queries is not None
    assert heads.keys is not None
    mask = heads.mask if heads.mask is None or len(heads.mask) == 1 else heads.mask[some]
    few = replace(heads, queries=heads.queries[some], keys=heads.keys[some], values=heads.values[some], mask=mask)
    whole = [relevance.new_zeros(heads.shape), *(torch.zeros_like(each, dtype=relevance.dtype)
             for each in (heads.queries, heads.keys, heads.values))]  # fmt: skip
    if bool(some.any()):
        for each, found in zip(whole, attention(few, relevance[some]), strict=True):
            each[some] = found
    return whole[0], whole[1], whole[2], whole[3]


def added(addends: Sequence[Tensor], relevance: Tensor, rescale: bool) -> list[Tensor]:
    share = over(relevance, torch.stack([*torch.broadcast_tensors(*addends)]).sum(0))
    shares = [(each * share).sum_to_size(each.shape) for each in addends]
    if not rescale:
        return shares
    totals = torch.stack([each.sum() for each in shares])
    return [each * factor for each, factor in zip(shares, _rescaled(totals, relevance.sum()), strict=True)]


def summed(x: Tensor, axes: Sequence[int], relevance: Tensor, rescale: bool) -> Tensor:
    """A sum, or mean, over some axes: the sum of what stands there. `relevance` keeps these axes, of length 1."""
    shares = x * over(relevance, x.sum(list(axes), keepdim=True))
    others = [axis for axis in range(x.ndim) if axis not in {axis % x.ndim for axis in axes}]
    if not rescale or not others:
        return shares
    return shares * _rescaled(shares.sum(others, keepdim=True), relevance.sum())


def _rescaled(totals: Tensor, whole: Tensor) -> Tensor:
    return over(over(totals.abs(), totals.abs().sum()) * whole, totals)


def box(function: Linear, image: Tensor, weight: Tensor, relevance: Tensor) -> Tensor:
    axes = list(range(1, image.ndim))
    least, most = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    terms = [
        (image, weight),
        (least.expand_as(image), -weight.clamp(min=0)),
        (most.expand_as(image), -weight.clamp(max=0)),
    ]
    below = sum((function(x, w) for x, w in terms), torch.zeros_like(relevance)) + SMALL
    share = relevance / below
    return sum((x * through(lambda y, w=w: function(y, w), [x], share)[0] for x, w in terms), torch.zeros_like(image))
