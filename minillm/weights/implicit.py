"""Weights that are no stored rectangle: a product of two matrices, or the few numbers that are not
zero.

`linear` multiplies by them through `x @ W`; the fused decode step does not know them, so the
readable forward runs.
"""

from __future__ import annotations

import copy

import numpy as np

from .. import ops as numpy_ops
from .weight import NoItems, read_only


class Implicit(NoItems):
    """Base: a matrix [in,out] that knows its product x @ W, `shape`, `nbytes`, `size` (numbers
    stored) and `dense()`."""

    parts: tuple[str, ...] = ()  # the names of its arrays, or weights
    ndim = 2
    shape: tuple[int, int]
    nbytes: int
    __array_ufunc__ = None  # makes `ndarray @ weight` come here, to __rmatmul__

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.dense() if dtype is None else self.dense().astype(dtype, copy=False)

    def read_only(self):
        """The same, to look at: its arrays cannot be written to."""
        shown = copy.copy(self)
        vars(shown).update({name: read_only(getattr(self, name)) for name in self.parts})
        return shown

    def dense(self) -> np.ndarray:
        """The whole matrix."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.shape}, {self.nbytes / 1e6:.1f} MB"


class LowRank(Implicit):
    """W = left right, with left [in,rank] and right [rank,out], arrays or stored Weights: x W = (x
    left) right.

    `linear` is the one of the model's twin: its products are used for both factors.
    """

    parts = ("left", "right")

    def __init__(self, left, right, linear=numpy_ops.linear):
        self.left, self.right, self.linear = left, right, linear
        self.shape, self.dtype = (left.shape[0], right.shape[1]), left.dtype
        self.size, self.nbytes = left.size + right.size, left.nbytes + right.nbytes

    def dense(self) -> np.ndarray:
        return np.asarray(self.left) @ np.asarray(self.right)

    def astype(self, dtype, copy=True) -> LowRank:
        return LowRank(
            self.left.astype(dtype, copy=copy), self.right.astype(dtype, copy=copy), self.linear
        )

    def __rmatmul__(self, x):
        return self.linear(self.linear(x, self.left), self.right)


class Sparse(Implicit):
    """Compressed sparse rows, a row being one output: output n is the sum of values[j]
    x[indices[j]] for starts[n] <= j < starts[n + 1]. `product(values, indices, starts, x)` -> x W
    does the work for x [M,in].
    """

    parts = ("values", "indices", "starts")

    def __init__(self, values, indices, starts, n_inputs: int, product):
        self.values, self.indices, self.starts, self.product = values, indices, starts, product
        self.shape, self.dtype, self.size = (n_inputs, len(starts) - 1), values.dtype, values.size
        self.nbytes = values.nbytes + indices.nbytes + starts.nbytes
        # kernels look at no bounds: whatever they read is looked at here, once
        if (
            values.shape != indices.shape
            or not (len(starts) and starts[0] == 0 and starts[-1] == len(values))
            or (starts[1:] < starts[:-1]).any()
            or (indices.size and not 0 <= indices.min() <= indices.max() < n_inputs)
        ):
            raise ValueError(
                f"{len(values)} values, {len(indices)} indices and starts up to {starts[-1:]}"
                f" are no sparse matrix of {n_inputs} inputs"
            )

    @classmethod
    def from_matrix(cls, matrix: np.ndarray, product=None) -> Sparse:
        """Keep what is not zero of a matrix [in,out]."""
        outputs, inputs = np.nonzero(matrix.T)
        starts = np.searchsorted(outputs, np.arange(matrix.shape[1] + 1)).astype(np.int64)
        index = np.uint16 if matrix.shape[0] <= 1 << 16 else np.uint32
        return cls(
            matrix.T[outputs, inputs],
            inputs.astype(index),
            starts,
            matrix.shape[0],
            product or cls.numpy_product,
        )

    def dense(self) -> np.ndarray:
        matrix = np.zeros(self.shape, self.dtype)
        matrix[self.indices, np.repeat(np.arange(self.shape[1]), np.diff(self.starts))] = (
            self.values
        )
        return matrix

    def astype(self, dtype, copy=True) -> Sparse:
        return Sparse(
            self.values.astype(dtype, copy=copy),
            self.indices,
            self.starts,
            self.shape[0],
            self.product,
        )

    def __rmatmul__(self, x):
        if x.shape[-1] != self.shape[0]:
            raise ValueError(f"x has {x.shape[-1]} columns and the matrix {self.shape[0]} inputs")
        rows = self.product(self.values, self.indices, self.starts, x.reshape(-1, x.shape[-1]))
        return rows.reshape(*x.shape[:-1], -1)

    @staticmethod
    def numpy_product(values, indices, starts, x):
        """x [M,in] -> [M,out], one row at a time: what NumPy has for it."""
        y = np.zeros((len(x), len(starts) - 1), x.dtype)
        # reduceat would give an empty output its neighbour's number
        filled = np.flatnonzero(np.diff(starts))
        for row, out in zip(x, y):
            out[filled] = (
                np.add.reduceat(row[indices] * values, starts[filled]) if len(filled) else 0
            )
        return y
