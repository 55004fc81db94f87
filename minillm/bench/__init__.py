"""Everything that compares speed: peers in processes of their own, measured in turn, in one run."""

from .run import Result, run

__all__ = ["Result", "run"]
