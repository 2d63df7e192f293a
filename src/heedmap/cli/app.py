"""The table of commands, and what becomes of their failures: one line, and an exit code.

0: everything asked for was done. 1: something that was tried failed, and the line says what. 2: what the command line
asks for cannot be, whatever the picture: nothing was done. 130: interrupted; what was written stays.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any

import typer

import heedmap
from heedmap.cli import (
    compare,
    demo,
    doctor,
    evaluate,
    explain,
    inspecting,
    leaderboard,
    listing,
    predict,
    read,
    reproduce,
    rewrite,
    transfer,
    wiring,
    world,
)
from heedmap.cli.talk import FAILED, INTERRUPTED, USAGE, UsageError, one_line, warn
from heedmap.guidance import GuideWarning

COMMANDS = {
    "explain": explain.explain,
    "predict": predict.predict,
    "compare": compare.compare,
    "transfer": transfer.transfer,
    "rewrite": rewrite.rewrite,
    "read": read.read,
    "inspect": inspecting.inspect,
    "reproduce": reproduce.reproduce,
    "leaderboard": leaderboard.leaderboard,
    "wiring": wiring.wiring,
    "doctor": doctor.doctor,
    "models": listing.models,
    "methods": listing.methods,
    "demo": demo.demo,
}

app = typer.Typer(
    help="What a Transformer heeds, for and against an answer.\n\n"
    "heedmap explain savanna.png --model zoo:vit --target zebra --against elephant\n"
    "heedmap predict savanna.png --model zoo:vit\n"
    "heedmap doctor --model google/vit-base-patch16-224",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(world.app, name="menagerie")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"heedmap {heedmap.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is returned."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets a question mark
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    # What transformers says while it loads is not what was asked.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default" if debug else "ignore")
            warnings.filterwarnings("always", category=GuideWarning)
            warnings.showwarning = _told
            code = app(given, prog_name="heedmap", standalone_mode=False)
            if code == INTERRUPTED:  # typer makes an exit of Ctrl-C
                raise KeyboardInterrupt
            sys.stdout.flush()
            return code or 0
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        warn("Interrupted. What was written stays.")
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _failed(error)


def _told(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """A warning that is for whoever typed the command, without the line of code it came from."""
    warn(str(message) if category is GuideWarning else f"{category.__name__}: {message}")


def _failed(error: Exception) -> int:
    """Say what went wrong in one line; the exit code."""
    if hasattr(error, "format_message"):  # typer's own: the command line does not parse
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "heedmap"
        if type(error).__name__ != "NoArgsIsHelpError":  # that one has shown its help already
            warn(f"{_sentence(error.format_message())} `{where} --help` lists what there is.")  # pyright: ignore
        return USAGE
    warn(one_line(error))
    return USAGE if isinstance(error, UsageError) else FAILED


def _sentence(message: str) -> str:
    """What typer says, with a full stop, and with one guess instead of a list."""
    unknown = re.match(r"No such option: (\S+) \(Possible options: (.+)\)", message)
    if unknown:
        option, possible = unknown[1], unknown[2].split(", ")
        (guess, *_) = get_close_matches(option, possible, n=1, cutoff=0) or possible
        return f"No such option: {option}. Did you mean {guess}?"
    return message if message.endswith((".", "?", "!")) else f"{message}."
