"""What may stand beside a picture: any picture, or a drawn animal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heedmap.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

DRAWN = "menagerie:"
SEED = 700_000  # no model of the zoo learned from it, and no figure is measured on it


def guide(source: Any) -> Image:
    """A guide from a path, a picture or its bytes; `menagerie:zebra` is a drawn one."""
    if isinstance(source, str) and source.startswith(DRAWN):
        from heedmap import menagerie

        try:
            return menagerie.scene(source.removeprefix(DRAWN), SEED).image
        except ValueError as error:
            raise InputError(str(error)) from None
    from heedmap.families.pictures import read

    return read(source)


def guides() -> tuple[str, ...]:
    """The guides that come with heedmap; the models of the zoo know them."""
    from heedmap import menagerie

    return tuple(f"{DRAWN}{kind}" for kind in menagerie.KINDS)
