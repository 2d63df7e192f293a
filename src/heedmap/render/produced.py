"""What a model wrote, to be looked at: a table of words, a page on which to choose one, lines in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from heedmap.errors import InputError
from heedmap.layouts import Words
from heedmap.render import matrices, painting, vectors
from heedmap.render.matrices import Block, Matrix
from heedmap.render.reading import legible, read
from heedmap.render.units import Panel, Unit, View, number
from heedmap.render.views import panels

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import RenderableType

    from heedmap.families.producing import Produced, Word

SUFFIXES = (".png", ".svg", ".html")
THEIRS = " (against)"  # behind the name of a stream: words of another continuation
OWN = "the other's own words"
NAMED = 3  # words told by name in a terminal
LOUD = 0.05
NOTE = (
    "Full colour is the strongest of each row in each of the texts, the number beside it; white did nothing, grey was "
    "not there yet. "
    "The model wrote greedily."
)


def drawn(produced: Produced, suffix: str, **options: Any) -> bytes:
    """The file of a suffix; `options` are those of `picture`, `svg` or `page`."""
    if suffix == ".png":
        file = BytesIO()
        picture(produced, **options).save(file, "PNG")
        return file.getvalue()
    if suffix == ".svg":
        return svg(produced, **options).encode()
    if suffix == ".html":
        return page(produced, **options).encode()
    raise InputError(
        f"The name ends in {suffix or 'nothing'!r}. heedmap draws what was written as {', '.join(SUFFIXES)}."
    )


def picture(produced: Produced, *, scale: float = 1, special: bool = False) -> Image:
    """Written words by read words; where a picture was read, a panel for each word."""
    shown = shown_words(produced, special)
    if _placed(shown, special):
        return painting.picture([word.explanation for word in shown], scale=scale, special=special)
    return matrices.painted(matrix(produced, special), scale)


def svg(produced: Produced, *, special: bool = False) -> str:
    """What `picture` paints."""
    shown = shown_words(produced, special)
    if _placed(shown, special):
        return vectors.svg([word.explanation for word in shown], special=special)
    return matrices.written(matrix(produced, special))


def matrix(produced: Produced, special: bool = False) -> Matrix:
    """The table as it is laid out."""
    shown = shown_words(produced, special)
    found = [panels(word.explanation, special)[0] for word in shown]
    blocks = [_block(key, found, produced, special) for key in keys_of(found)]
    names = [spoken(word, produced) for word in shown]
    return matrices.matrix(title_of(produced), names, blocks, _note(produced, found, blocks))


def page(produced: Produced, **options: Any) -> str:
    """One page that fetches nothing: what a word read is coloured while it is pointed at, or chosen."""
    from heedmap.render import conversations

    return conversations.page(produced, **options)


def terminal(produced: Produced, *, special: bool = False, top: int = NAMED) -> RenderableType:
    """What `rich` prints: a line for each word, with the loudest of what it read and of what stood before it."""
    from rich.table import Table

    shown = shown_words(produced, special)
    found = [panels(word.explanation, special)[0] for word in shown]
    keys = keys_of(found)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("written")
    table.add_column("logit" if not produced.against else "by", justify="right")
    for stream, part in keys:
        table.add_column(_called(stream, part, produced), ratio=1)
    for word, panel in zip(shown, found, strict=True):
        cells = (_loudest(view_of(panel, key), top) for key in keys)
        table.add_row(spoken(word, produced), number(panel.value), *cells)
    return table


# ---- what is shown


def shown_words(produced: Produced, special: bool) -> list[Word]:
    """The words; where nothing but special tokens was written, those."""
    return [word for word in produced.told if special or not word.special] or list(produced.told)


def _placed(shown: Sequence[Word], special: bool) -> bool:
    return any(view.placed for view in panels(shown[-1].explanation, special)[0].views)


def keys_of(found: Sequence[Panel]) -> list[tuple[str, str]]:
    """Each stream that has something to see in any row; what was written before comes last."""
    keys = dict.fromkeys((view.stream, view.part) for panel in reversed(found) for view in panel.views)
    return list(keys)


def view_of(panel: Panel, key: tuple[str, str]) -> View | None:
    return next((view for view in panel.views if (view.stream, view.part) == key), None)


def _block(key: tuple[str, str], found: Sequence[Panel], produced: Produced, special: bool) -> Block:
    stream, part = key
    views = [view_of(panel, key) for panel in found]
    longest = max((view for view in views if view is not None), key=lambda view: len(view.units))
    names = [unit.name for unit in longest.units]
    if stream == produced.stream:  # a word that is not yet whole in one row is in the next
        names = [unit.name for unit in _units(produced.layout, part, special)]
    rows = [() if view is None else view.units for view in views]
    return matrices.block(_called(stream, part, produced), names, rows, longest.kind == "frames")


def written_key(produced: Produced) -> tuple[str, str]:
    """The stream, and the part of it, in which what was written stands."""
    return produced.stream, "written" if produced.layout.parts else ""


def names_of(produced: Produced, special: bool) -> list[str]:
    """What stands there when all is written."""
    return [unit.name for unit in _units(produced.layout, written_key(produced)[1], special)]


def _units(layout: Words, part: str, special: bool) -> list[Unit]:
    view = next(view for view in read("", layout, [0.0] * len(layout.texts)) if view.part == part)
    return [unit for unit in view.units if special or not unit.special]


def _called(stream: str, part: str, produced: Produced) -> str:
    """A stream by its name, and what it is; of one in which several speak, who."""
    if stream == produced.stream:
        return "written before" if part == "written" else part or f"{stream}: written before"
    return OWN if stream.endswith(THEIRS) else f"{stream}: given"


def spoken(word: Word, produced: Produced) -> str:
    """A word, a star where it was not the model's first choice, in brackets what it was held against."""
    star = "*" if set(word.tokens) & set(produced.overruled) else ""
    held = produced.held_against(word.tokens)
    return f"{word.text}{star} ({held})" if held else f"{word.text}{star}"


def title_of(produced: Produced) -> str:
    text = legible(" ".join(produced.text.split()) or "".join(produced.tokens))
    return text if produced.ended else f"{text} …"


def _note(produced: Produced, found: Sequence[Panel], blocks: Sequence[Block]) -> str:
    told = f"Method {found[0].method}. {NOTE}"
    for one in blocks:
        if len(one.columns) < one.all and not one.timed:
            told += f" Of {one.all} words of {one.name.split(':')[0]} the {len(one.columns)} loudest are shown."
    if produced.other:
        told += (
            " Each word is its log-probability; from the one that stands beside its counterpart in brackets on, these, "
            "less those of the other's words, add up to log p(all of it) − log p(the other)."
        )
    elif produced.against:
        told += " In brackets the next best, against which each word is held."
    if produced.overruled:
        told += " * The model liked another token better, which its generation config forbade."
    return told


def blocked(shown: Sequence[Word], special: bool) -> str:
    """The table in words."""
    told = []
    for word in shown:
        units = [unit for view in panels(word.explanation, special)[0].views for unit in view.units]
        loudest = sorted(units, key=lambda unit: -abs(unit.strength))[:NAMED]
        told.append(f"{word.text}: {', '.join(f'{unit.name} {unit.strength:+.2f}' for unit in loudest)}.")
    return " ".join(told)


def _loudest(view: View | None, top: int) -> Any:
    """The strongest units, with their signs."""
    from rich.text import Text

    units = sorted(view.units, key=lambda unit: -abs(unit.strength)) if view else []
    told = [unit for unit in units if abs(unit.strength) > LOUD][:top]
    text = Text()
    for unit in told:
        text.append(", " if text else "")
        text.append(f"{unit.name} ")
        text.append(f"{unit.strength:+.2f}", "bold #e8334a" if unit.strength > 0 else "bold #2f94d6")
    return text or Text("nothing", "dim")
