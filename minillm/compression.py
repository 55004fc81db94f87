"""Smaller models: GPT2 in, GPT2 out."""

from __future__ import annotations

from .errors import InputError
from .model import GPT2
from .weights import KINDS, store_parameters


def quantize(model: GPT2, kind: str) -> GPT2:
    """Return `model` with every matrix that multiplies stored as `kind`, output head included; the rest stays as it is.

    int8: blocks of 32 inputs share a float16 scale, w = d q, -127 <= q <= 127 (the numbers of ggml's Q8_0); int4:
    w = d (q - 8), 0 <= q <= 15 (Q4_0); int4_min: w = d q + m (Q4_1); bfloat16, float16, float32: rounded. Already
    stored weights are stored anew from what they hold. Raises InputError for another kind.
    """
    if kind not in KINDS:
        raise InputError(f"weights cannot be stored as {kind!r}; known: {', '.join(KINDS)}")
    dense = {name: p if getattr(p, "kind", kind) == kind else p.dense() for name, p in model.parameters.items()}
    return GPT2(model.config, store_parameters(dense, kind), model.ops)
