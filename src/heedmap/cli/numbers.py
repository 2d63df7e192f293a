"""An explanation as plain numbers: what `--json` prints and a .json file holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heedmap.cli.talk import warn

if TYPE_CHECKING:
    from heedmap.cli.many import Case
    from heedmap.records import Explanation
    from heedmap.render import View
    from heedmap.render.units import Unit


def numbers(explanation: Explanation, special: bool = False) -> dict[str, Any]:
    """One example: its target, its value, and each patch, word or region with what flowed from it."""
    from heedmap.render import panels

    (panel,) = panels(explanation, special)
    sure = explanation.shown[0].sure if explanation.shown else None
    return {
        "answer": panel.title,
        "target": explanation.target,
        "value": panel.value,
        "predicted": explanation.predicted[0] if explanation.predicted else None,
        "method": explanation.method,
        "correction": explanation.correction,
        "readout": list(explanation.readout),
        "text": panel.text,
        "box": panel.box,
        **({} if sure is None else {"probability": sure}),
        "streams": [_stream(view) for view in (*panel.views, *panel.hidden)],
    }


def _stream(view: View) -> dict[str, Any]:
    """`peak` is the largest magnitude, by which pictures divide; patches lie row by row in `window`.

    `left_out` are special tokens, which pictures leave out: their numbers are there all the same.
    """
    patches = {"rows": view.rows, "columns": view.columns, "window": view.window} if view.rows else {}
    part = {"part": view.part} if view.part else {}  # of a stream of several kinds of tokens
    units = [_unit(unit, bool(view.rows)) for unit in view.units]
    left_out = {"left_out": [_unit(unit) for unit in view.left_out]} if view.left_out else {}
    return {"stream": view.stream, **part, "kind": view.kind, **patches, "peak": view.peak, "units": units, **left_out}


def _unit(unit: Unit, placed: bool = False) -> dict[str, Any]:
    window = {} if placed or unit.window is None else {"window": unit.window}
    return {"name": unit.name, "value": None if unit.silent else unit.value, **window}


def tell_sinks(case: Case, explanations: Sequence[Explanation]) -> None:
    """A line of what is left out of pictures because all is read through it."""
    if sinks := next((explanation.metadata.get("sinks") for explanation in explanations), None):
        warn(f"{case.name}: attention sinks, left out of pictures unless --special is given: {sinks} of the attention.")


def at(box: Sequence[float] | None) -> str:
    """Where a detection is."""
    return "" if box is None else "  at " + ", ".join(f"{edge:.2f}" for edge in box)
