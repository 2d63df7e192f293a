"""Masks as COCO writes them: run lengths down the columns, packed into printable characters.

The runs alternate, background first (0 long where the first pixel is set). From the fourth run on, a run is written as
its difference from the run two before. Each number is cut into groups of five bits, lowest first, as many as its sign
needs; a sixth bit says that another group follows, and adding 48 makes a character of it.
"""

from __future__ import annotations

import numpy as np

RLE = dict[str, object]  # {"size": [height, width], "counts": str}


def encode(mask: np.ndarray) -> RLE:
    """A boolean mask (height, width) as COCO's compressed run lengths."""
    return {"size": list(mask.shape), "counts": _pack(_runs(mask))}


def _runs(mask: np.ndarray) -> list[int]:
    flat = np.asarray(mask, dtype=bool).flatten(order="F")
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], turns, [flat.size]))).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def _pack(runs: list[int]) -> str:
    return "".join(_characters(run - runs[i - 2] if i > 2 else run) for i, run in enumerate(runs))


def _characters(number: int) -> str:
    text = ""
    more = True
    while more:
        group, number = number & 31, number >> 5
        more = number != (-1 if group & 16 else 0)  # else the highest bit, repeated, gives all the rest
        text += chr(48 + (group | 32 * more))
    return text
