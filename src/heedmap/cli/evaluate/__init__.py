"""`heedmap evaluate`: measure methods, one protocol a file."""

import typer

from heedmap.cli.evaluate import perturbation

app = typer.Typer(
    help="Measure explanations.\n\nExamples:\n\nheedmap evaluate perturbation --model zoo:vit --guide menagerie:zebra",
    no_args_is_help=True,
)


@app.callback()
def _root() -> None:
    pass


app.command("perturbation")(perturbation.perturbation)
