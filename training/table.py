"""`python -m training.table`: the table of docs/zoo.md, from the cards."""

from __future__ import annotations

from heedmap import zoo

from .common import console

HEAD = ("| name | class | learned from | measured on held-out scenes |", "|---|---|---|---|")


def table() -> str:
    return "\n".join([*HEAD, *map(row, zoo.names())])


def row(name: str) -> str:
    card = zoo.card(name)
    figures = ", ".join(f"{figure} {value:.3f}" for figure, value in card["measured"].items())
    return f"| {name} | {card['class']} | {card['trained']} | {figures} ({card['scenes']:,} scenes each) |"


if __name__ == "__main__":
    console.print(table(), soft_wrap=True, markup=False, highlight=False)
