"""`heedmap demo`: a page to look at within a minute, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heedmap.cli import options
from heedmap.cli.files import Folder, beside
from heedmap.cli.many import progress
from heedmap.cli.talk import dump, say, show

if TYPE_CHECKING:
    from heedmap.demo import Section

TITLE = "What does a Transformer heed?"
LEAD = (
    "Red speaks for the answer above a picture, blue against it. The pictures are drawn, so it is known where the "
    "evidence is, and every share below is measured."
)
NEXT = (
    "heedmap explain YOUR.png --model zoo:vit --against horse",
    "heedmap explain YOUR.png --model google/vit-base-patch16-224 --format html",
    "heedmap doctor --model facebook/detr-resnet-50",
)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder that the page goes to.")] = Path("out/demo"),
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Explain drawn scenes with the models of the zoo: a page to look at. Needs no network.

    Examples:
      heedmap demo
      heedmap demo --out somewhere/else
    """
    from heedmap.demo import SECTIONS
    from heedmap.render import page, picture

    folder = Folder(out)
    sections = []
    with progress(len(SECTIONS)) as step:
        for make in SECTIONS:
            sections.append(make())
            step(1)
    for section in sections:
        with beside(folder.path / f"{section.file}.png") as path:
            picture({"": section.explanations}, columns=5).save(path)
        if not json:
            show(f"[bold]{section.name}[/]. {section.caption}\n")
    rows = {section.name: section.explanations for section in sections}
    index = folder.path / "index.html"
    with beside(index) as path:
        html = page(rows, title=TITLE, lead=LEAD, captions=[section.caption for section in sections])
        path.write_text(html, encoding="utf-8")
    if json:
        dump({"page": str(index), "sections": [_plain(each, folder.path) for each in sections], "next": list(NEXT)})
        return 0
    say(f"Open {index} in a browser. On a picture of your own:\n")
    for line in NEXT:
        say(f"  {line}")
    return 0


def _plain(section: Section, folder: Path) -> dict[str, Any]:
    """What was shown and what was measured of it, as plain values."""
    return {
        "name": section.name,
        "says": section.caption,
        "file": str(folder / f"{section.file}.png"),
        "explanations": [
            {"answer": each.shown[0].answer, "target": each.target, "value": float(each.value)}
            for each in section.explanations
        ],
    }
