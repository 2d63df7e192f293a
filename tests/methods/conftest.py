"""Methods are measured on the tiny models of the family tests, against the oracle: their folders are importable."""

import sys
from pathlib import Path

for folder in ("families", "oracle"):
    sys.path.append(str(Path(__file__).parents[1] / folder))
