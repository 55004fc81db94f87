"""Smaller models: model in, model out, so that they combine: quantize(low_rank(model, 64), "int8",
...)."""

from .low_rank import break_even_rank, low_rank
from .prune import prune_heads, prune_magnitude, prune_neurons, skip_layers
from .quantize import errors_by_matrix, quantize, round_to_int8

__all__ = [
    "break_even_rank",
    "errors_by_matrix",
    "low_rank",
    "prune_heads",
    "prune_magnitude",
    "prune_neurons",
    "quantize",
    "round_to_int8",
    "skip_layers",
]
