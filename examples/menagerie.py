"""Save a sheet of the menagerie: every kind, and below it what a scene knows of its parts.

`python examples/menagerie.py [PICTURE]`: docs/menagerie.png was made so.
"""

import sys

import numpy as np
from PIL import Image, ImageDraw

from heedmap.menagerie import KINDS, Animal, scene

SIDE, COLUMNS, CAPTION = 150, 8, 18
PARTS = (
    (202, 0, 32),
    (5, 113, 176),
    (244, 165, 30),
    (77, 146, 33),
    (118, 60, 160),
    (0, 150, 150),
    (220, 90, 150),
    (90, 90, 90),
)


def main() -> None:
    out = sys.argv[1] if len(sys.argv) > 1 else "menagerie.png"
    rows = -(-len(KINDS) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * (2 * SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, kind in enumerate(KINDS):
        (animal,) = (drawn := scene(kind, 40 + i, 2 * SIDE)).animals
        x, y = i % COLUMNS * SIDE, i // COLUMNS * (2 * SIDE + CAPTION)
        draw.text((x + 6, y + 3), f"{animal.colour} {kind}", fill=(40, 40, 40))
        sheet.paste(drawn.image.reduce(2), (x, y + CAPTION))
        sheet.paste(parts(animal).reduce(2), (x, y + CAPTION + SIDE))
    sheet.save(out, optimize=True)
    print(f"Saved: {out}")


def parts(animal: Animal) -> Image.Image:
    """A colour for each part, and the box."""
    painted = np.full((*animal.mask.shape, 3), 250, np.uint8)
    for paint, mask in zip(PARTS, animal.parts.values(), strict=False):
        painted[mask] = paint
    picture = Image.fromarray(painted)
    left, top, right, bottom = animal.box
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=(60, 60, 60), width=2)
    return picture


if __name__ == "__main__":
    main()
