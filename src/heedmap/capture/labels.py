"""Where every tensor comes from, kept beside the tensors and never on them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from heedmap.records import Origin


class Labels:
    """A weak identity map: a label lives as long as the tensor object it belongs to."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], Any]] = {}

    def get(self, tensor: Tensor) -> Any:
        entry = self._entries.get(id(tensor))
        return None if entry is None or entry[0]() is not tensor else entry[1]

    def set(self, tensor: Tensor, label: Any) -> None:
        key = id(tensor)
        entries = self._entries

        def forget(reference: weakref.ref[Tensor]) -> None:
            entry = entries.get(key)
            if entry is not None and entry[0] is reference:
                del entries[key]

        entries[key] = (weakref.ref(tensor, forget), label)


class Kept(Labels):
    """Labels of tensors as they were: one that was changed in place has none."""

    def get(self, tensor: Tensor) -> Any:
        version, label = super().get(tensor) or (None, None)
        return label if version == tensor._version else None

    def set(self, tensor: Tensor, label: Any) -> None:
        super().set(tensor, (tensor._version, label))


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in arguments or results: bare, or nested in lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)


def union(origins: Iterable[Origin | None]) -> Origin | None:
    """All that is upstream of several tensors; None where nothing is known of any of them."""
    joined: Origin | None = None
    for origin in origins:
        if origin is not None:
            joined = origin if joined is None or joined == origin else joined | origin
    return joined
