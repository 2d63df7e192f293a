"""Known model families: what to feed them, what their tokens are, what their answers are called.

The numbers never need this room; whoever gives a picture or a text, and wants to look at the answer, does.
"""

from heedmap.families.loading import load
from heedmap.families.model import Answer, Model

__all__ = ["Answer", "Model", "load"]
