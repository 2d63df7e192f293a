"""`python -m heedmap` is the command `heedmap`."""

import sys

from heedmap.cli import main

if __name__ == "__main__":
    sys.exit(main())
