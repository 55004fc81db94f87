"""Everything that compares speed: peers in processes of their own, measured in turn, in one run."""

from .run import PeerComparison, PeerResult, for_processor, program, run

__all__ = ["PeerComparison", "PeerResult", "for_processor", "program", "run"]
