"""What there is to look at in an explanation: a panel per example, a view per stream or part, a unit per thing seen.

A unit's strength is S / max|S|, where the maximum is taken over what is shown: special tokens are left out unless they
are asked for.
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import replace
from math import isinf
from typing import TYPE_CHECKING

from heedmap.errors import InputError
from heedmap.layouts import Grid, Layout, Plain, Shown
from heedmap.records import Explanation
from heedmap.render.reading import legible, read
from heedmap.render.units import WHOLE, Panel, Unit, View

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

PIXELS, FINE = "pixels", 48
_LOGIT = re.compile(r"""logit\((\[[^\]]*\]|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d+)(?:, (?:query|position)=[^)]*)?\)""")


def panels(explanation: Explanation, special: bool = False) -> tuple[Panel, ...]:
    """One panel for each example of an explanation."""
    examples = explanation.value.numel()
    if explanation.shown and len(explanation.shown) != examples:
        raise InputError(
            f"The explanation has {examples} examples, and `shown` says what {len(explanation.shown)} of them are. "
            "Give `shown` one entry per example, or leave it empty."
        )
    return tuple(_panel(explanation, i, special) for i in range(examples))


def strongest(
    explanation: Explanation, example: int = 0, stream: str | None = None, top: int = 5, special: bool = False
) -> tuple[Unit, ...]:
    """The units of an example that spoke loudest, for or against, each stream measured by its own peak."""
    views = _panel(explanation, example, special).views
    if stream is not None:
        explanation[stream]  # says which streams there are
        views = tuple(view for view in views if view.stream == stream)
    units = [unit for view in views for unit in view.units if unit.value and not unit.silent]
    return tuple(sorted(units, key=lambda unit: -abs(unit.strength))[:top])


# ---- one example


def _panel(explanation: Explanation, example: int, special: bool) -> Panel:
    shown = explanation.shown[example] if explanation.shown else Shown({})
    views = [
        view for stream in explanation.streams for view in _views(explanation, stream, example, shown.layouts, special)
    ]
    if explanation.pixels is not None:
        views += _pixels(explanation.pixels[example], shown.layouts)
    return Panel(
        title=legible(_title(explanation, example, shown)),
        value=float(explanation.value.flatten()[example]),
        method=method_of(explanation),
        target=explanation.target,
        predicted=explanation.predicted is not None,
        views=tuple(sorted((view for view in views if view.units), key=lambda view: not view.placed)),  # pictures first
        picture=_bytes(shown.picture),
        text=shown.text,
        box=shown.box,
        hidden=tuple(view for view in views if view.left_out and not view.units),
    )


def method_of(explanation: Explanation) -> str:
    """The method and what it kept of the gradient, as one string."""
    named, kept = explanation.method, explanation.correction
    whole = named if not kept or ":" in named else f"{named}:{kept}"
    return f"{whole}+noise" if "noise" in explanation.metadata else whole


def _title(explanation: Explanation, example: int, shown: Shown) -> str:
    """The explained target in few words: zebra − elephant."""
    if shown.answer:
        return shown.answer

    def label(found: re.Match[str]) -> str:
        index = literal_eval(found[1])
        index = index[example] if isinstance(index, list) else index
        return index if isinstance(index, str) else f"logit({index})"

    title = _LOGIT.sub(label, explanation.target).replace(" - ", " − ").replace(" * ", " × ")
    if explanation.predicted is not None:
        predicted = str(explanation.predicted[example])
        title = re.sub(r"\bpredicted\b", lambda _: predicted, title)
    return title


def _bytes(picture: np.ndarray | None) -> np.ndarray | None:
    if picture is None:
        return None
    import numpy as np

    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise InputError(
            f"The picture to show has shape {picture.shape} and type {picture.dtype}. "
            "heedmap expected bytes (height, width, 3): numpy.asarray(image.convert('RGB'))."
        )
    return picture


# ---- one stream


def _pixels(flowed: Tensor, layouts: Mapping[str, Layout]) -> tuple[View, ...]:
    """Pixels, gathered into squares of so many that a picture has FINE of them along its longer side."""
    import numpy as np

    field = flowed.detach().cpu().double().numpy()
    step = -(-max(field.shape) // FINE)
    for axis in (0, 1):
        field = np.add.reduceat(field, range(0, field.shape[axis], step), axis)
    window = next((one.window for one in layouts.values() if isinstance(one, Grid)), WHOLE)
    grid = Grid(*field.shape, window=window)
    views = read(PIXELS, grid, field.ravel().tolist())
    return _weighed(views, special=False)


def _views(
    explanation: Explanation, stream: str, example: int, layouts: Mapping[str, Layout], special: bool
) -> tuple[View, ...]:
    flowed = explanation[stream]
    if len(flowed) != explanation.value.numel():
        raise InputError(
            f"{stream!r} has {len(flowed)} examples, the explained value {explanation.value.numel()}. "
            "heedmap shows explanations whose streams have one row per example."
        )
    values = flowed[example].detach().cpu().double().tolist()
    if any(map(isinf, values)):
        raise InputError(f"{stream!r} holds relevance that is not finite: there is no colour for it.")
    return _weighed(read(stream, layouts.get(stream, Plain()), values), special)


def _weighed(views: tuple[View, ...], special: bool) -> tuple[View, ...]:
    units = [unit for view in views for unit in view.units if special or not unit.special]
    peak = max((abs(unit.value) for unit in units if not unit.silent), default=0.0)
    return tuple(_measured(view, peak, special) for view in views)


def _measured(view: View, peak: float, special: bool) -> View:
    """Of what a method is silent of, patches keep their place, unless it is silent of them all."""
    told = [unit for unit in view.units if special or not unit.special]
    grid = view.kind == "patches" and not all(unit.silent for unit in told)
    shown = tuple(unit for unit in told if not unit.silent or (grid and unit.window is not None))
    return replace(
        view,
        units=tuple(replace(unit, strength=unit.value / peak if peak else 0.0) for unit in shown),
        left_out=tuple(unit for unit in view.units if unit.special and not special and not unit.silent),
        peak=peak,
    )
