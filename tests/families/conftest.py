"""Family tests measure against the oracle: its folder is importable from here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
