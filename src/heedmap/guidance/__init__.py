"""Steering attention: a guide of another class beside the picture."""

from heedmap.guidance.guides import guide, guides
from heedmap.guidance.guiding import GuideWarning, Sight, guided, pair
from heedmap.guidance.stitching import SIDES, Stitched, cut, stitch

__all__ = ["SIDES", "GuideWarning", "Sight", "Stitched", "cut", "guide", "guided", "guides", "pair", "stitch"]
