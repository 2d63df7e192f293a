"""How a map's gradient corrects its weights, head by head (attention-and-gradient, equations 4 to 6).

A correction looks at each number by itself and leaves the gradient it is given as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from heedmap.errors import InputError

Correction = Callable[[Tensor], Tensor]

CORRECTIONS: Mapping[str, Correction] = {
    "complete": lambda gradient: gradient,
    "positive": lambda gradient: gradient.clamp(min=0),
    "absolute": lambda gradient: gradient.abs(),
}


def correction(name: str) -> Correction:
    if not isinstance(name, str) or name not in CORRECTIONS:
        raise InputError(f"No correction is called {name!r}. Choose one of {', '.join(CORRECTIONS)}.")
    return CORRECTIONS[name]
