"""Everything that compares speed: peers in processes of their own, measured in turn, in one run."""

from .run import Comparison, Result, run

__all__ = ["Comparison", "Result", "run"]
