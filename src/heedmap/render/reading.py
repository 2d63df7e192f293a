"""From a layout to units: what each token of a stream is, by name and place."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from heedmap.errors import InputError
from heedmap.layouts import Frames, Grid, Joined, Layout, Plain, Regions, Tiles, Window, Words
from heedmap.render.spreading import spread
from heedmap.render.units import Unit, View

UNREADABLE = "\N{REPLACEMENT CHARACTER}"
_PIECE = re.compile(r"^(?:##|Ġ|▁|Ċ)(?=.)|</w>$|@@$")  # how tokenizers mark the pieces of a word


def read(stream: str, layout: Layout, values: list[float]) -> tuple[View, ...]:
    """The units of a stream as its layout has them, special ones among them; no strength yet."""
    if isinstance(layout, Words) and layout.parts:
        return _turns(stream, layout, values)
    if not isinstance(layout, Joined):
        return (_READERS[type(layout)](stream, layout, values),)
    counts = [tokens for _, tokens, _ in layout.parts]
    told = " and ".join(f"{tokens} of {name!r}" for name, tokens, _ in layout.parts)
    _check_count(stream, told, sum(counts), len(values), exactly=True)
    views, start = [], 0
    for name, tokens, part in layout.parts:
        view = _READERS[type(part)](name, part, values[start : start + tokens])
        views.append(replace(view, stream=stream, part=name))
        start += tokens
    return tuple(views)


def _patches(stream: str, layout: Grid, values: list[float]) -> View:
    rows, columns, first = layout.rows, layout.columns, layout.first
    _check_count(stream, f"{rows} x {columns} patches from token {first} on", first + rows * columns, len(values))
    inside = range(first, first + rows * columns)
    units = _cells(values[first : first + rows * columns], rows, columns, layout.window)
    rest = [
        Unit(layout.special.get(i, f"token {i}"), values[i], special=True)
        for i in range(len(values))
        if i not in inside
    ]
    return View(stream, "patches", (*units, *rest), 0.0, rows=rows, columns=columns, window=layout.window)


def _tiles(stream: str, layout: Tiles, values: list[float]) -> View:
    """One map of all grids; what lies in none of them, or beyond the picture, is special."""
    placed = [token for number in range(len(layout.grids)) for token in layout.tokens(number)]
    _check_count(stream, f"{len(layout.grids)} grids of patches", max(placed, default=-1) + 1, len(values))
    field, window = spread(layout, [0.0 if i in layout.special else value for i, value in enumerate(values)])
    rows, columns = field.shape
    units = _cells(field.ravel().tolist(), rows, columns, window)
    loose = sorted((set(range(len(values))) - set(placed)) | layout.special.keys())
    rest = [Unit(layout.special.get(i, f"token {i}"), values[i], special=True) for i in loose]
    return View(stream, "patches", (*units, *rest), 0.0, rows=rows, columns=columns, window=window)


def _cells(values: Sequence[float], rows: int, columns: int, window: Window) -> list[Unit]:
    left, top, right, bottom = window
    wide, high = (right - left) / columns, (bottom - top) / rows
    return [
        Unit(
            f"row {row + 1}, column {column + 1}",
            values[row * columns + column],
            window=(left + column * wide, top + row * high, left + (column + 1) * wide, top + (row + 1) * high),
        )
        for row in range(rows)
        for column in range(columns)
    ]


def _regions(stream: str, layout: Regions, values: list[float]) -> View:
    _check_count(stream, f"{len(layout.boxes)} regions", len(layout.boxes), len(values), exactly=True)
    told = [i for i in range(len(values)) if i not in layout.special]
    units = [
        Unit(layout.names[i] or f"region {number}", values[i], window=layout.boxes[i])
        for number, i in enumerate(told, start=1)
    ]
    rest = [Unit(name, values[i], special=True) for i, name in layout.special.items()]
    return View(stream, "regions", (*units, *rest), 0.0)


def _words(stream: str, layout: Words, values: list[float]) -> View:
    return View(stream, "words", tuple(unit for _, unit in _spoken(stream, layout, values)), 0.0)


def _turns(stream: str, layout: Words, values: list[float]) -> tuple[View, ...]:
    """The words of each part by themselves."""
    spoken = _spoken(stream, layout, values)
    views, start = [], 0
    for name, tokens in layout.parts:
        units = tuple(unit for first, unit in spoken if start <= first < start + tokens)
        views.append(View(stream, "words", units, 0.0, part=name))
        start += tokens
    return tuple(views)


def _spoken(stream: str, layout: Words, values: list[float]) -> list[tuple[int, Unit]]:
    """Each whole word, and its first token."""
    _check_count(stream, f"{len(layout.texts)} tokens of text", len(layout.texts), len(values), exactly=True)
    grouped = {i for word in layout.words for i in word}
    single = [(i,) for i in range(len(values)) if i not in grouped]
    return [
        (
            word[0],
            Unit(
                layout.special.get(word[0]) or _spelt([layout.texts[i] for i in word]),
                sum(values[i] for i in word),  # what flowed adds up
                special=word[0] in layout.special,
            ),
        )
        for word in sorted((*layout.words, *single))
        if word
    ]


def _frames(stream: str, layout: Frames, values: list[float]) -> View:
    digits = max(2, math.ceil(-math.log10(layout.seconds))) if layout.seconds > 0 else 2  # so that no two are alike

    def name(i: int) -> str:
        return f"{i * layout.seconds:.{digits}f} to {(i + 1) * layout.seconds:.{digits}f} s"

    return View(stream, "frames", _bare(values, layout.special, name), 0.0)


def _plain(stream: str, layout: Plain, values: list[float]) -> View:
    return View(stream, "tokens", _bare(values, layout.special, lambda i: f"token {i}"), 0.0)


_READERS: Mapping[type, Callable[..., View]] = {
    Grid: _patches,
    Tiles: _tiles,
    Regions: _regions,
    Words: _words,
    Frames: _frames,
    Plain: _plain,
}


def _bare(values: list[float], special: Mapping[int, str], name: Callable[[int], str]) -> tuple[Unit, ...]:
    """Special tokens take no time: the others are counted without them."""
    units, number = [], 0
    for i, value in enumerate(values):
        units.append(Unit(special.get(i, "") or name(number), value, special=i in special))
        number += i not in special
    return tuple(units)


def _spelt(texts: list[str]) -> str:
    return legible("".join(_PIECE.sub("", text) for text in texts).strip()) or "␣"


def legible(text: str) -> str:
    """With a mark in place of each letter that no font has and that a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter.isspace() else UNREADABLE for letter in text)


def _check_count(stream: str, what: str, expected: int, met: int, exactly: bool = False) -> None:
    if met < expected or (exactly and met != expected):
        raise InputError(
            f"The layout of {stream!r} is {what}, which takes {expected} tokens; {met} are there. "
            "Mend `shown`, or leave the stream out of its layouts."
        )
