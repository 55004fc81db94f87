"""Choosing tokens: the filters, the loop, beam search, and text that streams."""

from .loop import Cycle, Moment, generate, generate_ids
from .options import Options

__all__ = ["Cycle", "Moment", "Options", "generate", "generate_ids"]
