"""`heedmap demo`: a page to look at within a minute, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedmap.cli import options
from heedmap.cli.files import Folder, beside
from heedmap.cli.talk import say, show

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
    debug: options.Debug = False,
) -> int:
    """Explain drawn scenes with the models of the zoo: a page to look at. Needs no network.

    Examples:
      heedmap demo
      heedmap demo --out somewhere/else
    """
    from rich.progress import track

    from heedmap.cli.talk import console
    from heedmap.demo import SECTIONS
    from heedmap.render import page, picture

    folder = Folder(out)
    sections = [make() for make in track(SECTIONS, "explaining", console=console(err=True), transient=True)]
    for section in sections:
        with beside(folder.path / f"{section.file}.png") as path:
            picture({"": section.explanations}, columns=5).save(path)
        show(f"[bold]{section.name}[/]. {section.caption}\n")
    rows = {section.name: section.explanations for section in sections}
    with beside(folder.path / "index.html") as path:
        html = page(rows, title=TITLE, lead=LEAD, captions=[section.caption for section in sections])
        path.write_text(html, encoding="utf-8")
    say(f"Open {folder.path / 'index.html'} in a browser. On a picture of your own:\n")
    for line in NEXT:
        say(f"  {line}")
    return 0
