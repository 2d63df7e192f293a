"""What the tokens of each stream are: told from the inputs, the config and the number of tokens that were met.

Where that is not certain the tokens stay plain: a picture painted in the wrong place would look right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from heedmap.families import tiling
from heedmap.families.tiling import PAD
from heedmap.layouts import Frames, Grid, Joined, Layout, Plain, Regions, Shown, Tiles, Window, Words

if TYPE_CHECKING:
    import numpy as np

    from heedmap.families.feeding import Fed
    from heedmap.records import Explanation

STRIDES = (4, 8, 16, 32, 64)  # how many pixels of a backbone's input one cell of its features may stand for
REARRANGED = " (rearranged)"
Sizes: TypeAlias = tuple[tuple[int, int], ...]  # of several grids: rows, columns


def of(explanation: Explanation, fed: Fed, config: Any, order: Tensor | None) -> tuple[Shown, ...]:
    """What an explanation is of, example by example."""
    return shown(fed, config, counts(explanation), order, explanation.wiring.grids)


def shown(
    fed: Fed,
    config: Any,
    tokens: Mapping[str, int],
    order: Tensor | None = None,
    grids: Mapping[str, Sizes] = MappingProxyType({}),
) -> tuple[Shown, ...]:
    """Each example as a person sees it.

    `order` is where each patch came from, for models that shuffle them; `grids` the sizes of several grids in a stream.
    """
    from heedmap.families.pictures import shown as kept

    seen = [tiling.side_by_side(fed.images)] if len(fed.images) > fed.count else fed.images
    pictures = [kept(image) for image in seen] or _spectrograms(fed, config)
    return tuple(
        Shown(
            layouts={
                name: _levels(grids[name], fed, i) if name in grids else _layout(name, count, fed, config, i, order)
                for name, count in tokens.items()
            },
            picture=pictures[i] if pictures else None,
            text=fed.texts[i] if i < len(fed.texts) else None,
        )
        for i in range(fed.count)
    )


def counts(explanation: Explanation) -> dict[str, int]:
    """How many tokens an example has in each stream."""
    return explanation.wiring.entered | {name: flowed.shape[1] for name, flowed in explanation.relevance.items()}


def _layout(name: str, tokens: int, fed: Fed, config: Any, example: int, order: Tensor | None) -> Layout:
    names = name.removesuffix(REARRANGED).split("+")
    if len(names) > 1:
        return _joined(names, tokens, fed, config, example, order)
    if fed.places and name.removesuffix(REARRANGED) == "pixel_values":
        return tiling.tiled(tokens, fed, config)
    if name == "pixel_values" and fed.placements:
        return _grid(tokens, fed, config, example) or Plain()
    if name in fed.layouts and example < len(fed.layouts[name]):
        return _asked(name, fed.layouts[name][example], tokens, config)
    if fed.seconds and name in ("input_values", "input_features", "frames"):
        return _spectrum(tokens, fed, config) if _strides(config) else _frames(tokens, fed, example)
    return _held(name, tokens, fed, config)


def _held(name: str, tokens: int, fed: Fed, config: Any) -> Plain:
    """Tokens that the model brings itself are no part of what was given: a detector's queries, learned parameters."""
    if tokens == getattr(config, "num_queries", None):
        kind = "object query"
    elif name not in fed.inputs and ("." in name or tokens == _queries(config)):  # the path of a parameter
        kind = "learned token"
    else:
        return Plain()
    return Plain({i: f"{kind} {i}" for i in range(tokens)} if tokens > 1 else {0: kind})


def _asked(name: str, layout: Words | Regions, tokens: int, config: Any) -> Layout:
    """Words, or a question before which a query former puts tokens of its own (InstructBLIP)."""
    found, learned = _fitting(layout, tokens), _queries(config)
    if not isinstance(found, Plain) or not learned or tokens != learned + len(getattr(layout, "texts", ())):
        return found
    own = Plain({i: f"learned token {i}" for i in range(learned)})
    return Joined((("learned tokens", learned, own), (name, tokens - learned, layout)))


def _queries(config: Any) -> int | None:
    return getattr(config, "num_query_tokens", None)


def _fitting(layout: Words | Regions, tokens: int) -> Layout:
    count = len(layout.texts) if isinstance(layout, Words) else len(layout.boxes)
    return layout if count == tokens else Plain()


def _joined(names: list[str], tokens: int, fed: Fed, config: Any, example: int, order: Tensor | None) -> Layout:
    """Words, then what stands beside them; names come in the order of the model's inputs."""
    words = fed.layouts.get("input_ids", ())
    first = words[example] if example < len(words) else None
    if names[0] != "input_ids" or len(names) != 2 or not isinstance(first, Words):
        return Plain()
    rest = tokens - len(first.texts)
    if names[1] == "pixel_values":
        second = None if order is None else _shuffled(order[example], rest, fed, config, example)
    else:
        given = fed.layouts.get(names[1], ())
        second = _fitting(given[example], rest) if example < len(given) else None
    if not isinstance(second, Regions):
        return Plain()
    return Joined(((names[0], len(first.texts), first), (names[1], rest, second)))


# ---- patches


def _grid(tokens: int, fed: Fed, config: Any, example: int) -> Layout | None:
    height, width = fed.inputs["pixel_values"].shape[-2:]
    placement = fed.placements[example]
    if fed.inputs["pixel_values"].ndim != 4 or placement is None:
        return None
    patch = patch_of(config)
    if patch is None:
        return _cells(tokens, fed, example)
    rows, columns = height // patch[0], width // patch[1]
    special = beside(tokens - rows * columns, tokens, config)
    if special is None:
        return None
    first = next(i for i in range(tokens) if i not in special)
    window = placement.window(columns * patch[1], rows * patch[0])
    beyond = _padding(fed, example, rows, columns, window)
    special |= {first + row * columns + column: PAD for row, column in sorted(beyond)}
    return Grid(rows, columns, first, window, special)


def patch_of(config: Any) -> tuple[int, int] | None:
    """The side of a patch, in pixels: height, width; None where a backbone lays out the tokens."""
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "patch_size", None)
    if isinstance(size, int):
        return size, size
    return (size[0], size[1]) if isinstance(size, list | tuple) and len(size) == 2 else None


def beside(extra: int, tokens: int, config: Any) -> dict[int, str] | None:
    """The tokens that are no patches, where they are known to stand: in front, and a detector's at the end."""
    vision = getattr(config, "vision_config", config)
    registers = getattr(vision, "num_register_tokens", 0) or 0
    searching = getattr(vision, "num_detection_tokens", 0) or 0
    if extra == 0:
        return {}
    front = ["[CLS]", *(f"[REG {i}]" for i in range(1, registers + 1))]
    if extra == 2 and vision.model_type == "deit":
        front = ["[CLS]", "[DIST]"]
    if extra != len(front) + searching:
        return None
    end = {tokens - searching + i: f"[OBJECT {i}]" for i in range(searching)}
    return dict(enumerate(front)) | end


def _cells(tokens: int, fed: Fed, example: int) -> Grid | None:
    """Cells of a backbone's features: the one stride that gives as many."""
    height, width = fed.inputs["pixel_values"].shape[-2:]
    fitting = [
        (stride, -(-height // stride), -(-width // stride))
        for stride in STRIDES
        if -(-height // stride) * -(-width // stride) == tokens
    ]
    if len(fitting) != 1:
        return None
    (stride, rows, columns), placement = fitting[0], fed.placements[example]
    assert placement is not None
    window = placement.window(columns * stride, rows * stride)
    beyond = _padding(fed, example, rows, columns, window)
    return Grid(rows, columns, 0, window, {row * columns + column: PAD for row, column in sorted(beyond)})


def _levels(sizes: Sizes, fed: Fed, example: int) -> Layout:
    """The same picture on finer and coarser grids, side by side in one stream: drawn as one map."""
    placement = fed.placements[example] if fed.placements else None
    if placement is None:
        return Plain()
    height, width = fed.inputs["pixel_values"].shape[-2:]
    grids, special, first = [], {}, 0
    for rows, columns in sizes:
        stride = 2 ** round(math.log2(max(height / rows, width / columns)))
        if (-(-height // stride), -(-width // stride)) != (rows, columns):
            return Plain()
        window = placement.window(columns * stride, rows * stride)
        grids.append(Grid(rows, columns, first, window))
        beyond = _padding(fed, example, rows, columns, window)
        special |= {first + row * columns + column: PAD for row, column in sorted(beyond)}
        first += rows * columns
    return Tiles(tuple(grids), special=special)


def _padding(fed: Fed, example: int, rows: int, columns: int, window: Window) -> set[tuple[int, int]]:
    """The cells (row, column) that lie beyond the picture, where a processor or a batch of several sizes padded it."""
    beyond = tiling.beyond(rows, columns, window)
    mask = fed.inputs.get("pixel_mask")
    if mask is None or mask.ndim != 3:
        return beyond
    small = torch.nn.functional.interpolate(mask[example][None, None].float(), size=(rows, columns))[0, 0]
    return beyond | {(row, column) for row, column in (small == 0).nonzero().tolist()}


def _shuffled(order: Tensor, tokens: int, fed: Fed, config: Any, example: int) -> Regions | None:
    """Patches in an order of the model's own, each as its box: [CLS], then those that `order` names (row, column)."""
    placement, patch = fed.placements[example], patch_of(config)
    if placement is None or patch is None or len(order) != tokens - 1:
        return None
    height, width = fed.inputs["pixel_values"].shape[-2:]
    rows, columns = height // patch[0], width // patch[1]
    beyond = _padding(fed, example, rows, columns, placement.window(columns * patch[1], rows * patch[0]))
    boxes, names, special = [(0.0, 0.0, 0.0, 0.0)], [""], {0: "[CLS]"}
    for token, (row, column) in enumerate(order.tolist(), start=1):
        left, top = placement.window(column * patch[1], row * patch[0])[2:]
        right, bottom = placement.window((column + 1) * patch[1], (row + 1) * patch[0])[2:]
        boxes.append((left, top, right, bottom))
        names.append(f"row {row + 1}, column {column + 1}")
        if (row, column) in beyond:
            special[token] = PAD
    return Regions(tuple(boxes), tuple(names), special)


# ---- sounds


def _frames(tokens: int, fed: Fed, example: int) -> Frames:
    """Stretches of equal length; those that begin after the sound has ended are padding."""
    each = fed.heard / tokens
    return Frames(each, {i: PAD for i in range(tokens) if i * each >= fed.seconds[example]})


def _strides(config: Any) -> tuple[int, int] | None:
    """How far apart the patches of a spectrogram are, in frequency and in time."""
    down, across = getattr(config, "frequency_stride", None), getattr(config, "time_stride", None)
    return (down, across) if isinstance(down, int) and isinstance(across, int) else None


def _spectrum(tokens: int, fed: Fed, config: Any) -> Layout:
    """Patches of a spectrogram, which overlap: each stands for the middle of what it covers."""
    times, pitches = fed.inputs["input_values"].shape[-2:]
    strides, side = _strides(config), config.patch_size
    assert strides is not None
    down, across = strides
    rows, columns = (pitches - side) // down + 1, (times - side) // across + 1
    if tokens != rows * columns + 2:
        return Plain()
    left, top = (side - across) / 2 / times, (side - down) / 2 / pitches
    window = (left, top, left + columns * across / times, top + rows * down / pitches)
    return Grid(rows, columns, 2, window, {0: "[CLS]", 1: "[DIST]"})


def _spectrograms(fed: Fed, config: Any) -> list[np.ndarray]:
    """What a model sees that reads sounds as pictures: time from left to right, low tones on top."""
    if not _strides(config) or "input_values" not in fed.inputs:
        return []
    return [_grey(values.T) for values in fed.inputs["input_values"]]


def _grey(values: Tensor) -> np.ndarray:
    values = values.detach().float().cpu()
    low, high = values.min(), values.max()
    bright = ((values - low) / (high - low).clamp(min=1e-9) * 255).round().byte()
    return bright[..., None].expand(*bright.shape, 3).contiguous().numpy()
