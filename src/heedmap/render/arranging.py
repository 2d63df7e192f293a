"""Which panels stand beside which: rows are methods or examples, columns are targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from heedmap.errors import InputError
from heedmap.records import Explanation
from heedmap.render.units import Panel
from heedmap.render.views import panels

Several: TypeAlias = (
    Explanation
    | Sequence[Explanation]
    | Sequence[Sequence[Explanation]]
    | Mapping[str, Explanation]
    | Mapping[str, Sequence[Explanation]]
)


@dataclass(frozen=True)
class Row:
    """Panels of one source, and what they have in common where rows differ in it."""

    name: str
    panels: tuple[Panel, ...]


def rows_of(explanations: Several, special: bool = False) -> tuple[Row, ...]:
    """A flat list is sorted into rows by what was given and by method; lists of lists and mappings are rows."""
    if isinstance(explanations, Mapping):
        rows = [Row(str(name), _panels(_listed(row), special)) for name, row in explanations.items()]
    elif isinstance(explanations, Sequence) and any(not isinstance(row, Explanation) for row in explanations):
        rows = [Row("", _panels(_listed(row), special)) for row in explanations]
    else:
        rows = _sorted(_panels(_listed(explanations), special))
    rows = [row for row in rows if row.panels]
    if not rows:
        raise InputError("There is nothing to show. heedmap expected at least one explanation.")
    return tuple(rows)


def _sorted(found: tuple[Panel, ...]) -> list[Row]:
    groups: dict[tuple, list[Panel]] = {}
    for panel in found:
        groups.setdefault((panel.source, panel.method), []).append(panel)
    rows = [Row("", tuple(group)) for group in groups.values()]
    if len({panel.method for panel in found}) == 1:
        return rows
    if len(groups) > 1 and len({panel.source for panel in found}) == 1 and all(len(row.panels) == 1 for row in rows):
        return [Row("", found)]  # one target by several methods: side by side
    return [Row(row.panels[0].method, row.panels) for row in rows]


def _panels(explanations: Iterable[Explanation], special: bool) -> tuple[Panel, ...]:
    return tuple(panel for e in explanations for panel in panels(e, special))


def _listed(explanations: object) -> list[Explanation]:
    if isinstance(explanations, Explanation):
        return [explanations]
    if isinstance(explanations, Sequence) and not isinstance(explanations, str):
        for e in explanations:
            if not isinstance(e, Explanation):
                raise InputError(f"A {type(e).__name__} is among what to show. heedmap expected explanations.")
        return list(explanations)
    raise InputError(
        f"What to show is a {type(explanations).__name__}. heedmap expected an explanation, a list of them, a list of "
        "lists (rows), or a mapping from a row's name to its explanations."
    )
