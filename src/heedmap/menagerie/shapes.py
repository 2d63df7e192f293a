"""Outlines of which drawings are made: closed curves in a square from -500 to 500, y downwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import cos, hypot, pi, sin

import numpy as np

Point = tuple[float, float]
Curve = Sequence[Point]


@dataclass(frozen=True)
class Shape:
    """One filled outline: which part of the animal it is, the name of its paint, and its points.

    `rim` says where its dark edge is drawn: "behind" all shapes of the animal (together they make the silhouette),
    "here", just below this shape (an ear on a head), or nowhere ("").
    """

    part: str
    paint: str
    curve: Curve
    rim: str = "behind"


def oval(x: float, y: float, rx: float, ry: float, tilt: float = 0, points: int = 28) -> list[Point]:
    """An ellipse; `tilt` in degrees, clockwise on the screen."""
    c, s = cos(pi * tilt / 180), sin(pi * tilt / 180)
    ring = [(rx * cos(2 * pi * i / points), ry * sin(2 * pi * i / points)) for i in range(points)]
    return [(x + a * c - b * s, y + a * s + b * c) for a, b in ring]


def blob(*corners: Point, steps: int = 5) -> list[Point]:
    """A smooth closed curve through the corners (Catmull-Rom)."""
    ring = [corners[-1], *corners, *corners[:2]]
    quads = zip(ring, ring[1:], ring[2:], ring[3:], strict=False)
    return [_between(*quad, step / steps) for quad in quads for step in range(steps)]


def limb(*joints: tuple[float, float, float], steps: int = 4) -> list[Point]:
    """A tube along joints (x, y, width), smooth and with round ends: legs, tails, trunks, necks."""
    spine = _open(joints, steps)
    left, right = [], []
    for i, (x, y, width) in enumerate(spine):
        (ax, ay, _), (bx, by, _) = spine[max(i - 1, 0)], spine[min(i + 1, len(spine) - 1)]
        length = hypot(bx - ax, by - ay) or 1
        nx, ny = (by - ay) / length * width / 2, (ax - bx) / length * width / 2
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    return left + _cap(left[-1], right[-1]) + right[::-1] + _cap(right[0], left[0])


def band(shape: Sequence[Point], left: float, right: float, slant: float = 0, taper: float = 1) -> list[Point]:
    """The strip of a convex outline between x = left and x = right; below, it is moved by `slant` and narrower."""
    middle = (left + right) / 2
    above = [left + (right - left) * i / 4 for i in range(5)]
    below = [middle + (x - middle) * taper + slant for x in above[::-1]]
    return [(x, _span(shape, x)[0]) for x in above] + [(x, _span(shape, x)[1]) for x in below]


def moved(shapes: Iterable[Shape], x: float, y: float, scale: float = 1, tilt: float = 0) -> list[Shape]:
    """The shapes, scaled, then tilted (degrees, clockwise), then moved."""
    c, s = scale * cos(pi * tilt / 180), scale * sin(pi * tilt / 180)
    return [replace(one, curve=[(x + a * c - b * s, y + a * s + b * c) for a, b in one.curve]) for one in shapes]


def outset(curve: Sequence[Point], by: float) -> list[Point]:
    """The outline, its points pushed out by `by` along their normals."""
    area = sum(ax * by_ - bx * ay for (ax, ay), (bx, by_) in zip(curve, [*curve[1:], curve[0]], strict=True))
    push = by if area > 0 else -by
    wider = []
    for i, (x, y) in enumerate(curve):
        (ax, ay), (bx, by_) = curve[i - 1], curve[(i + 1) % len(curve)]
        length = hypot(bx - ax, by_ - ay) or 1
        wider.append((x + (by_ - ay) / length * push, y - (bx - ax) / length * push))
    return wider


def whole(curve: Sequence[Point]) -> np.ndarray:
    """The points rounded to whole numbers, (point, 2)."""
    return np.array([(round(x), round(y)) for x, y in curve], dtype=np.int64)


def _between(a: Point, b: Point, c: Point, d: Point, t: float) -> Point:
    def at(p: float, q: float, r: float, s: float) -> float:
        return 0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t * t + (3 * q - p - 3 * r + s) * t**3)

    return at(a[0], b[0], c[0], d[0]), at(a[1], b[1], c[1], d[1])


def _open(joints: Sequence[tuple[float, float, float]], steps: int) -> list[tuple[float, float, float]]:
    padded = [joints[0], *joints, joints[-1]]
    spine = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for step in range(steps):
            t = step / steps
            x, y = _between(a[:2], b[:2], c[:2], d[:2], t)
            spine.append((x, y, b[2] + (c[2] - b[2]) * t))
    return [*spine, joints[-1]]


def _cap(start: Point, end: Point) -> list[Point]:
    """Half a circle from start to end, both left out."""
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    a, b = start[0] - x, start[1] - y
    return [(x + a * cos(t) - b * sin(t), y + a * sin(t) + b * cos(t)) for t in (pi / 4, pi / 2, 3 * pi / 4)]


def _span(shape: Sequence[Point], x: float) -> tuple[float, float]:
    """Top and bottom of a convex outline at x."""
    ys = []
    for (ax, ay), (bx, by) in zip(shape, [*shape[1:], shape[0]], strict=True):
        if min(ax, bx) <= x <= max(ax, bx) and ax != bx:
            ys.append(ay + (by - ay) * (x - ax) / (bx - ax))
    return (min(ys), max(ys)) if ys else (0.0, 0.0)
