"""Results as files, one for each format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from heedmap.cli.files import Folder, beside

if TYPE_CHECKING:
    from heedmap.records import Explanation

# Side by side, or rows with names.
Several: TypeAlias = "Sequence[Explanation] | Mapping[str, Sequence[Explanation]]"


def write(folder: Folder, stem: str, endings: Sequence[str], shown: Several, special: bool, record: Any) -> list[str]:
    """One file for each format; a .heed file holds one explanation, so there are as many of them. Their paths."""
    base = folder.name(stem, endings)
    written = []
    for ending in endings:
        parts: list[Any] = _flat(shown) if ending == "heed" else [shown]
        for number, part in enumerate(parts, start=1):
            path = base.with_name(f"{base.name}{f'-{number}' if len(parts) > 1 else ''}.{ending}")
            with beside(path) as new:
                if ending == "heed":
                    part.save(new)
                else:
                    new.write_bytes(_bytes(ending, part, special, record))
            written.append(str(path))
    return written


def _bytes(ending: str, shown: Any, special: bool, record: Any) -> bytes:
    if ending == "json":
        return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
    from heedmap.render import drawn

    return drawn(shown, f".{ending}", special=special)


def _flat(shown: Several) -> list[Any]:
    return list(shown) if isinstance(shown, Sequence) else [each for row in shown.values() for each in row]
