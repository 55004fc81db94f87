"""Choosing tokens: filters, cycles, plain decoding, beams, drafts, batches, streaming text."""

from .batch import Request, generate_batch
from .cycle import Cycle, Moment
from .generate import generate, generate_ids
from .options import Options
from .speculative import ModelDraft, NGramDraft, acceptance

__all__ = [
    "Cycle",
    "ModelDraft",
    "Moment",
    "NGramDraft",
    "Options",
    "Request",
    "acceptance",
    "generate",
    "generate_batch",
    "generate_ids",
]
