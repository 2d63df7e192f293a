"""Explanations as things one can look at. The packages that draw are imported by whoever draws."""

from heedmap.render.curves import curves
from heedmap.render.notebooks import notebook
from heedmap.render.pages import page
from heedmap.render.painting import picture
from heedmap.render.saving import SUFFIXES, drawn
from heedmap.render.terminals import terminal
from heedmap.render.units import Panel, Unit, View
from heedmap.render.vectors import svg
from heedmap.render.views import panels, strongest

__all__ = [
    "SUFFIXES",
    "Panel",
    "Unit",
    "View",
    "curves",
    "drawn",
    "notebook",
    "page",
    "panels",
    "picture",
    "strongest",
    "svg",
    "terminal",
]
