"""`heedmap doctor`: what of a model can be explained, and why not the rest."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.cli import options
from heedmap.cli.compare import ALL, by_reason, named
from heedmap.cli.models import loaded
from heedmap.cli.talk import FAILED, busy, dump, one_line, say
from heedmap.cli.wiring import stand_ins, tried_with

if TYPE_CHECKING:
    from heedmap.families import Model

PACKAGES = ("torch", "transformers", "timm", "torchvision")


def doctor(
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
    """Examine a model: can it be explained, in which seams, which tokens are special, how much memory does it take?

    The exit code is 0 where its prediction can be explained and 1 where not; the last line says why.

    Examples:
      heedmap doctor --model zoo:vit
      heedmap doctor savanna.png --model facebook/detr-resnet-50 --json
    """
    chosen = loaded(model, task, device)
    with busy("examining"):
        found = examine(chosen, picture, text, regions)
    if json:
        dump({"model": model, **found})
    else:
        _told(model, found)
    return 0 if found["explained"] else FAILED


def examine(model: Model, picture: Path | None, texts: list[str] | None, regions: Path | None) -> dict[str, Any]:
    """What each question about a model came to; what failed says why."""
    given = stand_ins(model, picture, texts, regions)
    wired, no_wiring = _tried(lambda: model.wiring(**given))
    explained, refused = _tried(lambda: model.explain(**given))
    memory, no_memory = _tried(lambda: model.estimate(**given))
    tried = {name: _tried(lambda name=name: model.explain(**given, method=name))[1] for name in named(ALL)}
    return {
        "class": type(model.module).__name__,
        "task": model.task,
        "labels": len(model.labels),
        "parameters": sum(each.numel() for each in model.module.parameters()),
        "device": str(next(model.module.parameters()).device),
        "given": tried_with(model, picture, texts),
        "calls": len(wired.calls) if wired else 0,
        "seams": dict(Counter(call.seam for call in wired.calls)) if wired else {},
        "streams": _streams(explained) if explained else dict(wired.tokens) if wired else {},
        "readout": list(explained.readout) if explained else [],
        "memory": memory.total if memory else None,
        "methods": {name: line or "yes" for name, line in tried.items()},
        "packages": {name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "explained": explained is not None,
        "problems": [line for line in dict.fromkeys((no_wiring, refused, no_memory)) if line],
    }


def _tried(step: Callable[[], Any]) -> tuple[Any, str | None]:
    try:
        return step(), None
    except Exception as error:  # whatever it is, it is what the doctor was asked to find
        return None, one_line(error)


def _streams(explanation: Any) -> dict[str, Any]:
    """Of each stream: how many tokens, what they are, and which are special."""
    layouts = explanation.shown[0].layouts if explanation.shown else {}
    return {
        stream: {
            "tokens": flowed.shape[-1],
            "layout": type(layouts[stream]).__name__.lower() if stream in layouts else "plain",
            "special": {str(i): name for i, name in layouts[stream].special.items()} if stream in layouts else {},
        }
        for stream, flowed in explanation.relevance.items()
    }


def _version(package: str) -> str | None:
    if find_spec(package) is None:
        return None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _told(source: str, found: dict[str, Any]) -> None:
    say(f"{source}: {found['class']}, {found['task']}, {found['parameters']:,} parameters on {found['device']}")
    say(f"  tried with  {found['given']}")
    say(f"  answers     {found['labels'] or 'no'} labels")
    seams = ", ".join(f"{number} through {seam}" for seam, number in found["seams"].items())
    calls = f"{found['calls']} calls: {seams or 'none met'}"
    say(f"  attention   {'not known' if found['problems'] and not seams else calls}")
    for name, stream in found["streams"].items():
        say(f"  stream      {name}: {_stream(stream)}")
    say(f"  read from   {', '.join(found['readout']) or 'unknown'}")
    memory = f"about {found['memory'] / 2**20:,.0f} MiB beside the model" if found["memory"] else "not known"
    say(f"  memory      {memory}")
    for line, names in by_reason(found["methods"]).items():
        told = "no, see the problem" if line in found["problems"] else line
        say(f"  method      {', '.join(names)}: {told}")
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items() if version)
    say(f"  packages    {packages}")
    for line in found["problems"]:
        say(f"  problem     {line}")
    say("Its prediction can be explained." if found["explained"] else "Its prediction cannot be explained.")


def _stream(stream: Any) -> str:
    if isinstance(stream, int):
        return f"{stream} tokens"
    special = ", ".join(_folded(stream["special"]))
    return f"{stream['tokens']} tokens ({stream['layout']}), special: {special or 'none'}"


def _folded(special: Mapping[str, str]) -> list[str]:
    """Each kind with its places: `[CLS] (0)`, `[PAD] (7 to 9)`, `object queries 0 to 15`."""
    from heedmap.render.sheets import plural

    kinds: dict[str, list[str]] = {}
    for place, name in special.items():
        kinds.setdefault(re.sub(r"\d+", "", name), []).append(place)
    told = []
    for kind, places in kinds.items():
        first, last = special[places[0]], special[places[-1]]
        if len(places) > 1 and kind.endswith(" "):  # told by kind and number
            told.append(f"{plural(kind.strip())} {first.split()[-1]} to {last.split()[-1]}")
        else:
            told.append(f"{first}{f' to {last}' * (last != first)} ({_span(places)})")
    return told


def _span(places: Sequence[str]) -> str:
    """Numbers that follow one another as a range."""
    first, last = int(places[0]), int(places[-1])
    if len(places) > 2 and last - first + 1 == len(places):
        return f"{first} to {last}"
    return ", ".join(places) if len(places) <= 4 else f"{len(places)} of them, {first} to {last}"
