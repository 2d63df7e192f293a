"""What a user writes: logits, callables and numbers, combined with + - * / and shown as they were written."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from heedmap.errors import TargetError

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
TIGHTNESS = {"+": 1, "-": 1, "*": 2, "/": 2}
PASS_A_CALLABLE = "pass a callable that takes the output and returns one number per example"


def _operation(sign: str, turned: bool = False) -> Callable[[Target, Any], Target]:
    def operation(self: Target, other: Any) -> Target:
        return Binary(sign, _operand(other), self) if turned else Binary(sign, self, _operand(other))

    return operation


class Target:
    """Something to explain; combine with + - * /, numbers and unary minus."""

    __array_ufunc__ = None  # a numpy number on the left leaves the operation to us
    __add__, __radd__ = _operation("+"), _operation("+", turned=True)
    __sub__, __rsub__ = _operation("-"), _operation("-", turned=True)
    __mul__, __rmul__ = _operation("*"), _operation("*", turned=True)
    __truediv__, __rtruediv__ = _operation("/"), _operation("/", turned=True)

    def __neg__(self) -> Target:
        return Negated(self)


@dataclass(frozen=True)
class Logit(Target):
    """One class, at one query or position where there are several; a tuple holds one per example."""

    index: int | str | tuple[int | str, ...]
    query: int | tuple[int, ...] | None = None
    position: int | tuple[int, ...] | None = None
    shown: Any = field(default=None, compare=False)  # once settled: the index with its labels

    def __repr__(self) -> str:
        index = _brief(self.index if self.shown is None else self.shown)
        query = "" if self.query is None else f", query={_brief(self.query)}"
        position = "" if self.position is None else f", position={_brief(self.position)}"
        return f"logit({index}{query}{position})"


@dataclass(frozen=True)
class Predicted(Target):
    """The class the model predicts; of a detector its surest object, of a causal model the next token."""

    def __repr__(self) -> str:
        return "predicted"


@dataclass(frozen=True, eq=False)
class Custom(Target):
    """Any callable output -> Tensor[batch]."""

    call: Callable[..., Any]

    def __repr__(self) -> str:
        return called(self.call)


@dataclass(frozen=True, eq=False)
class Each(Target):
    """A callable on the logits of one example, or a tuple of them, one per example."""

    calls: Callable[..., Any] | tuple[Callable[..., Any], ...]

    def __repr__(self) -> str:
        return f"[{', '.join(map(called, self.calls))}]" if isinstance(self.calls, tuple) else called(self.calls)


@dataclass(frozen=True)
class Constant(Target):
    number: int | float

    def __repr__(self) -> str:
        return repr(self.number)


@dataclass(frozen=True)
class Negated(Target):
    inner: Target

    def __repr__(self) -> str:
        return f"-({self.inner!r})" if isinstance(self.inner, Binary) else f"-{self.inner!r}"


@dataclass(frozen=True)
class Binary(Target):
    sign: str
    left: Target
    right: Target

    def __post_init__(self) -> None:
        if self.sign == "/" and self.right == Constant(0):
            raise TargetError(f"{self.left!r} is divided by zero. Divide by another number, or not at all.")

    def __repr__(self) -> str:
        tight = TIGHTNESS[self.sign]
        left, right = (TIGHTNESS[x.sign] if isinstance(x, Binary) else 3 for x in (self.left, self.right))
        before = f"({self.left!r})" if left < tight else repr(self.left)
        after = f"({self.right!r})" if right < tight + (self.sign in "-/") else repr(self.right)
        return f"{before} {self.sign} {after}"


def fold(target: Target, at: Callable[[Target], Any]) -> Any:
    """The expression with `at(leaf)` in place of each leaf: of tensors a tensor, of targets a target."""
    match target:
        case Binary(sign, left, right):
            return OPERATIONS[sign](fold(left, at), fold(right, at))
        case Negated(inner):
            return -fold(inner, at)
        case Constant(number):
            return number
    return at(target)


def leaves(target: Target) -> list[Target]:
    """What has a value of its own in the expression, left to right; numbers are left out."""
    match target:
        case Binary(_, left, right):
            return leaves(left) + leaves(right)
        case Negated(inner):
            return leaves(inner)
        case Constant():
            return []
    return [target]


def logit(index: Any, query: Any = None, position: Any = None) -> Target:
    """The logit of a class: an index or a label, or a list or 1-D tensor with one per example.

    `query` chooses a detector's object query (default: the one most certain of the label), `position` a token
    where every token has logits (default: the last unmasked one of a causal model); lists as before.
    """
    query = None if query is None else _plain(query, "query", int)
    position = None if position is None else _plain(position, "position", int)
    return Logit(_plain(index, "index", (int, str)), query, position)


def as_target(x: Any) -> Target:
    """Whatever may stand for a target: None is the prediction; an int, a label or a list of them is a logit.

    A callable gets the model's output as it is and returns Tensor[batch]. What pytorch_grad_cam defines, and
    each member of a list of callables (one per example), gets one example's logits and returns one number.
    """
    if isinstance(x, Target):
        return x
    if x is None:
        return Predicted()
    if callable(x):
        module = getattr(x if hasattr(x, "__name__") else type(x), "__module__", None) or ""
        return Each(x) if module.split(".")[0] == "pytorch_grad_cam" else Custom(x)
    if isinstance(x, list | tuple) and x and all(map(callable, x)):
        return Each(tuple(x))
    if isinstance(x, list | tuple) and any(isinstance(member, Target) for member in x):
        raise TargetError(
            f"{x!r} is a list of targets. Expected one target; where examples differ, write logit([3, 5]). "
            "To explain several targets of one input call heedmap.explain_each."
        )
    if isinstance(x, int | str | list | tuple) or hasattr(x, "tolist"):
        return logit(x)
    raise TargetError(
        f"{x!r} is not a target. Expected an index, a label, a list with one per example, or an expression "
        f"such as logit(3) - logit(5). For anything else {PASS_A_CALLABLE}."
    )


def called(call: Any) -> str:
    return getattr(call, "__name__", type(call).__name__)


def _operand(x: Any) -> Target:
    if isinstance(x, Target):
        return x
    if isinstance(x, Real) and not isinstance(x, bool) and math.isfinite(x):
        return Constant(int(x) if isinstance(x, Integral) else float(x))
    hint = f" Did you mean logit({x!r})?" if isinstance(x, str) else ""
    raise TargetError(f"{x!r} cannot be combined with a target. Expected a target or a finite number.{hint}")


def _plain(value: Any, name: str, kind: Any) -> Any:
    """A plain int or label, or a tuple of them, from whatever holds them (a list, a tensor, numpy)."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    many = isinstance(plain, list | tuple)
    items = tuple(x.tolist() if hasattr(x, "tolist") else x for x in plain) if many else (plain,)
    if not items or not all(isinstance(x, kind) and not isinstance(x, bool) for x in items):
        expected = "an int" if kind is int else "an int or a label"
        raise TargetError(f"{name}={value!r} is not understood. Expected {expected}, or a list, one per example.")
    return items if many else items[0]


def _brief(x: Any) -> str:
    return repr(list(x) if isinstance(x, tuple) else x)
