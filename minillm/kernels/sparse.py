"""The product with a pruned matrix: only what is not zero is read and multiplied."""

from __future__ import annotations

import numpy as np

from .compile import jit
from .threads import in_parallel


@jit
def csr_matvec(values, indices, starts, x, y):
    """y[n] = sum of values[j] x[indices[j]] for starts[n] <= j < starts[n+1]; one row, bound by
    gathering x."""
    for n in range(y.shape[0]):
        v, k = values[starts[n] : starts[n + 1]], indices[starts[n] : starts[n + 1]]
        total = x.dtype.type(0)
        for j in range(v.shape[0]):
            total += v[j] * x[k[j]]
        y[n] = total


@jit
def csr_columns(values, indices, starts, x, y):
    """The same for M rows at once, x [in,M] and y [out,M] transposed: each weight meets M
    neighbouring numbers."""
    for n in range(y.shape[0]):
        y[n] = 0
        for j in range(starts[n], starts[n + 1]):
            v, row = values[j], x[indices[j]]
            for m in range(row.shape[0]):
                y[n, m] += v * row[m]


def csr_matmul(values, indices, starts, x):
    """x [M,in] times a sparse matrix [in,out] in compressed rows of outputs -> [M,out]. See
    weights.Sparse."""
    M, N = len(x), len(starts) - 1
    y = np.empty(N if M == 1 else (N, M), x.dtype)
    kernel, x = (
        (csr_matvec, np.ascontiguousarray(x[0]))
        if M == 1
        else (csr_columns, np.ascontiguousarray(x.T))
    )

    def work(part):
        kernel(values, indices, starts[part.start : part.stop + 1], x, y[part])

    in_parallel(work, N, cost=4 * M * len(values))
    return y.reshape(1, N) if M == 1 else y.T
