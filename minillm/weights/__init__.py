"""What a weight is: matrices in float32, bfloat16, float16, or in blocks of 8 or 4 bits, all multiplied by `linear`.

`store(array, "int8")` for a matrix [in,out]; `store_parameters` for a model's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .blocks import Int4, Int4Min, Int8
from .floats import BFloat16, Float16, Float32
from .implicit import LowRank, Sparse
from .weight import Weight

KINDS: dict[str, type[Weight]] = {c.kind: c for c in (Float32, BFloat16, Float16, Int8, Int4, Int4Min)}
TABLES = ("wte.weight", "lm_head.weight")  # [V,C]: looked up by row, and multiplied by when transposed

__all__ = [
    "KINDS",
    "TABLES",
    "BFloat16",
    "Float16",
    "Float32",
    "Int4",
    "Int4Min",
    "Int8",
    "LowRank",
    "Sparse",
    "Weight",
    "store",
    "store_parameters",
]


def store(array, kind: str, *, table: bool = False) -> Weight:
    """Store a matrix [in,out], or a table [rows,C], in one of KINDS."""
    if kind not in KINDS:
        raise ValueError(f"weights cannot be stored as {kind!r}; known: {', '.join(KINDS)}")
    return KINDS[kind].from_table(array) if table else KINDS[kind].from_matrix(array)


def store_parameters(
    parameters: Mapping[str, np.ndarray], kind: str, release: Callable[[np.ndarray], None] | None = None
) -> dict:
    """Return a model's parameters with every matrix that `linear` multiplies by stored as `kind`, the rest untouched.

    release: called with each matrix when it is stored, and the largest come first: so one matrix at a time is held twice.
    """
    stored = dict(parameters)
    for name, array in sorted(parameters.items(), key=lambda item: -item[1].size):
        if isinstance(array, np.ndarray) and array.ndim == 2 and name != "wpe.weight":
            stored[name] = store(array, kind, table=name in TABLES)
            if release:
                release(array)
    return stored
