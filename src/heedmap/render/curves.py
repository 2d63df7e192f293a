"""Line charts: what is measured, step by step. Names stand beside the ends of their lines and cover none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from heedmap.errors import InputError
from heedmap.render.colours import INK, RGB, UNSEEN, hexed
from heedmap.render.fonts import fitted, width
from heedmap.render.marks import Text

if TYPE_CHECKING:
    from PIL.Image import Image

Numbers: TypeAlias = Sequence[float]

# Okabe and Ito's colours, told apart by whoever sees fewer; sky and yellow are too pale for a thin line on white.
LINES: tuple[RGB, ...] = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (28, 30, 34), (230, 159, 0))
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))  # where colours come round again
FAINT: RGB = (112, 116, 124)
MARGIN, BESIDE, LINE = 16.0, 22.0, 16.0  # around all; between a line's end and its name; from one name to the next
TITLE, NAME, TICK = 14.0, 12.0, 11.0  # sizes of type, in pixels
LEAST = (240, 180)


def curves(
    lines: Mapping[str, tuple[Numbers, Numbers]],
    *,
    title: str = "",
    across: str = "",
    up: str = "",
    bands: Mapping[str, tuple[Numbers, Numbers]] | None = None,
    between: tuple[float, float] | None = None,
    width: int = 640,
    height: int = 400,
) -> Image:
    """A chart of lines, each the numbers across and the numbers up; `bands` are how low and how high a line may be.

    `between` are the lowest and the highest number up that there is room for. NaN leaves a gap in a line.
    """
    bands = bands or {}
    _check(lines, bands, width, height)
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image, ImageDraw

    from heedmap.render.painting import write

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)  # a point is a pixel
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    for i, (name, (xs, ys)) in enumerate(lines.items()):
        look = {"color": _colour(i), "linestyle": DASHES[i // len(LINES) % len(DASHES)]}
        if name in bands:
            axes.fill_between(xs, *bands[name], color=_colour(i), alpha=0.14, linewidth=0)
        dots = "o" if len(xs) <= 25 else ""
        axes.plot(xs, ys, linewidth=2, marker=dots, markersize=4, solid_capstyle="round", clip_on=False, **look)
    _clean(axes)
    _numbered(axes, lines)
    if between is not None:
        axes.set_ylim(*between)
    texts = _lay_out(figure, axes, lines, title, across, up)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba()).copy()).convert("RGB")
    for text in texts:
        write(ImageDraw.Draw(image), text, 1)
    return image


def _check(lines: Mapping[str, Any], bands: Mapping[str, Any], width: int, height: int) -> None:
    if width < LEAST[0] or height < LEAST[1]:
        raise InputError(f"A chart of {width} x {height} pixels. heedmap expected at least {LEAST[0]} x {LEAST[1]}.")
    most = int((height - 6 * MARGIN) // LINE)
    if not 1 <= len(lines) <= most:
        raise InputError(f"{len(lines)} lines. heedmap draws 1 to {most} in a chart that is {height} pixels high.")
    for name, (xs, ys) in lines.items():
        if len(xs) != len(ys) or not len(xs):
            raise InputError(f"Line {name!r} has {len(xs)} numbers across and {len(ys)} up. heedmap expected as many.")
    for name, (low, high) in bands.items():
        if name not in lines:
            raise InputError(f"There is a band for {name!r}, but no line. The lines are {', '.join(lines)}.")
        if not len(low) == len(high) == len(lines[name][0]):
            raise InputError(
                f"The band of {name!r} has {len(low)} and {len(high)} numbers. heedmap expected {len(lines[name][0])}."
            )


def _clean(axes: Any) -> None:
    """Fine lines across, no frame."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(hexed(UNSEEN))
    axes.grid(axis="y", color=hexed(UNSEEN), linewidth=0.8, alpha=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=TICK, labelcolor=hexed(FAINT), pad=5)
    axes.margins(x=0.015, y=0.06)


def _numbered(axes: Any, lines: Mapping[str, tuple[Numbers, Numbers]]) -> None:
    """Whole numbers across where all are whole: there is no half step."""
    from matplotlib.ticker import MaxNLocator

    if all(float(x).is_integer() for xs, _ in lines.values() for x in xs if math.isfinite(x)):
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))


def _lay_out(figure: Any, axes: Any, lines: Mapping[str, Any], title: str, across: str, up: str) -> list[Text]:
    """Title, the name of what goes up and the lines' names, around as much room for the lines as they leave."""
    wide, high = (size * 72 for size in figure.get_size_inches())
    names = [fitted(name, 0.4 * wide, NAME, bold=True) for name in lines]
    beside = wide - MARGIN - max(width(name, NAME, bold=True) for name in names)
    texts, above = [], MARGIN
    for text, size, bold, colour in ((title, TITLE, True, INK), (up, TICK, False, FAINT)):
        if text:
            above += size
            texts.append(Text(MARGIN, above, fitted(text, wide - 2 * MARGIN, size, bold), size, colour, bold))
            above += 10
    above += 4
    below = MARGIN + TICK + 8 + (TICK + 2 if across else 0)
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    left, right = MARGIN + max((width(text, TICK) for text in ticks), default=0) + 8, beside - BESIDE
    axes.set_position((left / wide, below / high, (right - left) / wide, (high - above - below) / high))
    if across:
        across = fitted(across, wide - 2 * MARGIN, TICK)
        half = MARGIN + width(across, TICK) / 2
        middle = min(max((left + right) / 2, half), wide - half)
        texts.append(Text(middle, high - MARGIN + 2, across, TICK, FAINT, anchor="middle"))
    figure.canvas.draw()  # from here on the axes know where their numbers lie
    ends = [_end(axes, xs, ys) for xs, ys in lines.values()]
    heights = spread([y for _, y in ends], below, high - above - LINE / 2, LINE)
    for i, (name, (x, y), at) in enumerate(zip(names, ends, heights, strict=True)):
        _leader(figure, (x + 5, y), (beside - 5, at), _colour(i))
        texts.append(Text(beside, high - at + 0.36 * NAME, name, NAME, LINES[i % len(LINES)], bold=True))
    return texts


def spread(wanted: Sequence[float], low: float, high: float, apart: float) -> list[float]:
    """Heights as near the wanted ones as may be, in their order, between low and high and at least so far apart."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    floor = low
    for i in order:
        placed[i] = max(wanted[i], floor)
        floor = placed[i] + apart
    ceiling = high
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - apart
    return placed


def _end(axes: Any, xs: Numbers, ys: Numbers) -> tuple[float, float]:
    """Where a line's last number is, in pixels; in the lower right corner if it has none."""
    known = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if not known:
        x, y = axes.transAxes.transform((1, 0))
    else:
        x, y = axes.transData.transform(known[-1])
    return float(x), float(y)


def _leader(figure: Any, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    """A fine line from a line's end to its name."""
    from matplotlib.lines import Line2D

    wide, high = (size * 72 for size in figure.get_size_inches())
    xs, ys = zip(start, end, strict=True)
    figure.add_artist(Line2D([x / wide for x in xs], [y / high for y in ys], color=colour, linewidth=0.8, alpha=0.6))


def _colour(i: int) -> str:
    return hexed(LINES[i % len(LINES)])
