"""Pictures as people have them, read as a person sees them: upright, in colour, on white."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

LIMIT = 80_000_000  # pixels; Pillow takes more for an attack, and warns
SHOWN = 1600  # the longer side of what is kept for showing
ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
LONGEST = 50  # a strip that is longer would become a picture of hundreds of megabytes
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


def read(source: Any) -> Image:
    """A picture in RGB, from a path, a PIL image, or an array of bytes (height, width[, 3 or 4])."""
    from PIL import Image

    if isinstance(source, Image.Image):
        return _as_seen(source, "The picture")
    if isinstance(source, str | Path):
        return _opened(Path(source))
    if hasattr(source, "__array__"):
        return _from_array(source)
    raise InputError(
        f"The picture is a {type(source).__name__}. heedmap expected a path, a PIL image, or uint8 numbers."
    )


def shown(picture: Image) -> np.ndarray:
    """What is kept of a picture for showing: its bytes, made smaller where it is large."""
    import numpy as np

    if max(picture.size) > SHOWN:
        picture = picture.copy()
        picture.thumbnail((SHOWN, SHOWN))
    return np.array(picture)


def check_sides(processor: Any, images: Sequence[Image]) -> None:
    """Refuse a strip, where a processor enlarges the shorter side."""
    if "shortest_edge" not in (getattr(processor, "size", None) or {}):
        return
    for picture in images:
        if max(picture.size) > LONGEST * min(picture.size):
            raise InputError(
                f"The picture is {picture.width} x {picture.height}, and this model's processor enlarges the "
                f"shorter side. heedmap expected no side more than {LONGEST} times the other: crop it."
            )


def _opened(path: Path) -> Image:
    from PIL import Image, UnidentifiedImageError

    name = repr(str(path))
    if path.is_dir():
        raise InputError(f"{name} is a folder. heedmap expected a picture: name the files in it.")
    if not path.exists():
        raise InputError(f"There is no picture {name}. Check the path.")
    if not path.stat().st_size:
        raise InputError(f"{name} is empty (0 bytes). heedmap expected a picture.")
    if path.suffix.lower() == ".heed":
        raise InputError(f"{name} is an explanation that was saved: heedmap.open reads it. heedmap expected a picture.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files: what can be read is read
            with Image.open(path) as image:
                return _as_seen(image, name)
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is not a picture that can be read, whatever its name says. heedmap expected PNG, JPEG, WebP, GIF, "
            "BMP, TIFF or the like: convert it."
        ) from None
    except Image.DecompressionBombError as error:  # Pillow has read the size, and tells it in its message alone
        met = re.search(r"\((\d+) pixels\)", str(error))
        raise InputError(_too_large(name, f"{int(met[1]) / 1e6:,.0f} million pixels" if met else "too many")) from None
    except PermissionError:
        raise InputError(f"{name} may not be read. Check its permissions.") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is damaged or cut short ({error}). Fetch or export it again.") from error


def _too_large(name: str, met: str) -> str:
    return f"{name} has {met}. heedmap reads pictures of up to {LIMIT // 10**6} million pixels: make it smaller."


def _as_seen(image: Image, name: str) -> Image:
    from PIL import Image, ImageOps

    width, height = image.size
    if not width or not height:
        raise InputError(f"{name} has no pixels ({width} x {height}). heedmap expected at least one.")
    if width * height > LIMIT:
        raise InputError(_too_large(name, f"{width} x {height} pixels"))
    if getattr(image, "is_animated", False):
        image.seek(0)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in DEEP:
        return _from_deep(image)
    if image.mode in ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_deep(image: Image) -> Image:
    """Numbers of more than a byte: their full range, told from what is met, becomes 0 to 255."""
    import numpy as np
    from PIL import Image

    numbers = np.nan_to_num(np.asarray(image, dtype=np.float64))
    most = numbers.max()
    if image.mode == "F":
        full = 1.0 if most <= 1 else 255.0 if most <= 255 else 65535.0
    else:
        full = 255.0 if image.mode == "I" and most <= 255 else 65535.0
    grey = np.clip(numbers * (255.0 / full), 0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _from_array(source: Any) -> Image:
    import numpy as np
    from PIL import Image

    array = np.asarray(source)
    grey, coloured = array.ndim == 2, array.ndim == 3 and array.shape[-1] in (3, 4)
    if array.dtype != np.uint8 or not (grey or coloured):
        raise InputError(
            f"The picture is an array {array.shape} of {array.dtype}. heedmap expected bytes (uint8, 0 to 255), "
            "height x width x 3: multiply numbers from 0 to 1 by 255, and put the channels last."
        )
    return _as_seen(Image.fromarray(array), "The picture")
