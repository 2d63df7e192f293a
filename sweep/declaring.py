"""What a user can declare where heedmap refuses: what each message asks for, until the model is explained."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import heedmap
from heedmap.errors import HeedmapError, ReadoutError

Explain = Callable[..., Any]


def declared(explain: Explain, error: HeedmapError) -> str:
    """What was declared when `explain` first gave a map in which something flowed; empty where nothing helps."""
    wiring: dict[Any, dict[str, str]] = {}
    more: dict[str, Any] = {}
    for _ in range(40):
        if isinstance(error, ReadoutError):
            named = re.search(r"Readout\('(.+?)', rows", str(error))
            if named is None or more:
                return ""
            more["readout"] = heedmap.Readout(named[1], rows=-1)
        else:
            call = _named(str(error), wiring)
            if call is None:
                return ""
            wiring[call] = _ends(wiring.get(call), call)
        try:
            found = explain(**more, **({"wiring": wiring} if wiring else {}))
        except HeedmapError as again:
            error = again
        else:
            flowed = any(bool(found[stream].any()) for stream in found.streams)
            return _told(wiring, more) if flowed else ""
    return ""


def _named(message: str, wiring: dict[Any, dict[str, str]]) -> Any:
    """The call, by number or module, that a message says to declare."""
    number = re.search(r"wiring=\{(\d+):", message)
    if number is not None:
        call: Any = int(number[1])
    elif between := re.search(r"moved or mixed between call \d+ \([^)]*\) and (.+?): a conv", message):
        call = next((module for module in between[1].split(", ") if module not in wiring), None)
    elif first := re.search(r"first call|reads tokens that were moved|attends over", message):
        call = 0 if first and 0 not in wiring else None
    else:
        call = None
    done = call in wiring and wiring[call]["reading"] != wiring[call]["read"]
    return None if done else call


def _ends(before: dict[str, str] | None, call: Any) -> dict[str, str]:
    """Tokens that read themselves; where that is refused, tokens that read others."""
    name = f"from {call} on"
    return {"reading": name, "read": name if before is None else f"read by {call}"}


def _told(wiring: dict[Any, dict[str, str]], more: dict[str, Any]) -> str:
    count = f"`wiring=` of {len(wiring)} call{'s' if len(wiring) > 1 else ''}"
    return " and ".join([*([count] if wiring else []), *(["`readout=`"] if more else [])])
