"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL, ASKED, WRITTEN = "The model", "What is asked", "What comes out"  # panels of the help

Pictures = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="PICTURE", help="Pictures, or folders that hold them (not in folders below).", show_default=False
    ),
]
Picture = Annotated[
    Path | None, typer.Argument(metavar="PICTURE", help="Without one, noise is taken.", show_default=False)
]

Source = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        envvar="HEEDMAP_MODEL",
        help="zoo:vit and the like, a folder of save_pretrained, or a name on the Hugging Face hub.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        metavar="TASK",
        help="What it is used for, where its files leave that open.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="cpu, cuda, mps ...", show_default="the best there is", rich_help_panel=MODEL),
]
Batch = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, show_default=True, help="How many pictures go through it at once.", rich_help_panel=MODEL
    ),
]

Text = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        "-t",
        metavar="TEXT",
        help="The question or the text; again for every caption.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Chat = Annotated[
    bool,
    typer.Option(
        "--chat", help="--text is what a user says: the model's chat template is put around it.", rich_help_panel=ASKED
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What the model is told before it, of --chat.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-T",
        metavar="LABEL",
        help="The answer to explain, or its index; again for more.",
        show_default="the prediction",
        rich_help_panel=ASKED,
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL",
        help="What it is held against. Without --target: the prediction against it.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How: difference a - b, ratio a / b, or relative (a - b) / a.",
        show_default="difference",
        rich_help_panel=ASKED,
    ),
]
Correction = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What is kept of the gradient: complete, positive, absolute.",
        show_default="complete",
        rich_help_panel=ASKED,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="`heedmap methods` lists them.", show_default="heed", rich_help_panel=ASKED),
]
Guide = Annotated[
    str | None,
    typer.Option(
        metavar="PICTURE",
        help="A picture of another class to stand beside it, or menagerie:zebra and the like.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Side = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where the guide stands: right, left, above, below.",
        show_default="right",
        rich_help_panel=ASKED,
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="How an answer begins whose next word is asked for.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Generate = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Have the model write, up to N tokens, and explain each word; --against is then 'next best', or how it "
        "might have gone on instead.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Word = Annotated[
    str | None,
    typer.Option(
        metavar="WORD",
        help="With --generate: a word of the answer, or its number, to be seen by itself in the terminal.",
        show_default=False,
        rich_help_panel=WRITTEN,
    ),
]
Regions = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Region features (.npz, .tsv), for models that read them.",
        show_default=False,
        rich_help_panel=ASKED,
    ),
]
Threshold = Annotated[
    float,
    typer.Option(
        metavar="P", min=0.0, max=1.0, help="How sure a detection must be to be explained.", rich_help_panel=ASKED
    ),
]

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="Where files go.", show_default="out", rich_help_panel=WRITTEN),
]
Formats = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="NAMES",
        help="png, svg, html, json, heed; several with commas.",
        show_default="png",
        rich_help_panel=WRITTEN,
    ),
]
Special = Annotated[
    bool,
    typer.Option("--special", help="Show special tokens (CLS, registers, padding) too.", rich_help_panel=WRITTEN),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Draw nothing in the terminal.", rich_help_panel=WRITTEN)]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document and nothing else.", rich_help_panel=WRITTEN),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
