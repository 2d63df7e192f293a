"""Some of these tests need a tiny model: those of the family and contract tests are importable from here."""

import sys
from pathlib import Path

for folder in ("families", "oracle", "contract"):
    sys.path.append(str(Path(__file__).parents[1] / folder))
