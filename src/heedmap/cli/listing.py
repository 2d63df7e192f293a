"""`heedmap models` and `heedmap methods`: what is at hand."""

from __future__ import annotations

from typing import Any

from heedmap.cli import options
from heedmap.cli.talk import dump, say, show


def models(json: options.Json = False, debug: options.Debug = False) -> int:
    """List the models of the zoo: small, trained, part of heedmap. Any other is named by its folder or hub name.

    Examples:
      heedmap models
      heedmap models --json
    """
    from heedmap import zoo

    found = [_card(zoo, name) for name in zoo.names()]
    if json:
        dump({"models": found})
        return 0
    show(table(("model", "class", "measured"), [
        (each["model"], each["class"] or "", _figures(each["measured"]) if each["there"] else "not installed")
        for each in found
    ]))  # fmt: skip
    say(
        "Also: a folder that save_pretrained wrote, or a name on the Hugging Face hub, such as facebook/detr-resnet-50."
    )
    return 0


def methods(json: options.Json = False, debug: options.Debug = False) -> int:
    """List the methods that --method takes, with their variants.

    Examples:
      heedmap methods
      heedmap compare savanna.png --model zoo:vit --methods heed,heed:positive
    """
    from heedmap.methods import METHODS

    found = [{"method": name, "variants": list(each.variants), "says": each.says} for name, each in METHODS.items()]
    if json:
        dump({"methods": found})
        return 0
    show(table(("method", "variants", ""), [
        (each["method"], "\n".join(f"{each['method']}:{variant}" for variant in each["variants"]), each["says"])
        for each in found
    ]))  # fmt: skip
    return 0


def _card(zoo: Any, name: str) -> dict[str, Any]:
    from heedmap.errors import ModelError

    try:
        card = zoo.card(name)
    except ModelError:
        card = {}
    return {
        "model": f"zoo:{name}",
        "class": card.get("class"),
        "there": (zoo.path(name) / "model.safetensors").is_file(),
        "measured": card.get("measured", {}),
    }


def _figures(measured: dict[str, Any]) -> str:
    return "\n".join(f"{what}: {number:.3g}" if isinstance(number, float) else f"{what}: {number}"
                     for what, number in measured.items())  # fmt: skip


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for title in titles:
        longest = max(map(len, title.split()), default=0)
        table.add_column(title, overflow="fold", no_wrap=title == titles[0], min_width=longest)  # names stay whole
    for row in rows:
        table.add_row(*row)
    return table
