"""Each figure of the papers, made anew and measured: what it claims, the numbers, and whether it holds."""

from heedmap.reproduce.findings import Finding, Part, Setting
from heedmap.reproduce.papers import figures
from heedmap.reproduce.reports import report
from heedmap.reproduce.running import make

__all__ = ["Finding", "Part", "Setting", "figures", "make", "report"]
