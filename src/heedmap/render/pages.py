"""One self-contained page: nothing is fetched, and everything can be read without a mouse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedmap.render.arranging import Row, Several, rows_of
from heedmap.render.colours import AGAINST, FOR, OPACITY, RGB, UNSEEN, colour, hexed, ink, strengths, veil
from heedmap.render.panelling import STRIP, label, named
from heedmap.render.sheets import note
from heedmap.render.units import Panel, Unit, View
from heedmap.render.vectors import data_uri

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

ASSETS = Path(__file__).parent / "assets"
MOST = 960  # pixels of the longer side of a picture
SHARP = 200  # pixels up to which a picture is kept exactly
PAINTED = 320  # pixels of the longer side of painted regions
FORBID = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(
    explanations: Several,
    *,
    title: str | None = None,
    lead: str | None = None,
    captions: Sequence[str] = (),
    opacity: float = OPACITY,
    smooth: bool = True,
    special: bool = False,
    given: bool = True,
) -> str:
    """HTML with a slider for the picture, a switch for the sign, values under the pointer, and numbers to keep.

    `title` and `lead` stand above, `captions` say what to see in each row.
    """
    return written(rows_of(explanations, special), title, lead, captions, opacity=opacity, smooth=smooth, given=given)


def written(
    rows: tuple[Row, ...],
    title: str | None = None,
    lead: str | None = None,
    captions: Sequence[str] = (),
    *,
    opacity: float = OPACITY,
    smooth: bool = True,
    given: bool = True,
) -> str:
    """The page of panels that are laid out already."""
    panels = [panel for row in rows for panel in row.panels]
    sources = tuple(dict.fromkeys(panel.source for panel in panels if panel.picture is not None))
    title = title or _titled(panels)
    parts = {
        "title": escape(title),
        "forbid": FORBID,
        "style": asset("page.css") + _constants() + _pictures(panels, sources),
        "lead": f"<p class=lead>{escape(lead)}</p>" if lead else "",
        "edges": "" if smooth else " checked",
        "opacity": str(round(100 * opacity)),
        "rows": "\n".join(_rows(rows, captions, sources, given)),
        "note": escape(note(panels)),
        "numbers": _numbers(title, panels),
        "script": asset("page.js"),
    }
    html = asset("page.html")
    pieces = html.split("{{")  # filled in one pass, so that a title in braces stays a title
    return pieces[0] + "".join(parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces[1:]))


def _titled(panels: list[Panel]) -> str:
    answers = tuple(dict.fromkeys(panel.title for panel in panels))
    return f"For and against {', '.join(answers) if len(answers) <= 3 else f'{len(answers)} answers'}"


def _rows(rows: tuple[Row, ...], captions: Sequence[str], sources: tuple, given: bool) -> list[str]:
    made, index = [], 0
    for i, row in enumerate(rows):
        figures = []
        first = row.panels[0]
        methods = len({panel.method for panel in row.panels}) > 1
        alone = len({panel.source[0] for panel in row.panels}) == 1  # else no picture stands for the row
        if given and alone and first.picture is not None:
            figures.append(_given(first, sources, methods))
        for panel in row.panels:
            figures.append(_figure(panel, index, sources, panel.method if methods else ""))
            index += 1
        heading = f"<h2>{escape(row.name)}</h2>" if row.name else ""
        caption = f"<p class=caption>{escape(captions[i])}</p>" if i < len(captions) and captions[i] else ""
        made.append(f"<section>{heading}{caption}<div class=row>{''.join(figures)}</div></section>")
    return made


def _given(panel: Panel, sources: tuple, below: bool) -> str:
    alt = escape(f"The picture that was given{f', with the text: {panel.text}' if panel.text else ''}")
    shown = f'class="stage given p{sources.index(panel.source)}" style="--aspect:{_aspect(panel)}"'
    level = "<div class=faint>&nbsp;</div>" if below else ""  # where its neighbours name their method
    return (
        "<figure><figcaption><span class=faint>picture</span></figcaption>"
        f'<div>{level}<div {shown} role=img aria-label="{alt}"></div></div></figure>'
    )


def _figure(panel: Panel, index: int, sources: tuple, method: str) -> str:
    views = [_VIEWS[view.kind](panel, view, f"{index}.{i}", sources) for i, view in enumerate(panel.views)]
    below = f"<div class=faint>{escape(method)}</div>" if method else ""
    broad = "" if any(view.placed for view in panel.views) else " class=broad"
    return (
        f"<figure{broad}><figcaption><b>{escape(panel.title)}</b>"
        f"<span class=faint>{panel.figure}</span></figcaption><div>{below}{''.join(views)}</div></figure>"
    )


# ---- views


def _stage(panel: Panel, view: View, place: str, sources: tuple) -> str:
    """White paper, what speaks for, what speaks against, and the veil of the picture, one above another."""
    layers = _painted(panel, view) if view.kind == "regions" else _patched(view)
    over = ""
    aspect = f"{view.columns}/{view.rows}"
    if panel.picture is not None:
        over = f'<div class="veil v{sources.index(panel.source)}"></div>'
        aspect = _aspect(panel)
    over += "".join(map(_named, named(view)))
    if panel.box is not None:
        left, top, right, bottom = (min(max(share, 0.0), 1.0) for share in panel.box)
        over += f'<div class=box style="{_place((left, top, right, bottom))}"></div>'
    stage = (
        f'<div class="stage view {view.kind}" data-view="{place}" style="--aspect:{aspect}" {_reader(panel, view)}>'
        f"<div class=ground>{layers}</div>{over}<div class=cursor hidden></div></div>"
    )
    return stage + (_spans(panel, view, f"{place}.loose", view.loose) if view.loose else "")


def _named(unit: Unit) -> str:
    """A loud region: its outline, and its name on its colour."""
    left, top, right, bottom = (min(max(share, 0.0), 1.0) for share in unit.window or (0, 0, 0, 0))
    fill = colour(unit.strength)
    kinds = f"named {'for' if unit.strength > 0 else 'against'}{' end' if left > 0.5 else ''}"  # names stay inside
    return (
        f'<div class="{kinds}" style="{_place((left, top, right, bottom))}" aria-hidden=true>'
        f'<span style="background:{hexed(fill)};color:{hexed(ink(fill))}">{escape(label(unit))}</span></div>'
    )


def _patched(view: View) -> str:
    import numpy as np

    field = np.asarray([unit.strength for unit in view.patches]).reshape(view.rows, view.columns)
    place = _place(view.window)
    return f'<div class=paper style="{place}"></div>' + _signs(field, place)


def _painted(panel: Panel, view: View) -> str:
    import numpy as np
    from PIL import Image

    high, wide = (1, 1) if panel.picture is None else panel.picture.shape[:2]
    factor = PAINTED / max(high, wide)
    field = strengths(view, max(1, round(wide * factor)), max(1, round(high * factor)))
    paper = np.full((*field.shape, 2), 255, np.uint8)
    paper[..., 1] = np.where(np.isnan(field), 0, 255)
    place = _place((0, 0, 1, 1))
    return f'<img class=paper alt="" style="{place}" src="{data_uri(Image.fromarray(paper))}">' + _signs(field, place)


def _signs(field: np.ndarray, place: str) -> str:
    """One picture for each sign, its strength as opacity."""
    import numpy as np
    from PIL import Image

    made = ""
    for sign, full, share in (("for", FOR, field), ("against", AGAINST, -field)):
        pixels = np.empty((*field.shape, 4), np.uint8)
        pixels[..., :3] = full
        pixels[..., 3] = np.rint(255 * np.clip(np.nan_to_num(share), 0, 1))
        made += f'<img class={sign} alt="" style="{place}" src="{data_uri(Image.fromarray(pixels))}">'
    return made


def _words(panel: Panel, view: View, place: str, sources: tuple) -> str:
    return (_strip if panel.several_texts else _unnamed)(panel, view, place, sources)


def _strip(panel: Panel, view: View, place: str, sources: tuple) -> str:
    return f"<div class='faint stream'>{escape(view.name)}</div>{_unnamed(panel, view, place, sources)}"


def _unnamed(panel: Panel, view: View, place: str, sources: tuple) -> str:
    return _spans(panel, view, place, view.units)


def _spans(panel: Panel, view: View, place: str, units: tuple[Unit, ...]) -> str:
    bare = view.kind in ("tokens", "frames")
    spans = "".join(_span(unit, bare) for unit in units)
    if not bare:
        return f'<div class="view words" data-view="{place}" {_reader(panel, view)}>{spans}</div>'
    columns = min(STRIP if len(units) <= 8 * STRIP else 2 * STRIP, len(units))
    grid = f'data-columns={columns} style="grid-template-columns:repeat({columns},1fr)"'
    return f'<div class="view cells" data-view="{place}" {grid} {_reader(panel, view)}>{spans}</div>'


def _span(unit: Unit, bare: bool) -> str:
    fill = colour(unit.strength)
    sign = "for" if unit.strength > 0 else "against" if unit.strength < 0 else ""
    told = "" if bare else escape(unit.name)
    return f'<span class="{sign}" style="background:{hexed(fill)};color:{hexed(ink(fill))}">{told}</span>'


def _reader(panel: Panel, view: View) -> str:
    what = {"patches": "patches of the picture", "regions": "regions of the picture"}.get(view.kind, view.kind)
    label = escape(f"{panel.title}: {len(view.units)} {what}. Arrow keys read them one by one.")
    return f'tabindex=0 role=group aria-label="{label}"'


_VIEWS = {"patches": _stage, "regions": _stage, "words": _words, "frames": _strip, "tokens": _strip}


# ---- what the page is filled with


def _pictures(panels: list[Panel], sources: tuple) -> str:
    """Each picture once, as it is and as a veil, however many panels show it."""
    from PIL import Image

    rules = []
    for i, source in enumerate(sources):
        panel = next(panel for panel in panels if panel.source == source)
        assert panel.picture is not None
        image = Image.fromarray(panel.picture)
        image.thumbnail((MOST, MOST))
        grey = Image.fromarray(veil(panel.picture).round().astype("uint8"))
        grey.thumbnail((MOST, MOST))
        rules.append(f".p{i}{{background-image:url({_embedded(image)})}}")
        rules.append(f".v{i}{{background-image:url({_embedded(grey)})}}")
    return "\n".join(rules)


def _embedded(image: Image) -> str:
    if max(image.size) <= SHARP:
        return data_uri(image)
    return data_uri(image, format="JPEG", quality=88)


def _constants() -> str:
    def told(name: str, colour: RGB) -> str:
        return f"--{name}:{hexed(colour)};"

    return f":root{{{told('for', FOR)}{told('against', AGAINST)}{told('unseen', UNSEEN)}}}\n"


def _numbers(title: str, panels: list[Panel]) -> str:
    """Everything that is shown, in full; no text in it can end the script that holds it."""
    told: dict[str, Any] = {"title": title, "panels": []}
    for panel in panels:
        views = [
            {
                "stream": view.stream,
                **({"part": view.part} if view.part else {}),
                "kind": view.kind,
                "columns": view.columns,
                "peak": view.peak,
                "units": [_unit(unit) for unit in view.units],
                "left_out": [_unit(unit) for unit in view.left_out],
            }
            for view in (*panel.views, *panel.hidden)
        ]
        told["panels"].append(
            {
                "title": panel.title,
                "target": panel.target,
                "value": panel.value,
                "method": panel.method,
                "text": panel.text,
                "views": views,
            }
        )
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _unit(unit: Unit) -> dict[str, Any]:
    told: dict[str, Any] = {"name": unit.name, "value": None, "strength": None}
    if not unit.silent:
        told |= {"value": _digits(unit.value), "strength": round(unit.strength, 4)}
    if unit.window is not None:
        told["window"] = [round(share, 5) for share in unit.window]
    return told


def _digits(value: float) -> float:
    return float(f"{value:.7g}")


def _aspect(panel: Panel) -> str:
    assert panel.picture is not None
    return f"{panel.picture.shape[1]}/{panel.picture.shape[0]}"


def _place(window: tuple[float, float, float, float]) -> str:
    left, top, right, bottom = (100 * share for share in window)
    return f"left:{left:.4g}%;top:{top:.4g}%;width:{right - left:.4g}%;height:{bottom - top:.4g}%"


def asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
