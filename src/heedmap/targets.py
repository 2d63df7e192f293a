"""What is explained: an expression in logits that becomes one number per example.

    logit("zebra")      logit(340) - logit(386)      (a - b) / a      any callable output -> Tensor[batch]

A target is written before the model has run. `settle` fills in what it leaves open (the predicted class, the
query, the position) from the output met, so that its repr says what was explained; `evaluate` computes it.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor

from heedmap.errors import LabelError, QuotientError, TargetError

# Where outputs keep their logits, first match first. What means several things (start_logits) is left out.
LOGIT_FIELDS = (
    "logits",  # nearly every model
    "question_answering_score",  # LXMERT
    "logits_per_image",  # CLIP, SigLIP: an example is an image, its classes are the texts
    "logits_per_video",
    "pred_logits",  # DETR as first published
    "class_logits",
    "class_queries_logits",  # MaskFormer, Mask2Former
    "prediction_logits",  # pre-training: the masked words before the sentence relation
    "seq_relationship_logits",
    "cross_relationship_score",
    "itm_score",  # image-text matching
)
# An output with one of these finds objects: the middle axis of its logits is object queries, not positions.
OBJECT_FIELDS = ("pred_boxes", "masks_queries_logits")

# An output with one of these compares objects with texts: each text is a class, and none is "no object".
TEXT_FIELDS = ("text_embeds", "encoder_last_hidden_state_text")

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
TIGHTNESS = {"+": 1, "-": 1, "*": 2, "/": 2}
FLAT = 1e-12  # a slope this small, relative to the logits, is rounding
PASS_A_CALLABLE = "pass a callable that takes the output and returns one number per example"

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Context:
    """What is known of the model and its inputs besides the output."""

    labels: Mapping[str, int] | None = None
    mask: Tensor | None = None  # batch x tokens, 1 = real, of the stream the logits stand on
    causal: bool = False
    batch: int | None = None


# ---- the algebra


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
        return _called(self.call)


@dataclass(frozen=True, eq=False)
class Each(Target):
    """A callable on the logits of one example, or a tuple of them, one per example."""

    calls: Callable[..., Any] | tuple[Callable[..., Any], ...]

    def __repr__(self) -> str:
        return f"[{', '.join(map(_called, self.calls))}]" if isinstance(self.calls, tuple) else _called(self.calls)


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


# ---- what a user writes


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


def settle(target: Target, output: Any, context: Context) -> Target:
    """The same target with nothing left open: each logit with its index, and its query or position if any."""
    match target:
        case Binary(sign, left, right):
            return Binary(sign, settle(left, output, context), settle(right, output, context))
        case Negated(inner):
            return Negated(settle(inner, output, context))
        case Predicted():
            return _settle_prediction(output, context)
        case Logit():
            return _settle_logit(target, output, context)
    return target


def evaluate(target: Target, output: Any, context: Context) -> Tensor:
    """The target's value, one number per example."""
    settled = settle(target, output, context)
    values = {leaf: _leaf_value(leaf, output, context) for leaf, _ in _leaves(settled)}
    if len({len(value) for value in values.values()}) > 1:
        met = ", ".join(f"{leaf!r} has {len(value)}" for leaf, value in values.items())
        raise TargetError(f"The parts of {target!r} disagree on the number of examples: {met}. Make them agree.")
    if _divides(settled):
        _check_quotient(target, settled, values)
    return _checked(_fold(settled, values), target, context.batch)


def predicted(target: Target, output: Any, context: Context) -> list[int] | None:
    """The class that the prediction stands for, of every example; None where the target has no prediction."""
    asked = any(isinstance(leaf, Predicted) for leaf, _ in _leaves(target))
    return _predict(output, context)[0] if asked else None


# ---- from the tree to numbers


def _fold(target: Target, values: Mapping[Target, Tensor]) -> Any:
    match target:
        case Binary(sign, left, right):
            return OPERATIONS[sign](_fold(left, values), _fold(right, values))
        case Negated(inner):
            return -_fold(inner, values)
        case Constant(number):
            return number
    return values[target]


def _leaves(target: Target, sign: int = 1) -> Iterator[tuple[Target, int]]:
    """Every leaf, left to right, with +1 where it is written to raise the target and -1 where to lower it."""
    match target:
        case Negated(inner):
            yield from _leaves(inner, -sign)
        case Binary("+" | "-" as between, left, right):
            yield from _leaves(left, sign)
            yield from _leaves(right, sign if between == "+" else -sign)
        case Binary(between, left, right):
            yield from _leaves(left, sign * _factor_sign(right))
            yield from _leaves(right, sign * _factor_sign(left) * (1 if between == "*" else -1))
        case Constant():
            return
        case _:
            yield target, sign


def _factor_sign(factor: Target) -> int:
    """The sign of a factor or divisor while its logits are positive; that of a difference cannot be told."""
    match factor:
        case Constant(number):
            return -1 if number < 0 else 1
        case Negated(inner):
            return -_factor_sign(inner)
        case Binary("*" | "/", left, right):
            return _factor_sign(left) * _factor_sign(right)
    return 1


def _leaf_value(leaf: Target, output: Any, context: Context) -> Tensor:
    value: Any = None
    match leaf:
        case Custom(call):
            value = call(output)
        case Each(calls):
            logits, _ = _logits(output, context)
            pairs = zip(_spread(calls, len(logits)), logits, strict=True)
            value = torch.cat([_one_number(call, example) for call, example in pairs])
        case Logit(index, query, position):
            logits, _ = _logits(output, context)
            places: Any = [_spread(x, len(logits)) for x in (query, position, index) if x is not None]
            value = logits[(list(range(len(logits))), *places)]
    return _wide(_checked(value, leaf, context.batch))


def _one_number(call: Any, example: Tensor) -> Tensor:
    number = call(example)
    if not isinstance(number, Tensor) or number.numel() != 1:
        raise TargetError(
            f"The target {_called(call)} was given one example's logits, {_shape(example)}, and returned "
            f"{_shape(number)}. Expected a tensor with one number: choose one, for instance a class."
        )
    return number.reshape(1)


def _checked(value: Any, target: Target, batch: int | None) -> Tensor:
    """`value`, certain to be one finite real number per example."""
    if isinstance(value, Tensor) and value.ndim == 0 and batch in (None, 1):
        value = value.reshape(1)
    if not isinstance(value, Tensor):
        met, todo = f"gave a {type(value).__name__}", "return a tensor"
    elif not value.is_floating_point():
        met, todo = f"gave numbers of {value.dtype}", "return real floating numbers that have a gradient"
    elif value.ndim == 0:
        met, todo = f"gave one number for {batch} examples", "do not sum or average over the batch"
    elif value.ndim != 1 or len(value) != (len(value) if batch is None else batch):
        met, todo = f"gave a tensor of shape {_shape(value)}", "choose one number of each example, as [:, 3]"
    elif bad := (~value.detach().isfinite()).nonzero().flatten().tolist():
        met = f"is {', '.join(f'{value[i].item()} in example {i}' for i in bad[:8])}{' ...' * (len(bad) > 8)}"
        todo = "look for NaN or infinity in the inputs and logits, and for a division by zero"
    else:
        return value
    shape = f"({'batch' if batch is None else batch},)"
    raise TargetError(f"The target {target!r} {met}. Expected one finite number per example, shape {shape}: {todo}.")


# ---- quotients


def _divides(target: Target) -> bool:
    match target:
        case Binary(sign, left, right):
            return (sign == "/" and not isinstance(right, Constant)) or _divides(left) or _divides(right)
        case Negated(inner):
            return _divides(inner)
    return False


def _check_quotient(target: Target, settled: Target, values: Mapping[Target, Tensor]) -> None:
    """Refuse a quotient that the logits met turn round, so that what speaks for it would show as against it.

    Every logit must move the value, in every example, the way it is written to: a up and b down in a / b and
    (a - b) / a.
    """
    written = {}  # what each leaf is in the user's words, and its sign where it stands first
    for (leaf, sign), (user_leaf, _) in zip(_leaves(settled), _leaves(target), strict=True):
        written.setdefault(leaf, (user_leaf, sign))
    with torch.inference_mode(False), torch.enable_grad():
        probes = {leaf: _probe(value) for leaf, value in values.items()}
        slopes = torch.autograd.grad(_fold(settled, probes).sum(), list(probes.values()))
    size = torch.stack([probe.detach().abs() for probe in probes.values()]).amax(0)
    for (user_leaf, sign), slope in zip(written.values(), slopes, strict=True):
        if wrong := (~(sign * slope * size > FLAT)).nonzero().flatten().tolist():  # NaN is wrong too
            met = {user_leaf: probes[leaf][wrong[0]].item() for leaf, (user_leaf, _) in written.items()}
            how = f"{'rise' if sign > 0 else 'fall'} with {user_leaf!r} in example {wrong[0]}"
            raise QuotientError(_turned_round(target, how, met, [sign for _, sign in written.values()]))


def _probe(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float64, copy=True).requires_grad_()


def _turned_round(target: Target, how: str, met: Mapping[Target, float], signs: list[int]) -> str:
    logits = ", ".join(f"{leaf!r} is {value:.4g}" for leaf, value in met.items())
    difference = " ".join(f"{'+' if sign > 0 else '-'} {leaf!r}" for leaf, sign in zip(met, signs, strict=True))
    return (
        f"The quotient {target!r} does not {how}, where {logits}. A quotient keeps its meaning only while "
        f"its logits are positive. Explain the difference: {difference.removeprefix('+ ')}"
    )


# ---- what a target leaves open


def _settle_logit(target: Logit, output: Any, context: Context) -> Logit:
    logits, axis = _class_logits(output, context)
    for place in ("query", "position"):
        if getattr(target, place) is not None and place != axis:
            met = f"{target!r} has {place}=, but the logits have shape {_shape(logits)}"
            todo = f"and their middle axis is {axis}: use {axis}=" if axis else "and no such axis: leave it out"
            raise TargetError(f"{met} {todo}.")
    found = [_class(x, logits.shape[-1], context.labels) for x in _spread(target.index, len(logits))]
    index, shown = [i for i, _ in found], [x for _, x in found]
    places = {}
    if axis == "query":
        competing = _has_no_object(logits.shape[-1], output, context)
        places["query"] = _common(_queries(target.query, logits, index, competing))
    elif axis == "position":
        places["position"] = _common(_positions(target.position, logits, context))
    return Logit(_common(index), **places, shown=_common(shown) if target.shown is None else target.shown)


def _settle_prediction(output: Any, context: Context) -> Logit:
    index, places = _predict(output, context)
    logits, axis = _class_logits(output, context)
    labels = {number: label for label, number in (context.labels or {}).items()}
    if _nameless(context.labels) or max(labels) + 1 < logits.shape[-1] - (axis == "query"):
        labels = {}  # they name something else, or nothing
    return Logit(_common(index), **places, shown=_common([labels.get(i, i) for i in index]))


def _predict(output: Any, context: Context) -> tuple[list[int], dict[str, Any]]:
    """The predicted class of every example, and its query or position."""
    logits, axis = _class_logits(output, context)
    if axis == "query":
        no_object = _has_no_object(logits.shape[-1], output, context)
        classes = logits.shape[-1] - no_object
        best = _certainty(logits, no_object)[..., :classes].flatten(1).argmax(1).tolist()
        return [i % classes for i in best], {"query": _common([i // classes for i in best])}
    if axis == "position":
        positions = _positions(None, logits, context)
        index = logits[list(range(len(logits))), positions].argmax(-1).tolist()
        return index, {"position": _common(positions)}
    return logits.argmax(-1).tolist(), {}


def _queries(query: Any, logits: Tensor, index: list[int], competing: bool) -> list[int]:
    """The queries asked for, or in every example the one most certain of its class."""
    if query is None:
        return _certainty(logits, competing)[list(range(len(logits))), :, index].argmax(1).tolist()
    return [_within("query", i, 0, logits.shape[1]) for i in _spread(query, len(logits))]


def _certainty(logits: Tensor, competing: bool) -> Tensor:
    """Ordered as the probabilities: of a softmax if the classes compete, else of a sigmoid for each."""
    return _wide(logits).log_softmax(-1) if competing else _wide(logits)


def _has_no_object(classes: int, output: Any, context: Context) -> bool:
    """Whether a detector's last class is "no object": it matches no text, and the labels name all but the last."""
    named = max(context.labels.values()) + 1 if context.labels else classes - 1
    return 1 <= named == classes - 1 and not any(name in _fields(output) for name in TEXT_FIELDS)


def _positions(position: Any, logits: Tensor, context: Context) -> list[int]:
    """The positions asked for, counted from the start."""
    (batch, tokens, _), mask = logits.shape, context.mask
    if position is None:
        return _last_positions(logits, context)
    chosen = [_within("position", i, -tokens, tokens) for i in _spread(position, batch)]
    for example, i in enumerate(chosen):
        if mask is not None and mask.shape == (batch, tokens) and not mask[example, i]:
            raise TargetError(f"position={i} is padding in example {example} (mask 0). Choose a real token.")
    return [i % tokens for i in chosen]


def _last_positions(logits: Tensor, context: Context) -> list[int]:
    """The only position, or the last unmasked one of a causal model; padding may be on either side."""
    (batch, tokens, _), mask = logits.shape, context.mask
    if tokens == 1:
        return [0] * batch
    if not context.causal:
        choose = f"Choose one, as in logit(3, position=0), or {PASS_A_CALLABLE}."
        raise TargetError(f"Each of {tokens} positions has logits, and which to explain is not said. {choose}")
    if mask is None:
        return [tokens - 1] * batch
    if mask.shape != (batch, tokens):
        met = f"the mask has shape {_shape(mask)}, the logits {_shape(logits)}"
        raise TargetError(f"The last unmasked position is not certain: {met}. Choose one, as in position=-1.")
    real = mask != 0
    if empty := (~real.any(1)).nonzero().flatten().tolist():
        raise TargetError(f"The mask leaves no token in example {empty[0]}. Expected at least one: correct it.")
    return (real * torch.arange(tokens, device=mask.device)).argmax(1).tolist()


# ---- labels


def _class(index: int | str, classes: int, labels: Mapping[str, int] | None) -> tuple[int, int | str]:
    """A class as an index and as it is shown."""
    shown, met = index, f"Index {index}"
    if isinstance(index, str):
        shown = _label(index, labels or {})
        index = int((labels or {})[shown])
        met = f"Index {index} of label {shown!r}"
    if not 0 <= index < classes:
        hint = " Negative indices do not count from the end." if index < 0 else ""
        raise LabelError(f"{met} is out of range: this model has {classes} classes, 0 to {classes - 1}.{hint}")
    return index, shown


def _label(text: str, labels: Mapping[str, int]) -> str:
    """The label meant: itself, else the only one that is the same but for case, or has it as a synonym."""
    if text in labels:
        return text
    if _nameless(labels):
        raise LabelError(f"{text!r} is a label, but this model has no label names. Give an index: logit(3).")
    wanted = text.strip().casefold()
    meant = [label for label in labels if label.casefold() == wanted]
    meant = meant or [label for label in labels if wanted in _synonyms(label)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise LabelError(f"Label {text!r} may be {' or '.join(map(repr, meant))}. Write one in full.")
    known = {name: label for label in labels for name in (*_synonyms(label), label.casefold())}
    near = dict.fromkeys(known[name] for name in difflib.get_close_matches(wanted, known))
    hint = f"Did you mean {' or '.join(map(repr, near))}?"
    if not near:
        hint = f"There are {', '.join(map(repr, list(labels)[:8]))}{' ...' * (len(labels) > 8)}. Give one, or an index."
    raise LabelError(f"Label {text!r} is not one of this model's {len(labels)} labels. {hint}")


def _synonyms(label: str) -> list[str]:
    return [part.strip() for part in label.casefold().split(",")]


def _nameless(labels: Mapping[str, int] | None) -> bool:
    """No labels, or the LABEL_0, LABEL_1 ... that a transformers config makes up by itself."""
    return all(re.fullmatch(r"LABEL_\d+", label) for label in labels or ())


# ---- the logits of an output


def _class_logits(output: Any, context: Context) -> tuple[Tensor, str | None]:
    """Detached logits (batch, classes) or (batch, middle, classes), and what the middle axis is."""
    logits, fields = _logits(output, context)
    if logits.ndim > 3:
        expected = "(batch, classes) or (batch, tokens, classes)"
        raise TargetError(f"The logits have shape {_shape(logits)}. Expected {expected}: {PASS_A_CALLABLE}.")
    axis = "query" if any(name in fields for name in OBJECT_FIELDS) else "position"
    return logits.detach(), axis if logits.ndim == 3 else None


def _logits(output: Any, context: Context) -> tuple[Tensor, Mapping[str, Any]]:
    """The logits, (batch, ...), and the fields they were found among."""
    fields = _fields(output)
    named = [fields[name] for name in LOGIT_FIELDS if name in fields]
    listed = [x for x in output if _is_floating(x, 2)] if isinstance(output, list | tuple) else []
    logits = next((x for x in [output, *named, *listed] if _is_floating(x, 1)), None)
    if logits is None:
        listed = dict(enumerate(output)) if isinstance(output, list | tuple) else {}
        met = ", ".join(f"{name} {_shape(value)}" for name, value in (fields or listed).items())
        raise TargetError(
            f"No logits were found in the output {_shape(output)}. Its fields are: {met or 'none'}. Expected "
            f"a floating tensor, a tuple with one, or a field {', '.join(LOGIT_FIELDS)}: {PASS_A_CALLABLE}."
        )
    if not logits.numel() or len(logits) != (len(logits) if context.batch is None else context.batch):
        met = f"The logits have shape {_shape(logits)} for {context.batch or 'no'} examples"
        raise TargetError(f"{met}. Expected one row for each: {PASS_A_CALLABLE}.")
    return logits.unsqueeze(-1) if logits.ndim == 1 else logits, fields


def _fields(output: Any) -> dict[str, Any]:
    """The named parts that an output has."""
    if isinstance(output, Mapping):
        named = dict(output)
    elif hasattr(output, "_asdict"):
        named = output._asdict()
    else:
        named = {} if isinstance(output, Tensor) else getattr(output, "__dict__", {})
    return {str(name): value for name, value in named.items() if value is not None}


# ---- small things


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


def _spread(value: Item | tuple[Item, ...], batch: int) -> list[Item]:
    if not isinstance(value, tuple):
        return [value] * batch
    if len(value) != batch:
        raise TargetError(f"A list of {len(value)} was given for {batch} examples. Give one value, or {batch}.")
    return list(value)


def _common(values: list[Item]) -> Any:
    """The value that all examples share, otherwise one per example."""
    return values[0] if len(set(values)) == 1 else tuple(values)


def _within(name: str, value: int, low: int, high: int) -> int:
    if not low <= value < high:
        raise TargetError(f"{name}={value} is out of range: the logits have {high}. Choose {low} to {high - 1}.")
    return value


def _is_floating(x: Any, least_axes: int) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= least_axes


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _brief(x: Any) -> str:
    return repr(list(x) if isinstance(x, tuple) else x)


def _shape(x: Any) -> str:
    return str(tuple(x.shape)) if isinstance(x, Tensor) else f"({type(x).__name__})"


def _called(call: Any) -> str:
    return getattr(call, "__name__", type(call).__name__)
