"""`heedmap evaluate`: measure methods, one protocol a file."""

import typer

from heedmap.cli.evaluate import perturbation, questions, segmentation

app = typer.Typer(
    help="Measure explanations.\n\nExamples:\n\n"
    "heedmap evaluate perturbation --model zoo:vit --guide menagerie:zebra\n\n"
    "heedmap evaluate questions --model zoo:lxmert\n\n"
    "heedmap evaluate segmentation --model zoo:detr",
    no_args_is_help=True,
)


@app.callback()
def _root() -> None:
    pass


app.command("perturbation")(perturbation.perturbation)
app.command("questions")(questions.questions)
app.command("segmentation")(segmentation.segmentation)
