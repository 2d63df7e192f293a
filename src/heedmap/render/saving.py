"""Which suffix is drawn how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from heedmap.render.arranging import Several
from heedmap.render.pages import page
from heedmap.render.painting import picture
from heedmap.render.vectors import svg


def _png(explanations: Several, **options: Any) -> bytes:
    file = BytesIO()
    picture(explanations, **options).save(file, "PNG")
    return file.getvalue()


def _svg(explanations: Several, **options: Any) -> bytes:
    return svg(explanations, **options).encode()


def _html(explanations: Several, **options: Any) -> bytes:
    return page(explanations, **options).encode()


SUFFIXES: Mapping[str, Callable[..., bytes]] = {".png": _png, ".svg": _svg, ".html": _html}


def drawn(explanations: Several, suffix: str, **options: Any) -> bytes:
    """The file of a suffix; `options` are those of `picture`, `svg` or `page`."""
    return SUFFIXES[suffix](explanations, **options)
