"""What stands behind the animals: five kinds of ground, and clutter that is nowhere tied to a kind of animal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from .cast import RGB
from .chance import Draws
from .painting import jittered, place
from .shapes import blob, oval, whole

STONE = [whole(blob((-400, 250), (-330, -120), (-60, -330), (260, -250), (420, 60), (380, 260), (0, 310)))]
LEAF = [whole(blob((-500, 0), (-180, -210), (200, -180), (500, 0), (200, 180), (-180, 210)))]
CLOUD = [
    whole(curve)
    for curve in (oval(-220, 60, 240, 170), oval(40, -60, 260, 230), oval(290, 70, 200, 150), oval(20, 120, 420, 120))
]
TUFT = [np.array([(-220, 300), (-300, -250), (-60, 100), (0, -420), (80, 100), (310, -230), (220, 300)])]
FLOWER = [whole(oval(0, 0, 400, 400, points=10)), whole(oval(0, 0, 170, 170, points=8))]
DISC = [whole(oval(0, 0, 500, 500, points=32))]

PASTELS: tuple[RGB, ...] = (
    (226, 200, 206),
    (200, 214, 196),
    (204, 206, 228),
    (232, 218, 188),
    (196, 218, 222),
    (218, 200, 226),
)
LEAVES: tuple[RGB, ...] = ((86, 140, 66), (128, 158, 60), (190, 120, 50), (166, 74, 54))
PETALS: tuple[RGB, ...] = ((250, 250, 246), (250, 214, 90), (236, 130, 160), (176, 130, 214))


def gradient(top: RGB, bottom: RGB, side: int) -> Image.Image:
    steps = np.arange(side, dtype=np.int64)[:, None, None]
    column = (np.array(top) * (side - 1 - steps) + np.array(bottom) * steps) // (side - 1)
    return Image.fromarray(column.clip(0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)


def hills(draw: ImageDraw.ImageDraw, rng: Draws, side: int, height: int, paint: RGB) -> None:
    """Land with a wavy upper edge, `height` thousandths from the top."""
    edge = [(side * i // 8, side * (height + rng.integer(-45, 45)) // 1000) for i in range(9)]
    draw.polygon([side, side, 0, side, *(n for point in edge for n in point)], fill=paint)


def scattered(
    draw: ImageDraw.ImageDraw,
    rng: Draws,
    side: int,
    curves: list,
    paint: RGB,
    count: int,
    top: int,
    extents: tuple[int, int],
) -> None:
    """The same thing several times, anywhere below `top` thousandths; extents in thousandths of the side."""
    for _ in range(count):
        x, y = rng.integer(0, 1000), rng.integer(top, 1000)
        for curve in place(
            curves, x * side // 1000, y * side // 1000, rng.integer(*extents) * side // 1000, rng.integer(-12, 12)
        ):
            draw.polygon(curve, fill=paint)


def sky(rng: Draws, side: int) -> Image.Image:
    image = gradient(jittered((112, 176, 236), rng, 16), jittered((206, 230, 248), rng, 10), side)
    draw = ImageDraw.Draw(image)
    if rng.chance(40):
        scattered(draw, rng, side, DISC, (252, 232, 150), 1, 0, (110, 170))
    for _ in range(rng.integer(2, 5)):
        clouds(draw, rng, side, 1000)
    return image


def clouds(draw: ImageDraw.ImageDraw, rng: Draws, side: int, lowest: int) -> None:
    x, y, extent = rng.integer(0, 1000), rng.integer(0, lowest), rng.integer(160, 330)
    for dy, paint in ((14, (196, 214, 230)), (0, (250, 252, 254))):
        for curve in place(CLOUD, x * side // 1000, (y + dy) * side // 1000, extent * side // 1000, 0):
            draw.polygon(curve, fill=paint)


def meadow(rng: Draws, side: int) -> Image.Image:
    image = gradient(jittered((136, 194, 240), rng, 14), (222, 238, 246), side)
    draw = ImageDraw.Draw(image)
    horizon = rng.integer(180, 420)
    if rng.chance(60):
        clouds(draw, rng, side, horizon)
    green = jittered((132, 188, 92), rng, 14)
    hills(draw, rng, side, horizon, (green[0] - 24, green[1] - 22, green[2] - 8))
    hills(draw, rng, side, horizon + 130, green)
    scattered(
        draw, rng, side, TUFT, (green[0] - 40, green[1] - 36, green[2] - 26), rng.integer(4, 9), horizon + 100, (40, 80)
    )
    for petal in PETALS:
        if rng.chance(45):
            scattered(draw, rng, side, FLOWER[:1], petal, rng.integer(1, 4), horizon + 120, (28, 48))
    return image


def water(rng: Draws, side: int) -> Image.Image:
    top = jittered((92, 180, 206), rng, 16)
    image = gradient(top, (top[0] - 40, top[1] - 62, top[2] - 40), side)
    draw = ImageDraw.Draw(image)
    for row in range(rng.integer(4, 7)):
        y, phase, high = (
            side * (row * 160 + rng.integer(0, 120)) // 1000,
            rng.integer(0, 1),
            side * rng.integer(10, 20) // 1000,
        )
        wave = [(side * i // 16, y + (high if (i + phase) % 2 else -high)) for i in range(17)]
        ribbon = wave + [(x, y + max(side // 90, 1)) for x, y in wave[::-1]]
        draw.polygon([n for point in ribbon for n in point], fill=(top[0] + 44, top[1] + 30, top[2] + 24))
    scattered(draw, rng, side, DISC, (top[0] + 60, top[1] + 44, top[2] + 36), rng.integer(2, 6), 0, (18, 50))
    return image


def sand(rng: Draws, side: int) -> Image.Image:
    base = jittered((236, 212, 160), rng, 12)
    image = gradient((base[0] + 8, base[1] + 10, base[2] + 14), base, side)
    draw = ImageDraw.Draw(image)
    for height in (rng.integer(150, 350), rng.integer(500, 700)):
        base = (base[0] - 9, base[1] - 11, base[2] - 13)
        hills(draw, rng, side, height, base)
    scattered(draw, rng, side, DISC, (base[0] - 34, base[1] - 36, base[2] - 36), rng.integer(12, 26), 0, (10, 18))
    return image


def texture(rng: Draws, side: int) -> Image.Image:
    base = jittered(rng.choice(PASTELS), rng, 10)
    other = tuple(n - rng.integer(12, 26) for n in base)
    image = Image.new("RGB", (side, side), base)
    draw = ImageDraw.Draw(image)
    step = side * rng.integer(70, 140) // 1000
    pattern = rng.choice(("dots", "checks", "stripes"))
    for i in range(-1 - side // step, side // step + 2):
        if pattern == "stripes":
            x = 2 * i * step
            draw.polygon([x, 0, x + step, 0, x + step + side, side, x + side, side], fill=other)
            continue
        for j in range(side // step + 1):
            if pattern == "checks" and (i + j) % 2 == 0:
                draw.rectangle([i * step, j * step, i * step + step - 1, j * step + step - 1], fill=other)
            if pattern == "dots":
                for curve in place(DISC, i * step + (j % 2) * step // 2, j * step, step // 2, 0):
                    draw.polygon(curve, fill=other)
    return image


GROUNDS: dict[str, Callable[[Draws, int], Image.Image]] = {
    "sky": sky,
    "meadow": meadow,
    "water": water,
    "sand": sand,
    "texture": texture,
}


def clutter(draw: ImageDraw.ImageDraw, rng: Draws, side: int) -> None:
    """A few stones and leaves, whatever the ground."""
    for _ in range(rng.integer(1, 5)):
        x, y, angle = rng.integer(0, 1000) * side // 1000, rng.integer(0, 1000) * side // 1000, rng.integer(0, 359)
        extent = rng.integer(90, 200) * side // 1000
        if rng.chance(50):
            tone = rng.integer(110, 170)
            paints, curves, angle = ((tone - 50,) * 3, (tone, tone, tone + 8)), STONE, angle % 31 - 15
        else:
            leaf = rng.choice(LEAVES)
            paints, curves = (tuple(n * 6 // 10 for n in leaf), leaf), LEAF
        for paint, grow in zip(paints, (112, 100), strict=True):
            for curve in place(curves, x, y, extent * grow // 100, angle):
                draw.polygon(curve, fill=paint)
