"""What heedmap says flowed, held against what the oracle says: the largest difference, by the largest true entry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .oracle import Told

REARRANGED = " (rearranged)"
NOTHING = 1e-12  # of the largest entry


def apart(flowed: Mapping[str, Tensor], truths: Sequence[Told], named: Mapping[tuple[int, str], str]) -> float:
    """The largest difference, by the largest true entry; infinite where the streams are not the same.

    A stream that heedmap does not name has been reached by nothing: in truth nothing flowed from it.
    """
    expected = {named[told.call, told.end]: told.flowed for told in truths}
    if len(expected) < len(truths):
        return float("inf")
    differences, nothing = [], torch.zeros(1)
    for name in {*expected, *flowed}:
        ours, true = flowed.get(name, nothing), expected.get(name, nothing)
        if name in flowed and name in expected and ours.shape != true.shape:
            return float("inf")
        differences.append((ours.double() - true.double()).abs().max())
    largest = max((told.flowed.double().abs().max() for told in truths), default=nothing)
    apart = float(torch.stack(differences).max() / largest)
    return apart if apart == apart else float("inf")


def in_order(flowed: Mapping[str, Tensor], truths: Sequence[Told]) -> float:
    """Where tokens are moved heedmap counts them as they entered, the oracle as the calls meet them.

    The tokens of each input are held against each other in the order of their places in it. Those that no input is in
    (a class token, padding, a learned mark) may stand among them, or be left out. Of what was merged before any
    attention the oracle knows the whole alone: what it was made of, which lies together, has equal parts.
    """
    largest = max(float(told.flowed.abs().max()) for told in truths)
    placed: dict[str, dict[tuple[int, int], float]] = {}
    learned: list[float] = []
    for told in truths:
        for value, place in zip(told.flowed.tolist(), told.places, strict=True):
            if place is None:
                learned.append(value)
                continue
            row = placed.setdefault(place[0], {})
            row[place[1:]] = row.get(place[1:], 0.0) + value
    worst = 0.0
    for name, row in flowed.items():
        own = re.sub(r"#\d+$", "", name.replace(REARRANGED, "")).split("+")
        inputs = [key for key in placed if key in own]
        rows = [list(placed.pop(key).items()) for key in inputs]
        if REARRANGED not in name:  # such a stream is counted as its first call meets it
            rows = [sorted(each) for each in rows]
        expected = [value for each in rows for _, value in each]
        ours, least = row.double().nan_to_num(0.0).tolist(), NOTHING * largest
        apart = _aligned(ours, expected, learned, least)
        parts, left = divmod(len(ours), len(expected)) if expected else (1, 0)
        if parts > 1 and not left:
            shared = [value / parts for value in expected for _ in range(parts)]
            apart = min(apart, _aligned(ours, shared, learned, least))
        worst = max(worst, apart)
    rest = [abs(value) for row in placed.values() for value in row.values()]
    return max(worst, *rest, 0.0) / largest if largest else 0.0


def _aligned(ours: Sequence[float], true: Sequence[float], learned: Sequence[float], nothing: float) -> float:
    """The largest difference between what is not nothing, one by one; what is learned is taken out as it is met."""
    learned = list(learned)
    left = [value for value in true if abs(value) > nothing]
    ours = [value for value in ours if abs(value) > nothing]
    spare = len(ours) - len(left)
    worst = 0.0
    for value in ours:
        apart = abs(value - left[0]) if left else float("inf")
        near = min(learned, key=lambda each: abs(each - value), default=float("inf"))
        if spare > 0 and abs(near - value) < apart:
            learned.remove(near)
            spare -= 1
            worst = max(worst, abs(near - value))
            continue
        worst = max(worst, apart)
        left = left[1:]
    return float("inf") if left else worst
