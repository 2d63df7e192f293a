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
    call: str | int  # the call that meets them first, by its module, or by its number where that module makes several
    ends: dict[str, str]

    def place(self, model: nn.Module) -> tuple[nn.Module, str]:
        return model.get_submodule(_whole(model, self.module)), self.given

    def wiring(self, model: nn.Module) -> Wiring:
        return {self.call if isinstance(self.call, int) else _whole(model, self.call): self.ends}


def _whole(model: nn.Module, end: str) -> str:
    named = (name for name, _ in model.named_modules() if f".{name}".endswith(f".{end}"))
    return min(named, key=len)


READ = ("decoder", "encoder_hidden_states")
BEGINNINGS = {
    "rt_detr": Beginning(*READ, "decoder.layers.0.encoder_attn.attn", {"read": "image"}),
    "rt_detr_v2": Beginning(*READ, "decoder.layers.0.encoder_attn", {"read": "image"}),
    "d_fine": Beginning(*READ, "decoder.layers.0.encoder_attn", {"read": "image"}),
    "deimv2": Beginning(*READ, "decoder.layers.0.encoder_attn", {"read": "image"}),
    "pp_doclayout_v4": Beginning(*READ, "decoder.layers.0.encoder_attn.attn", {"read": "image"}),
    "grounding-dino": Beginning("encoder", "vision_features", 6, {"reading": "image"}),
    "mm-grounding-dino": Beginning("encoder", "vision_features", 6, {"reading": "image"}),
    "mask2former": Beginning(
        "pixel_level_module.decoder.encoder",
        "inputs_embeds",
        "pixel_level_module.decoder.encoder.layers.0.self_attn",
        {"reading": "image", "read": "image"},
    ),
}


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
