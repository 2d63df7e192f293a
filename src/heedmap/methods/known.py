"""The methods by name: heedmap's own, those that installed packages bring, and those that a program adds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import getdoc
from typing import Any

from heedmap.errors import BrokenInstallError, InputError
from heedmap.records import Explanation

GROUP = "heedmap.methods"  # of the entry points by which packages bring theirs
NAME = re.compile(r"[\w.-]+")  # a colon parts it from its variant, a comma from another one
Run = Callable[..., list[Explanation]]


@dataclass(frozen=True)
class Method:
    """`run(model, inputs, targets, **options)` gives one explanation per target, from one forward pass."""

    run: Run
    variants: Mapping[str, Mapping[str, Any]]  # what may stand behind the name, as in "gae:official", and its options
    says: str
    anywhere: bool = True  # whether it takes every model; one that does not refuses the others, and says which it takes
    follows: bool = False  # whether tokens moved between calls are followed, by a `wiring` that it is then given


class Methods(MutableMapping[str, Method]):
    """What a package brings is loaded when it is first looked at; a name that is here already stays what it is."""

    def __init__(self, own: Mapping[str, Method]) -> None:
        self._known = dict(own)

    def __getitem__(self, name: str) -> Method:
        if name not in self._known and name in brought():
            self[name] = _loaded(brought()[name])
        return self._known[name]

    def __setitem__(self, name: str, given: Method | Run) -> None:
        """A function alone is a method of one variant, "plain", which may refuse models."""
        if not NAME.fullmatch(name):
            raise InputError(f"{name!r} cannot be the name of a method: it takes letters, digits, '.', '-' and '_'.")
        if not isinstance(given, Method):
            if not callable(given):
                raise InputError(
                    f"The method {name!r} is {given!r}. heedmap expected a function of (model, inputs, targets), or a "
                    "heedmap.methods.Method with its variants."
                )
            says = (getdoc(given) or "no description").partition("\n")[0]
            given = Method(given, {"plain": {}}, says, anywhere=False)
        self._known[name] = given

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._known, *(name for name in brought() if name not in self._known)])

    def __len__(self) -> int:
        return len(self._known.keys() | brought().keys())


@cache
def brought() -> Mapping[str, EntryPoint]:
    """What installed packages bring, by name, not yet loaded."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        package = point.dist.name if point.dist else "an installed package"
        raise BrokenInstallError(
            f"{package} brings the method {point.name!r}, and loading it ({point.value}) fails: {error}. Repair that "
            "package, or uninstall it."
        ) from error
