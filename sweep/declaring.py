"""What a user can declare where heedmap refuses: what each message asks for, until the model is explained."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

import heedmap
from heedmap.errors import HeedmapError, ReadoutError

Explain = Callable[..., Any]
Wiring = dict[Any, dict[str, str]]


@dataclass(frozen=True)
class Beginning:
    """Where the tokens enter that a type is declared to begin with: what `module` is given as `given`."""

    module: str  # the ends of module names
    given: str
    calls: Wiring  # that meet them first, each by its module, or by its number where a module makes several

    def place(self, model: nn.Module) -> tuple[nn.Module, str]:
        return model.get_submodule(_whole(model, self.module)), self.given

    def wiring(self, model: nn.Module) -> Wiring:
        return {call if isinstance(call, int) else _whole(model, call): ends for call, ends in self.calls.items()}


def _whole(model: nn.Module, end: str) -> str:
    named = (name for name, _ in model.named_modules() if f".{name}".endswith(f".{end}"))
    return min(named, key=len)


PIXELS = "pixel_level_module.decoder.encoder"
READ, FIRST = {"read": "image"}, "decoder.layers.0"
PLAIN, INNER = (
    Beginning("decoder", "encoder_hidden_states", {f"{FIRST}.encoder_attn{end}": READ}) for end in ("", ".attn")
)
GROUPS_OF_QUERIES = {f"{FIRST}.self_attn": {"reading": "queries", "read": "queries"}, f"{FIRST}.cross_attn.attn": READ}
WITH_WORDS = Beginning("encoder", "vision_features", {6: {"reading": "image"}})  # the tiny backbones make six calls
BEGINNINGS = {
    **dict.fromkeys(("rt_detr_v2", "d_fine", "deimv2"), PLAIN),
    **dict.fromkeys(("rt_detr", "pp_doclayout_v2", "pp_doclayout_v3", "pp_doclayout_v4"), INNER),
    **dict.fromkeys(("grounding-dino", "mm-grounding-dino"), WITH_WORDS),
    "lw_detr": Beginning("decoder", "encoder_hidden_states", GROUPS_OF_QUERIES),
    "mask2former": Beginning(
        PIXELS, "inputs_embeds", {f"{PIXELS}.layers.0.self_attn": {"reading": "image", "read": "image"}}
    ),
}


def added(stream: str) -> bool:
    """Whether a stream begins where only a message asked for it."""
    return stream.startswith(("from ", "read by "))


def declared(explain: Explain, error: HeedmapError, first: Wiring | None = None) -> tuple[str, Any]:
    """What was declared when `explain` first gave a map in which something flowed, and that; empty where nothing helps.

    What the messages ask for, one after the other, behind what is declared at `first`.
    """
    wiring: Wiring = dict(first or {})
    more: dict[str, Any] = {}
    asked: HeedmapError | None = None if first else error
    for _ in range(40):
        if asked is not None and not _answered(asked, wiring, more):
            return "", None
        try:
            found = explain(**more, **({"wiring": wiring} if wiring else {}))
        except HeedmapError as again:
            asked = again
        else:
            flowed = any(bool(found[stream].any()) for stream in found.streams)
            return (_told(wiring, more), found) if flowed else ("", None)
    return "", None


def _answered(error: HeedmapError, wiring: Wiring, more: dict[str, Any]) -> bool:
    """Whether there is more to declare; it is added."""
    if isinstance(error, ReadoutError):
        named = re.search(r"Readout\('(.+?)', rows", str(error))
        if named is None or more:
            return False
        more["readout"] = heedmap.Readout(named[1], rows=-1)
        return True
    call = _named(str(error), wiring)
    if call is None:
        return False
    wiring[call] = _ends(wiring.get(call), call)
    return True


def _named(message: str, wiring: Wiring) -> Any:
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


def _told(wiring: Wiring, more: dict[str, Any]) -> str:
    count = f"`wiring=` of {len(wiring)} call{'s' if len(wiring) > 1 else ''}"
    return " and ".join([*([count] if wiring else []), *(["`readout=`"] if more else [])])
