"""What a weight is: matrices in float32, bfloat16, float16, or in blocks of 8 or 4 bits, all
multiplied by `linear`.

`store(array, "int8")` for a matrix [in,out]; `store_parameters` for a model's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ..errors import InputError, require_one_of
from .blocks import Int4, Int4Min, Int8
from .floats import BFloat16, BFloat16Rounded, Float16, Float32
from .implicit import Implicit, LowRank, Sparse
from .weight import BF16, Arena, Weight, owned, read_only, to_array

KINDS: dict[str, type[Weight]] = {
    c.kind: c for c in (Float32, BFloat16, BFloat16Rounded, Float16, Int8, Int4, Int4Min)
}

__all__ = [
    "BF16",
    "KINDS",
    "BFloat16",
    "BFloat16Rounded",
    "Float16",
    "Float32",
    "Int4",
    "Int4Min",
    "Int8",
    "LowRank",
    "Sparse",
    "Weight",
    "like",
    "owned",
    "read_only",
    "store",
    "store_parameters",
    "to_array",
]


def store(array, kind: str, *, table: bool = False, allocate=np.empty, release=None) -> Weight:
    """Store a matrix [in,out], or a table [rows,C], in one of KINDS, in arrays from allocate(shape,
    dtype). array: of any floating-point type, or a Weight; release: called with it after each slab
    of rows."""
    require_one_of("kind", kind, KINDS)
    if not isinstance(array, np.ndarray | Weight) or array.ndim != 2 or 0 in array.shape:
        what = getattr(array, "shape", type(array).__name__)
        raise InputError(f"what is to be stored is {what}; it must be a matrix, an array [in,out]")
    convert = KINDS[kind].from_table if table else KINDS[kind].from_matrix
    return convert(array, allocate, release)


def like(old, new: np.ndarray, table: bool = False):
    """`new` stored the way that `old` is."""
    return store(new, old.kind, table=table) if isinstance(old, Weight) and new.ndim == 2 else new


def store_parameters(
    parameters: Mapping[str, np.ndarray | Weight],
    kind: str,
    layout: Mapping,
    release: Callable[[np.ndarray], None] | None = None,
    read: Callable = lambda p: p,
) -> dict:
    """Return a model's parameters with every matrix that `linear` multiplies by stored as `kind`,
    the rest untouched.

    layout: {name: Parameter}, which tells by its role a matrix [in,out] from a table, which is
    multiplied by when transposed, and from what stays an array. All lie in one Arena; a Weight of
    another kind is stored anew. release: called with each matrix again and again while it is
    stored, so that a slab of it at a time is held twice. read: makes the array or the Weight of
    what is a matrix to be.
    """
    matrices = {
        n: p
        for n, p in parameters.items()
        if not isinstance(p, Implicit) and layout[n].role in ("matrix", "table")
        if getattr(p, "kind", None) != kind
    }
    tables = {name for name in matrices if layout[name].role == "table"}
    sizes = [
        math.prod(shape) * np.dtype(dtype).itemsize
        for n, p in matrices.items()
        for shape, dtype in KINDS[kind]
        .shapes(*(p.shape if n in tables else p.shape[::-1]))
        .values()
    ]
    arena, stored = Arena(sum(map(Arena.rounded, sizes))), dict(parameters)
    for name, array in sorted(matrices.items(), key=lambda item: -item[1].size):
        table = name in tables
        stored[name] = store(read(array), kind, table=table, allocate=arena, release=release)
    return stored
