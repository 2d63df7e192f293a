"""The forms in which attention written out by hand is recognised: scores, softmax, a product with values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from heedmap.records import Origin


@dataclass(frozen=True)
class Product:
    """Scores: two activations multiplied. The tensors lie as (..., token, channel); None where several were added."""

    left: Tensor | None = None
    right: Tensor | None = None
    left_origin: Origin | None = None
    right_origin: Origin | None = None

    def turned(self) -> Product:
        """The scores of the other direction: one product may serve both."""
        return Product(self.right, self.left, self.right_origin, self.left_origin)


@dataclass(frozen=True)
class Weighting:
    """A softmax over its last axis, waiting for the values it weighs."""

    origin: Origin  # of the scores
    product: Product | None


@dataclass(frozen=True)
class Form:
    """Weights (..., query, key) and values (..., key, channel).

    `order` puts the output as (..., query, channel), `laid` the weights as they lay in the product.
    """

    weights: Tensor
    values: Tensor
    order: tuple[int, ...]
    laid: tuple[int, ...]


@dataclass(frozen=True)
class Einsum:
    """An einsum of two tensors, letter by letter."""

    left: str
    right: str
    output: str
    operands: tuple[Tensor, Tensor]

    def contracted(self) -> tuple[int, ...]:
        """Sizes of the axes that are summed over."""
        tensor = self.operands[0]
        return tuple(tensor.shape[i] for i, letter in enumerate(self.left) if letter not in self.output)


def parse_einsum(args: Any) -> Einsum | None:
    """None for an equation that does not have two operands with plain letters."""
    if not args or not isinstance(args[0], str):
        return None
    operands = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
    equation = args[0].replace(" ", "")
    terms, arrow, output = equation.partition("->")
    letters = terms.split(",")
    if not arrow or len(letters) != 2 or len(operands) != 2 or "." in equation:
        return None
    if any(len(set(term)) != len(term) for term in (*letters, output)):
        return None
    return Einsum(letters[0], letters[1], output, (operands[0], operands[1]))


def operands_of(name: str, args: Any, kwargs: Any) -> tuple[Tensor, Tensor] | None:
    """The two tensors that a matrix product multiplies, left and right."""
    given = [*args, *kwargs.values()]
    if name == "baddbmm":
        given = given[1:]
    if name == "__rmatmul__":
        given = given[::-1]
    if len(given) < 2 or not isinstance(given[0], Tensor) or not isinstance(given[1], Tensor):
        return None
    return given[0], given[1]


def scores(plan: Einsum | None, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor] | None:
    """The operands of a product as (..., query, channel) and (..., key, channel), if its result can be scores."""
    if plan is None:
        return (left, right.transpose(-2, -1)) if left.ndim >= 2 and right.ndim >= 2 else None
    asking = [letter for letter in plan.output if letter in plan.left and letter not in plan.right]
    asked = [letter for letter in plan.output if letter in plan.right and letter not in plan.left]
    channels = [letter for letter in plan.left if letter in plan.right and letter not in plan.output]
    if not (len(asking) == len(asked) == len(channels) == 1) or plan.output[-1] != asked[0]:
        return None
    lead = [letter for letter in plan.output if letter not in (*asking, *asked)]
    return (
        _arrange(left, plan.left, [*(letter for letter in lead if letter in plan.left), *asking, *channels]),
        _arrange(right, plan.right, [*(letter for letter in lead if letter in plan.right), *asked, *channels]),
    )


def weighted(plan: Einsum | None, weights: Tensor, values: Tensor, first: bool) -> Form | None:
    """How a product weighs values, or None if it is no attention. `first`: the weights are the left operand."""
    if plan is None:
        if not first or values.ndim < 2 or weights.shape[-1] != values.shape[-2]:
            return None
        return Form(weights, values, tuple(range(max(weights.ndim, values.ndim))), tuple(range(weights.ndim)))
    of_weights, of_values = (plan.left, plan.right) if first else (plan.right, plan.left)
    k = of_weights[-1]
    q = [letter for letter in of_weights if letter not in of_values and letter in plan.output]
    d = [letter for letter in of_values if letter not in of_weights and letter in plan.output]
    lead = [letter for letter in of_weights if letter not in (k, *q)]
    if k not in of_values or k in plan.output or len(q) != 1 or len(d) != 1:
        return None
    if set(plan.output) != {*lead, q[0], d[0]} or not set(of_values) <= {*lead, k, d[0]}:
        return None
    missing = [axis for axis, letter in enumerate(lead) if letter not in of_values]
    arranged = _arrange(values, of_values, [letter for letter in lead if letter in of_values] + [k, d[0]])
    for axis in missing:
        arranged = arranged.unsqueeze(axis)
    order = tuple(plan.output.index(letter) for letter in [*lead, q[0], d[0]])
    laid = tuple([*lead, q[0], k].index(letter) for letter in of_weights)
    return Form(_arrange(weights, of_weights, [*lead, q[0], k]), arranged, order, laid)


def _arrange(tensor: Tensor, letters: str, order: list[str]) -> Tensor:
    return tensor.permute([letters.index(letter) for letter in order])
