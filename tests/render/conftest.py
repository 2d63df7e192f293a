"""`samples` is importable here and from the tests of pages."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
