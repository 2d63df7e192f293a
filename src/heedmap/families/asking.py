"""What is asked of a model, in words: a target, an answer against it, and how the two are weighed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heedmap.errors import InputError
from heedmap.targets import Context, Target, as_target, settle
from heedmap.targets.expressions import Logit, Predicted, fold, leaves
from heedmap.targets.fields import logits_of

LOSSES: dict[str, tuple[Callable[[Any, Any], Target], str]] = {
    "difference": (lambda a, b: a - b, "{} rather than {}"),
    "ratio": (lambda a, b: a / b, "{} / {}"),
    "relative": (lambda a, b: (a - b) / a, "({0} - {1}) / {0}"),
}
Named = Callable[[Any], tuple[int, str]]  # a label or an index: the index, and what it is called


@dataclass(frozen=True)
class Asked:
    """A target that the core can explain, and what it is in words; None where the prediction says it."""

    target: Target
    words: tuple[str, ...] | None  # of each example
    predicted: tuple[str, ...] | None = None
    queries: tuple[int, ...] | None = None  # a detector's object queries


def ask(
    target: Any,
    against: Any,
    loss: str | None,
    count: int,
    named: Named,
    output: Callable[[], Any],
    context: Context,
    positions: Sequence[int] | None,
    look: bool,
) -> Asked:
    """The target, and what is against it, as one expression.

    `positions` is where each example's answer stands, where the model does not say. `look` has the model's answer read
    first: it is needed to tell the predicted class, or the object that is meant.
    """
    if loss is not None and loss not in LOSSES:
        raise InputError(f"loss is {loss!r}. heedmap expected one of {', '.join(LOSSES)}.")
    if loss is not None and against is None:
        raise InputError(f"loss={loss!r} weighs two answers, but one was named. Give against=, or leave loss= out.")
    first = _placed(_read(target, named), positions)
    if against is None:
        if isinstance(first, Predicted) and not look:
            return Asked(first, None)
        settled = _settled(first, output, context, named, positions) if look else first
        predicted = _words(settled, count) if isinstance(first, Predicted) else None
        return Asked(settled, _words(settled, count), predicted, _queries(settled, count))
    open_ = isinstance(first, Predicted) or look
    settled = _settled(first, output, context, named, positions) if open_ else first
    second = _placed(_read(against, named), positions)
    if isinstance(second, Logit) and isinstance(settled, Logit):
        query, position = _or(second.query, settled.query), _or(second.position, settled.position)
        second = replace(second, query=query, position=position)
    _check_different(settled, second, count, isinstance(first, Predicted))
    weigh, says = LOSSES[loss or "difference"]
    pairs = zip(_words(settled, count), _words(second, count), strict=True)
    words = tuple(says.format(*pair) for pair in pairs)
    predicted = _words(settled, count) if isinstance(first, Predicted) else None
    return Asked(weigh(settled, second), words, predicted, _queries(settled, count))


def _read(target: Any, named: Named) -> Target:
    """Labels become indices that remember their names."""

    def read(leaf: Any) -> Any:
        if not isinstance(leaf, Logit):
            return leaf
        many = isinstance(leaf.index, tuple)
        pairs = [named(one) for one in (leaf.index if isinstance(leaf.index, tuple) else (leaf.index,))]
        index, shown = (tuple(column) for column in zip(*pairs, strict=True))
        return replace(leaf, index=index if many else index[0], shown=shown if many else shown[0])

    return fold(as_target(target), read)


def _placed(target: Target, positions: Sequence[int] | None) -> Target:
    if positions is None:
        return target
    place = positions[0] if len(set(positions)) == 1 else tuple(positions)

    def put(leaf: Any) -> Any:
        return replace(leaf, position=place) if isinstance(leaf, Logit) and leaf.position is None else leaf

    return fold(target, put)


def _settled(
    target: Target, output: Callable[[], Any], context: Context, named: Named, positions: Sequence[int] | None
) -> Target:
    """With nothing left open, and its classes by their names."""
    if isinstance(target, Predicted) and positions is not None:
        logits = logits_of(output(), context)
        best = logits[range(len(logits)), list(positions)].argmax(-1).tolist()
        return _placed(_read(best[0] if len(set(best)) == 1 else best, named), positions)
    return _read(settle(target, output(), context), named)


def _words(target: Target, count: int) -> tuple[str, ...]:
    """What a target is called, for each example."""
    if isinstance(target, Logit):
        shown = target.index if target.shown is None else target.shown
        if isinstance(shown, tuple) and len(shown) != count:
            raise InputError(f"A list of {len(shown)} was given for {count} examples. Give one value, or {count}.")
        return tuple(map(str, shown)) if isinstance(shown, tuple) else (str(shown),) * count
    return (repr(target),) * count


def _queries(target: Target, count: int) -> tuple[int, ...] | None:
    queries = next((leaf.query for leaf in leaves(target) if isinstance(leaf, Logit) and leaf.query is not None), None)
    return queries if queries is None or isinstance(queries, tuple) else (queries,) * count


def _check_different(a: Target, b: Target, count: int, predicted: bool) -> None:
    if not (isinstance(a, Logit) and isinstance(b, Logit)) or (a.query, a.position) != (b.query, b.position):
        return
    ours, theirs = ([one.index] * count if isinstance(one.index, int) else list(one.index) for one in (a, b))
    same = [i for i, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one == other]
    if same:
        what = "what the model predicts" if predicted else "the target itself"
        where = f" in example {same[0]}" if count > 1 else ""
        raise InputError(f"against={_words(b, count)[same[0]]!r} is {what}{where}. Name another answer against it.")


def _or(value: Any, other: Any) -> Any:
    return other if value is None else value
