"""heedmap shows what a Transformer heeds, for and against an answer: signed, exact, on the model as it stands."""

from heedmap import errors
from heedmap.api import explain, explain_each, open, wiring
from heedmap.estimate import estimate
from heedmap.methods import METHODS
from heedmap.records import Explanation, Readout, Wiring
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
    "logit",
    "open",
    "wiring",
]
