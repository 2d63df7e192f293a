"""Scenes of drawn animals that know exactly what is where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property

import numpy as np
from PIL import Image, ImageDraw

from .cast import COLOURS, KINDS, PAINTS, PALETTE, RGB, drawing
from .chance import Draws, draws
from .grounds import GROUNDS, clutter
from .painting import jittered, shaded, turned
from .shapes import Curve, outset, whole

OVER = 2  # the canvas is so many times finer than the picture
RIM = 20  # width of the dark edge, in units of the drawing
MOST_PARTS = 32  # of one kind
ANIMALS = 12  # as many as fit one scene
EXTENTS = {1: (560, 860), 2: (440, 580), 3: (380, 500), 4: (330, 430)}  # thousandths of the picture's side
TRIES = 24  # places looked at for each animal
PLAN = 1 << 14  # scenes are arranged on a square of this side, so that every size shows the same scene

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Outline:
    """One polygon of a drawing: points first .. last of the drawing, its paint and its part."""

    first: int
    last: int
    paint: str
    part: int


@dataclass(frozen=True)
class Template:
    """A kind's drawing in whole numbers, in the order in which it is painted."""

    points: np.ndarray
    outlines: tuple[Outline, ...]
    parts: tuple[str, ...]


@cache
def template(kind: str) -> Template:
    shapes = drawing(kind)
    parts = tuple(dict.fromkeys(shape.part for shape in shapes))
    layers: list[tuple[Curve, str, str]] = [
        (outset(one.curve, RIM), "rim", one.part) for one in shapes if one.rim == "behind"
    ]
    for one in shapes:
        if one.rim == "here":
            layers.append((outset(one.curve, RIM), "rim", one.part))
        layers.append((one.curve, one.paint, one.part))
    curves = [whole(curve) for curve, _, _ in layers]
    ends = np.cumsum([len(curve) for curve in curves]).tolist()
    outlines = [
        Outline(end - len(curve), end, paint, parts.index(part))
        for curve, end, (_, paint, part) in zip(curves, ends, layers, strict=True)
    ]
    return Template(np.concatenate(curves), tuple(outlines), parts)


@dataclass(frozen=True, eq=False)
class Animal:
    """One animal of a scene. Mask and parts are what one sees of it: what stands in front of it hides it."""

    kind: str
    colour: str
    index: int  # its place in scene.animals; later ones stand in front
    _placed: np.ndarray = field(repr=False)
    _paints: dict[str, RGB] = field(repr=False)
    _stage: Stage = field(repr=False)

    @cached_property
    def mask(self) -> np.ndarray:
        """The pixels that are at least half its own, (size, size) of bool."""
        own = (self._fine >= code(self)) & (self._fine < code(self) + MOST_PARTS)
        return self._stage.embedded(self._window, covered(own) * 2 >= OVER * OVER)

    @cached_property
    def box(self) -> Box:
        """(left, top, right, bottom), half open, tight around the mask."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        if not len(rows):
            return 0, 0, 0, 0
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """The mask, divided: each pixel belongs to the part that has most of it. Parts not seen are all False."""
        names = template(self.kind).parts
        winner = np.stack([covered(self._fine == code(self) + i) for i in range(len(names))]).argmax(0)
        return {name: self.mask & self._stage.embedded(self._window, winner == i) for i, name in enumerate(names)}

    @cached_property
    def _window(self) -> tuple[slice, slice]:
        """The rows and columns of pixels outside of which there is nothing of it."""
        (left, top), (right, bottom) = self._placed.min(0).tolist(), self._placed.max(0).tolist()
        return slice(top // OVER, bottom // OVER + 1), slice(left // OVER, right // OVER + 1)

    @cached_property
    def _fine(self) -> np.ndarray:
        """The window on the fine canvas."""
        rows, columns = self._window
        return self._stage.owners[rows.start * OVER : rows.stop * OVER, columns.start * OVER : columns.stop * OVER]


class Stage:
    """Which animal and part each point of the fine canvas shows; painted when it is first asked for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.animals: tuple[Animal, ...] = ()

    @cached_property
    def owners(self) -> np.ndarray:
        canvas = Image.new("I", (self.size * OVER, self.size * OVER), 0)
        draw = ImageDraw.Draw(canvas)
        for animal in self.animals:
            for outline, points in outlines(animal):
                draw.polygon(points, fill=code(animal) + outline.part)
        return np.asarray(canvas)

    def embedded(self, window: tuple[slice, slice], inside: np.ndarray) -> np.ndarray:
        whole_picture = np.zeros((self.size, self.size), bool)
        whole_picture[window] = inside
        return whole_picture


def covered(fine: np.ndarray) -> np.ndarray:
    """How many points of the fine canvas are True in each pixel."""
    return np.add.reduce([fine[y::OVER, x::OVER].astype(np.uint8) for y in range(OVER) for x in range(OVER)])


def code(animal: Animal) -> int:
    """The number of its first part on the stage; 0 is nobody."""
    return animal.index * MOST_PARTS + 1


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture of animals; the same kinds, seed and size give the same bytes everywhere."""

    seed: int
    size: int
    background: str
    animals: tuple[Animal, ...]

    @cached_property
    def image(self) -> Image.Image:
        side = self.size * OVER
        rng = draws(self.seed, "ground")
        canvas = GROUNDS[self.background](rng, side)
        draw = ImageDraw.Draw(canvas)
        clutter(draw, rng, side)
        for animal in self.animals:
            for outline, points in outlines(animal):
                draw.polygon(points, fill=animal._paints[outline.paint])
        return canvas.reduce(OVER)


def outlines(animal: Animal) -> Iterator[tuple[Outline, list[int]]]:
    flat = animal._placed.ravel().tolist()
    for outline in template(animal.kind).outlines:
        yield outline, flat[2 * outline.first : 2 * outline.last]


def scene(kinds: str | Sequence[str], seed: int, size: int = 96) -> Scene:
    """A scene of exactly these kinds (one name, or several); everything else is drawn from the seed."""
    names = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    check(names, size)
    rng = draws(seed, "scene", *names)
    background = rng.choice(tuple(GROUNDS))
    stage = Stage(size)
    placed = [points * (size * OVER) // PLAN for points in arranged(names, rng)]
    animals = []
    for index, (kind, points) in enumerate(zip(names, placed, strict=True)):
        colour = rng.choice(PALETTE[kind])
        animals.append(Animal(kind, colour, index, points, paints(colour, rng), stage))
    stage.animals = tuple(animals)
    return Scene(seed, size, background, stage.animals)


def scenes(
    n: int,
    seed: int,
    animals: tuple[int, int] = (1, 4),
    size: int = 96,
    distinct: bool = False,
    kinds: Sequence[str] = KINDS,
) -> Iterator[Scene]:
    """n scenes; scene i is drawn from seed + i alone, so that ranges of seeds that do not overlap share no scene.

    `animals` bounds how many stand in a scene; with `distinct` no kind comes twice in one.
    """
    if n < 0:
        raise ValueError(f"n={n}: give how many scenes to draw, 0 or more.")
    if isinstance(animals, int):
        raise ValueError(f"animals={animals}: give the least and the most, as in ({animals}, {animals}).")
    if not 1 <= animals[0] <= animals[1]:
        raise ValueError(f"animals={animals}: the least comes first, as in (1, 4).")
    if distinct and animals[1] > len(kinds):
        raise ValueError(f"animals={animals} of distinct kinds cannot be drawn from {len(kinds)} kinds.")
    for own in range(seed, seed + n):
        rng = draws(own, "cast")
        count = rng.integer(*animals)
        yield scene(rng.shuffled(kinds)[:count] if distinct else [rng.choice(kinds) for _ in range(count)], own, size)


def check(names: Sequence[str], size: int) -> None:
    for name in names:
        if name not in KINDS:
            close = get_close_matches(str(name).lower(), KINDS, n=1)
            advice = f"Did you mean {close[0]!r}?" if close else f"They are {', '.join(KINDS)}."
            raise ValueError(f"{name!r} is not one of the menagerie's {len(KINDS)} kinds. {advice}")
    if not 1 <= len(names) <= ANIMALS:
        raise ValueError(f"A scene has 1 to {ANIMALS} animals, not {len(names)}.")
    if size < 16:
        raise ValueError(f"A scene of {size} pixels is too small to draw in: 16 is the least.")


def paints(colour: str, rng: Draws) -> dict[str, RGB]:
    coat = jittered(shaded(COLOURS[colour], rng.integer(94, 106)), rng, 8)
    # Black has little room below it: its shade is lighter than the coat.
    shade, deep, light = (112, 60, 130) if colour == "black" else (82, 62, 150)
    own = {"coat": 100, "shade": shade, "deep": deep, "light": light, "rim": 26}
    return PAINTS | {name: shaded(coat, percent) for name, percent in own.items()}


def arranged(names: Sequence[str], rng: Draws) -> list[np.ndarray]:
    """Where the points of each animal's drawing lie on the plan; animals keep clear of one another where they can."""
    low, high = EXTENTS[min(len(names), max(EXTENTS))]
    if len(names) > max(EXTENTS):
        low, high = low * 4 // (len(names) + 1), high * 4 // (len(names) + 1)
    taken: list[Box] = []
    placed = []
    for kind in names:
        points = template(kind).points
        if rng.chance(50):
            points = points * (-1, 1)
        extent = rng.integer(low, high) * PLAN // 1000
        points = turned(points, extent, rng.integer(-18, 18), rng.integer(92, 108), rng.integer(92, 108))
        wide = int((points.max(0) - points.min(0)).max())
        if wide > PLAN * 98 // 100:
            points = points * (PLAN * 98 // 100) // wide
        left, top = points.min(0).tolist()
        right, bottom = points.max(0).tolist()
        best: tuple[int, int, int] | None = None
        for _ in range(TRIES):
            x, y = rng.integer(-left, PLAN - 1 - right), rng.integer(-top, PLAN - 1 - bottom)
            hidden = sum(overlap((left + x, top + y, right + x, bottom + y), other) for other in taken)
            if best is None or hidden < best[0]:
                best = hidden, x, y
            if not hidden:
                break
        assert best is not None
        _, x, y = best
        taken.append((left + x, top + y, right + x, bottom + y))
        placed.append(points + np.array((x, y)))
    return placed


def overlap(a: Box, b: Box) -> int:
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
