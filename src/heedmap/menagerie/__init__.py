"""A drawn world with ground truth: scenes of animals that know which pixels are whose, and questions about them."""

from .asking import Question, answers, ask, phrase, questions
from .cast import COLOURS as _COLOURS
from .cast import KINDS, PALETTE, SHARED
from .chance import draws
from .grounds import GROUNDS as _GROUNDS
from .stage import Animal, Scene, scene, scenes

COLOURS = tuple(_COLOURS)
BACKGROUNDS = tuple(_GROUNDS)

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "KINDS",
    "PALETTE",
    "SHARED",
    "Animal",
    "Question",
    "Scene",
    "answers",
    "ask",
    "draws",
    "phrase",
    "questions",
    "scene",
    "scenes",
]
