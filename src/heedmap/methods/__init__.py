"""Every method, ours and the baselines alike, behind one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from heedmap.errors import InputError
from heedmap.methods.heed import heed
from heedmap.records import Explanation


@dataclass(frozen=True)
class Method:
    """`run(model, inputs, targets, **options)` gives one explanation per target, from one forward pass."""

    run: Callable[..., list[Explanation]]
    variants: tuple[str, ...]  # what may stand behind the name, as in "heed:positive+noise"
    says: str


METHODS: Mapping[str, Method] = {
    "heed": Method(
        heed,
        ("complete", "positive", "absolute", "positive+noise"),
        "attention maps corrected by their gradient and rolled up, stream by stream; signed under complete",
    ),
}


def method(text: str) -> tuple[str, Method, dict[str, object]]:
    """The method that a string such as "heed:positive+noise" names, and the options it stands for."""
    if not isinstance(text, str):
        raise InputError(f"method is {text!r}. heedmap expected a name; the methods are {', '.join(METHODS)}.")
    name, _, variant = text.partition(":")
    if name not in METHODS:
        raise InputError(f"No method is called {name!r}. The methods are {', '.join(METHODS)}.")
    chosen = METHODS[name]
    if not variant:
        return name, chosen, {}
    if variant not in chosen.variants:
        raise InputError(f"Method {name!r} has no variant {variant!r}. Its variants are {', '.join(chosen.variants)}.")
    correction, _, noise = variant.partition("+")
    return name, chosen, {"correction": correction, **({"noise": True} if noise else {})}
