"""Every method on drawn scenes whose truth is known: where it points, what it keeps, what it costs."""

from heedmap.evaluation.leaderboard.board import board
from heedmap.evaluation.leaderboard.pages import page
from heedmap.evaluation.leaderboard.running import MODELS, Job, contestants, counts, run
from heedmap.evaluation.leaderboard.tables import markdown

__all__ = ["MODELS", "Job", "board", "contestants", "counts", "markdown", "page", "run"]
