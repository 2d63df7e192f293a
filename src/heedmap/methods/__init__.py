"""Every method, ours and the baselines alike, behind one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from heedmap.errors import InputError
from heedmap.methods.gae import gae
from heedmap.methods.heed import heed
from heedmap.methods.odam import FEATURES, odam
from heedmap.records import Explanation


@dataclass(frozen=True)
class Method:
    """`run(model, inputs, targets, **options)` gives one explanation per target, from one forward pass."""

    run: Callable[..., list[Explanation]]
    variants: Mapping[str, Mapping[str, Any]]  # what may stand behind the name, as in "gae:official", and its options
    says: str
    anywhere: bool = True  # whether it takes every model; one that does not refuses the others, and says which it takes


METHODS: Mapping[str, Method] = {
    "heed": Method(
        heed,
        {
            "complete": {"correction": "complete"},
            "positive": {"correction": "positive"},
            "absolute": {"correction": "absolute"},
            "positive+noise": {"correction": "positive", "noise": True},
        },
        "attention maps corrected by their gradient and rolled up, stream by stream; signed under complete",
    ),
    "gae": Method(
        gae,
        {"clean": {}, "official": {"official": True}},
        "baseline (Chefer 2021): positive maps, normalised where streams read one another; official is as in its code",
    ),
    "odam": Method(
        odam,
        {name: {"features": name} for name in FEATURES},
        "baseline (Zhao 2024): gradient times features of a picture that another stream reads: DETR, LXMERT",
        anywhere=False,
    ),
}


def method(text: str) -> tuple[str, Method, dict[str, Any]]:
    """The method that a string such as "heed:positive+noise" names, and the options it stands for."""
    if not isinstance(text, str):
        raise InputError(f"method is {text!r}. heedmap expected a name; the methods are {', '.join(METHODS)}.")
    name, _, variant = text.partition(":")
    if name not in METHODS:
        near = get_close_matches(name.lower(), METHODS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"No method is called {name!r}. The methods are {', '.join(METHODS)}.{hint}")
    chosen = METHODS[name]
    if not variant:
        return name, chosen, {}
    if variant not in chosen.variants:
        raise InputError(f"Method {name!r} has no variant {variant!r}. Its variants are {', '.join(chosen.variants)}.")
    return name, chosen, dict(chosen.variants[variant])
