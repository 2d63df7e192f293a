"""heedmap shows what a Transformer heeds, for and against an answer: signed, exact, on the model as it stands."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from heedmap import errors
from heedmap.estimate import estimate
from heedmap.records import Explanation, Readout, Wiring

if TYPE_CHECKING:
    from heedmap.api import explain, explain_each, open, weights, wiring
    from heedmap.families import load
    from heedmap.methods import METHODS
    from heedmap.quantus import quantus_explain
    from heedmap.targets import logit

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "Explanation",
    "Readout",
    "Wiring",
    "errors",
    "estimate",
    "explain",
    "explain_each",
    "load",
    "logit",
    "open",
    "quantus_explain",
    "weights",
    "wiring",
]

# What needs torch comes when it is first asked for: `heedmap --help` would wait seconds for it.
# A name that is also a module's (estimate) cannot be here: importing the module would put it in the name's place.
_HOMES = {
    "METHODS": "heedmap.methods",
    "explain": "heedmap.api",
    "explain_each": "heedmap.api",
    "load": "heedmap.families",
    "logit": "heedmap.targets",
    "open": "heedmap.api",
    "quantus_explain": "heedmap.quantus",
    "weights": "heedmap.api",
    "wiring": "heedmap.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
