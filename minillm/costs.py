"""What operations cost, in closed form: arithmetic, and bytes read and written.

One multiply-add is 2 FLOPs; every other operation on a number, exp and tanh too, is 1. Summed over
a block of GPT-2, the products are the formula that every text on Transformers quotes: c_attn
3 T C^2 + c_proj T C^2 + c_fc 4 T C^2 + mlp.c_proj 4 T C^2 = 12 T C^2 multiply-adds, and q k^T and
weights v T S C each, which are 2 T^2 C without a past. Source: Kaplan et al., "Scaling Laws for
Neural Language Models" (2020), table 1; the split into arithmetic and bytes is that of Williams,
Waterman, Patterson, "Roofline" (2009).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from .sizes import Sizes
from .weights import KINDS

FLOAT = 4  # bytes of a number in float32, which activations and cache are
ACTIVATION_FLOPS = {  # operations in the equation of each, as ops.py writes it
    "gelu_new": 9,
    "gelu": 5,
    "relu": 1,
    "silu": 4,
}


@dataclass(frozen=True)
class Cost:
    """One operation, or several together (cost + cost).

    products: FLOPs of matrix products; elements: FLOPs of all else. weights: bytes of stored
    weights that are read; cache: bytes of keys and values read and written; values: bytes of
    activations read and written, each array once.
    """

    products: float = 0.0
    elements: float = 0.0
    weights: float = 0.0
    cache: float = 0.0
    values: float = 0.0

    @property
    def flops(self) -> float:
        """All arithmetic."""
        return self.products + self.elements

    @property
    def bytes(self) -> float:
        """All bytes read and written."""
        return self.weights + self.cache + self.values

    @property
    def intensity(self) -> float:
        """FLOPs for each byte: the horizontal axis of a roofline."""
        return self.flops / self.bytes if self.bytes else 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum of several costs."""
    return sum(costs, Cost())


def stored_bytes(n_in: int, n_out: int, kind: str) -> int:
    """Return the bytes of a matrix [in,out] stored as `kind`: 4 a number in float32, 2 in the
    halves, in blocks of 32 34/32 (int8), 18/32 (int4) and 20/32 (int4_min); rows are filled up to
    16, inputs to whole blocks. "float64" is 8."""
    if kind == "float64":
        return 8 * n_in * n_out
    return sum(
        math.prod(shape) * np.dtype(dtype).itemsize
        for shape, dtype in KINDS[kind].shapes(n_out, n_in).values()
    )


@dataclass(frozen=True)
class Work:
    """One pass over T new positions in each of `batch` rows after `past` others; what its parts
    cost.

    kind: how matrices are stored. kept: positions whose logits are formed (1 while generating, T
    while scoring). cached: bytes of a number in the cache. Axes are written in the letters of
    sizes.py: "C", "HD KD KD".
    """

    sizes: Sizes
    T: int
    past: int = 0
    batch: int = 1
    kind: str = "float32"
    kept: int = 1
    cached: int = FLOAT

    @property
    def rows(self) -> int:
        """N = B T: the positions that go through every block."""
        return self.batch * self.T

    @property
    def last(self) -> int:
        """The positions that go through the last norm and the head."""
        return self.batch * self.kept

    def linear(self, n_in: str, n_out: str, bias: bool = True, rows: int | None = None) -> Cost:
        """[N,in] x [in,out]: 2 N in out FLOPs, and N out for the bias, were it 0; each weight is
        read once, however many rows there are, which is the whole secret of prefill and batches."""
        n, a, b = rows or self.rows, self.sizes.width(n_in), self.sizes.width(n_out)
        weights = stored_bytes(a, b, self.kind) + FLOAT * b * bias
        return Cost(2.0 * n * a * b, n * b, weights, 0, FLOAT * n * (a + b))

    def layer_norm(self, rows: int | None = None) -> Cost:
        """Mean, centre, square, mean, divide, scale, shift: 7 a number; two divisions, eps, root: 4
        a row."""
        n, C = rows or self.rows, self.sizes.C
        return Cost(0, n * (7 * C + 4), 2 * FLOAT * C, 0, 2 * FLOAT * n * C)

    def rms_norm(self, rows: int | None = None, axis: str = "C") -> Cost:
        """Square, mean, divide, scale: 4 a number; division, eps, root: 3 a row."""
        n, C = rows or self.rows, self.sizes.width(axis)
        return Cost(0, n * (4 * C + 3), FLOAT * C, 0, 2 * FLOAT * n * C)

    def elementwise(self, flops: int, axis: str, arrays: int, rows: int | None = None) -> Cost:
        """`flops` for each of N numbers along `axis`, read from and written to so many arrays."""
        n = (rows or self.rows) * self.sizes.width(axis)
        return Cost(0, flops * n, 0, 0, FLOAT * arrays * n)

    def lookup(self, stored: bool = False) -> Cost:
        """One row [C] of a table for each position; stored: of a table stored as `kind`."""
        V, C = self.sizes.V, self.sizes.C
        row = stored_bytes(C, V, self.kind) / V if stored else FLOAT * C
        return Cost(0, 0, self.rows * row, 0, FLOAT * self.rows * C)

    # ---- attention. Scores are dense, T S for each head, as the textbook computes them: half of
    # them lie in the future and a kernel may skip them.

    @property
    def pairs(self) -> int:
        """All scores: H T S in each row of the batch."""
        return self.batch * self.sizes.H * self.T * (self.past + self.T)

    @property
    def _half_cache(self) -> int:
        """Bytes of all keys, or of all values."""
        return self.cached * self.batch * (self.past + self.T) * self.sizes.width("KD")

    def scores(self) -> Cost:
        """q k^T, scaled; new keys and values are written to the cache, all keys read."""
        new = 2 * self.cached * self.rows * self.sizes.width("KD")
        values = FLOAT * (self.rows * self.sizes.width("HD") + self.pairs)
        return Cost(2.0 * self.pairs * self.sizes.D, self.pairs, 0, self._half_cache + new, values)

    def softmax_of_scores(self) -> Cost:
        """Largest, subtract, exp, sum, divide: 5 a score."""
        return Cost(0, 5 * self.pairs, 0, 0, FLOAT * 2 * self.pairs)

    def context(self) -> Cost:
        """Weights times values, all of which are read."""
        values = FLOAT * (self.rows * self.sizes.width("HD") + self.pairs)
        return Cost(2.0 * self.pairs * self.sizes.D, 0, 0, self._half_cache, values)
