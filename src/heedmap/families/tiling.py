"""The tokens of pictures between words: a grid, or tiles and the whole beside them, or those of several pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from heedmap.families.places import Patches, Piece
from heedmap.layouts import Grid, Layout, Plain, Tiles, Window

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from heedmap.families.feeding import Fed
    from heedmap.records import Explanation

PAD = "[PAD]"
EDGE = 0.01  # of a cell: it is beyond the picture if no more of it is inside
APART = 0.03  # of all that is shown: the room between two pictures
WHOLE: Window = (0.0, 0.0, 1.0, 1.0)


def tiled(tokens: int, fed: Fed, config: Any) -> Layout:
    """What all tokens of the pictures are; plain where they are more or fewer than what the processor made."""
    frames = framed([picture.size for picture in fed.images])
    found = _cut(tokens, fed, config) if _in_pieces(fed) else _listed(tokens, fed)
    if found is None:
        return Plain()
    grids, order, special, pictures = found
    order = () if order == tuple(range(tokens)) else order
    special |= {
        order[grid.first + cell] if order else grid.first + cell: PAD for grid in grids for cell in _outside(grid)
    }
    if len(grids) == 1 and not order:
        return replace(grids[0], special=special)
    if len(fed.images) == 1:
        return Tiles(tuple(grids), order, special=special)
    parts = [frames[picture] for picture in pictures]
    moved = [replace(grid, window=within(grid.window, part)) for grid, part in zip(grids, parts, strict=True)]
    return Tiles(tuple(moved), order, tuple(parts), special)


def many(stream: str, fed: Fed) -> int:
    """How many pieces of pictures one example has in a stream, each with tokens of its own."""
    return len(fed.places) if stream.startswith("pixel_values") and _in_pieces(fed) else 1


def folded(explanation: Explanation) -> Explanation:
    """What flowed from all pieces of an example in one row."""
    examples = explanation.value.numel()
    if examples != 1 or all(len(flowed) == 1 for flowed in explanation.relevance.values()):
        return explanation

    def joined(flows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: flowed.reshape(examples, -1) for name, flowed in flows.items()}

    return replace(explanation, relevance=joined(explanation.relevance), starts=joined(explanation.starts))


def _in_pieces(fed: Fed) -> bool:
    return bool(fed.places) and isinstance(fed.places[0], Piece)


Found = tuple[list[Grid], tuple[int, ...], dict[int, str], list[int]]


def _cut(tokens: int, fed: Fed, config: Any) -> Found | None:
    """Pieces of equal size, each with as many tokens; a model may leave out those that show nothing."""
    from heedmap.families.laying import beside, patch_of

    pixels, patch = fed.inputs["pixel_values"], patch_of(config)
    if patch is None:
        return None
    height, width = pixels.shape[-2:]
    rows, columns = height // patch[0], width // patch[1]
    pieces = [piece for piece in fed.places if isinstance(piece, Piece)]
    every = pixels.shape[:-3].numel()
    for count, places in ((len(pieces), range(len(pieces))), (every, [piece.index for piece in pieces])):
        each, rest = divmod(tokens, count)
        own = None if rest else beside(each - rows * columns, each, config)
        if own is None:
            continue
        front = next(i for i in range(each) if i not in own)
        grids = [
            Grid(rows, columns, place * each + front, piece.placement.window(columns * patch[1], rows * patch[0]))
            for piece, place in zip(pieces, places, strict=True)
        ]
        special = {place * each + token: name for place in places for token, name in own.items()}
        shown = {place * each + token for place in places for token in range(each)}
        special |= {token: PAD for token in range(tokens) if token not in shown}
        return grids, (), special, [piece.picture for piece in pieces]
    return None


def _listed(tokens: int, fed: Fed) -> Found | None:
    """Patches in the order in which a processor lists them."""
    grids, order = [], []
    for each in fed.places:
        assert isinstance(each, Patches)
        grids.append(Grid(each.rows, each.columns, len(order), each.window))
        order += [each.first + patch for patch in each.order]
    if sorted(order) != list(range(tokens)):
        return None
    return grids, tuple(order), {}, [each.picture for each in fed.places]


# ---- where on what is shown


def beyond(rows: int, columns: int, window: Window) -> set[tuple[int, int]]:
    """The cells (row, column) that lie beyond the picture."""
    left, top, right, bottom = window
    across, down = (right - left) / columns, (bottom - top) / rows
    return {
        (row, column)
        for row in range(rows)
        for column in range(columns)
        if min(1 - left - column * across, left + (column + 1) * across) < EDGE * across
        or min(1 - top - row * down, top + (row + 1) * down) < EDGE * down
    }


def _outside(grid: Grid) -> list[int]:
    return sorted(row * grid.columns + column for row, column in beyond(grid.rows, grid.columns, grid.window))


def within(window: Window, frame: Window) -> Window:
    """A part of a part."""
    left, top, right, bottom = frame
    wide, high = right - left, bottom - top
    return left + window[0] * wide, top + window[1] * high, left + window[2] * wide, top + window[3] * high


def framed(sizes: Sequence[tuple[int, int]]) -> list[Window]:
    """Where pictures of sizes (width, height) lie that stand side by side, equally high."""
    wide = [width / height for width, height in sizes]
    room = APART * sum(wide) if len(wide) > 1 else 0.0
    whole, at, found = sum(wide) + room * (len(wide) - 1), 0.0, []
    for each in wide:
        found.append((at / whole, 0.0, (at + each) / whole, 1.0))
        at += each + room
    return found


def side_by_side(images: Sequence[Image]) -> Image:
    """Pictures as they are shown: equally high, as high as the highest."""
    from PIL import Image

    if len(images) == 1:
        return images[0]
    high = max(picture.height for picture in images)
    frames = framed([picture.size for picture in images])
    wide = round(images[0].width * high / images[0].height / (frames[0][2] - frames[0][0]))
    made = Image.new("RGB", (wide, high), "white")
    for picture, (left, _, right, _) in zip(images, frames, strict=True):
        size = max(1, round(right * wide) - round(left * wide)), high
        made.paste(picture.resize(size, Image.Resampling.BICUBIC), (round(left * wide), 0))
    return made
