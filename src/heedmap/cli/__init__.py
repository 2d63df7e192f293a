"""The command `heedmap`. Nothing here imports torch before a command needs it: `--help` answers at once."""

from heedmap.cli.app import main

__all__ = ["main"]
