"""`heedmap wiring`: which tokens read which, call by call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.cli import options
from heedmap.cli.models import given, loaded, reader
from heedmap.cli.talk import dump, say

if TYPE_CHECKING:
    from heedmap.families import Model
    from heedmap.records import Wiring

# What a model is tried with where nobody gave it anything.
WORDS = "what is this?"
STOCK = {"fill-mask": "this is a [MASK]."}
CAPTIONS = ["a cat", "a dog"]
SIDE = 224  # pixels of a picture of noise


def wiring(
    picture: options.Picture = None,
    *,
    model: options.Source,
    text: options.Text = None,
    regions: options.Regions = None,
    task: options.Task = None,
    device: options.Device = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Show how a model is wired: every attention call, and which tokens read which in it.

    Examples:
      heedmap wiring --model zoo:lxmert
      heedmap wiring savanna.png --model zoo:detr --json
    """
    chosen = loaded(model, task, device)
    wired = chosen.wiring(**stand_ins(chosen, picture, text, regions))
    tried = tried_with(chosen, picture, text)
    if json:
        dump({"model": model, "task": chosen.task, "given": tried, **plain(wired)})
    else:
        say(str(wired))
        say(f"Tried with {tried}.")
    return 0


def plain(wired: Wiring) -> dict[str, Any]:
    """A wiring as plain values."""
    return {
        "streams": dict(wired.tokens),
        "calls": [
            {
                "index": call.index, "module": call.module, "seam": call.seam,
                "reading": str(call.reading), "read": str(call.read),
                "queries": call.queries, "keys": call.keys, "heads": call.heads, "type": call.kind,
            }
            for call in wired.calls
        ],
    }  # fmt: skip


def stand_ins(
    model: Model, picture: Path | None, texts: list[str] | None, regions: Path | None = None
) -> dict[str, Any]:
    """What a model is given to look at; where nobody gave anything, noise and a few words, as far as it takes them."""
    import numpy as np

    from heedmap.families.tasks import TASKS

    takes = TASKS[model.task].takes
    thing: Any = picture and reader(model, regions)(picture)
    noise = np.random.default_rng(0)
    if picture is None and "image" in takes:
        thing = noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    if picture is None and "sound" in takes:
        thing = noise.normal(scale=0.1, size=model.processor.sound.sampling_rate).astype(np.float32)
    words: Any = texts or _stock(model)
    if not model.task.startswith("zero-shot"):
        words = words[0] if words else None
    return given(model, [thing], words, regions)


def tried_with(model: Model, picture: Path | None, texts: list[str] | None) -> str:
    """What `stand_ins` gives a model, in words."""
    from heedmap.families.tasks import TASKS

    takes = TASKS[model.task].takes
    missing = ", since none was given"
    told = []
    if "text" not in takes or len(takes) > 1:
        noise = f"{'a sound' if 'sound' in takes else 'a picture'} of noise{missing}"
        told.append(str(picture) if picture is not None else noise)
    if words := texts or _stock(model):
        told.append(f"the text {' and '.join(map(repr, words))}{'' if texts else missing}")
    return "; ".join(told)


def _stock(model: Model) -> list[str]:
    """A few words for a model that takes some."""
    from heedmap.families.tasks import TASKS

    if model.task.startswith("zero-shot"):
        return CAPTIONS
    return [STOCK.get(model.task, WORDS)] if "text" in TASKS[model.task].takes else []
