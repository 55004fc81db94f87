"""The matmul ladder: y = x W from three plain loops to the speed of BLAS. x: float32 [M,K]; W:
float32 [K,N] -> [M,N].

Shares of OpenBLAS on one thread at M, K, N = 512, 768, 768, on an AMD Zen 4 with AVX-512, where
OpenBLAS itself reaches 0.88 of what multiply-adds can come to: `minillm bench --ladders`.
"""

from __future__ import annotations

import numpy as np

from ..checks import require
from ..compile import EXACT, jit
from ..products import float_matmul
from ..threads import in_parallel

TILE_K, TILE_N = 32, 768  # a tile of W is 96 KiB: well inside a second-level cache


def operands(x, w):
    """Both as contiguous float32, once they fit."""
    (M, K), (_, N) = np.shape(x), np.shape(w)
    require(x=(x, (M, K)), w=(w, (K, N)))
    return np.ascontiguousarray(x, np.float32), np.ascontiguousarray(w, np.float32)


def kernel_on_copies(kernel, x, w):
    """Call kernel(x, w, y) on contiguous float32 arrays and a new y."""
    x, w = operands(x, w)
    y = np.zeros((x.shape[0], w.shape[1]), np.float32)
    kernel(x, w, y)
    return y


@jit(fastmath=EXACT)
def naive_loops(x, w, y):
    for m in range(x.shape[0]):
        for n in range(w.shape[1]):
            for k in range(x.shape[1]):
                y[m, n] += x[m, k] * w[k, n]


@jit(fastmath=EXACT)
def reordered_loops(x, w, y):
    for m in range(x.shape[0]):
        row = y[m]
        for k in range(x.shape[1]):
            factor, weights = x[m, k], w[k]
            for n in range(w.shape[1]):
                row[n] += factor * weights[n]


@jit(fastmath=EXACT)
def tiled_loops(x, w, y):
    for k0 in range(0, x.shape[1], TILE_K):
        for n0 in range(0, w.shape[1], TILE_N):
            for m in range(x.shape[0]):
                row, part = y[m, n0 : n0 + TILE_N], x[m, k0 : k0 + TILE_K]
                for k in range(part.shape[0]):
                    factor, weights = part[k], w[k0 + k, n0 : n0 + TILE_N]
                    for n in range(row.shape[0]):
                        row[n] += factor * weights[n]


def in_panels(w):
    """[K,N] -> [N / 16, 16 K]: sixteen columns of W side by side, filled up with zeros."""
    K, N = w.shape
    padded = np.pad(w, ((0, 0), (0, -N % 16)))
    return np.ascontiguousarray(padded.reshape(K, -1, 16).swapaxes(0, 1)).reshape(-1, 16 * K)


def naive(x, w):
    """The definition: y[m,n] = sum over k of x[m,k] W[k,n], one product at a time.

    Every step of the inner loop jumps a whole row of W ahead, so that of 64 bytes fetched from
    memory 4 are used, and each sum waits for the one before. 0.02 of OpenBLAS.
    """
    return kernel_on_copies(naive_loops, x, w)


def reordered(x, w):
    """The same products with the loops over k and n exchanged. The idea: walk along memory.

    The inner loop goes along a row of W and a row of y, LLVM makes vectors of it, and no sum waits
    for another. But every product loads and stores its y. 0.34 of OpenBLAS.
    """
    return kernel_on_copies(reordered_loops, x, w)


def tiled(x, w):
    """A tile of W at a time, used for all rows of x. The idea: what has been fetched is used while
    it is near.

    Where W fits into the caches anyway it buys nothing (0.31 of OpenBLAS: y still goes back and
    forth); with W of 3072 x 3072, which does not fit, it is 3.4 times as fast as the last rung.
    """
    return kernel_on_copies(tiled_loops, x, w)


def register_blocked(x, w):
    """Eight rows of x by 16 columns of W, their 128 sums in registers. The idea: load little for
    each product.

    For each k one vector of W and eight numbers of x serve eight vector products, and y is written
    once. W is packed first into panels of 16 columns, in which the inner loop reads on and on; a
    model's weights are kept like that. 0.98 of OpenBLAS with the packing, 1.05 without it: that is
    `linear` with a stored weight.
    """
    return _by_panels(x, w, lambda work, panels: work(slice(0, panels)))


def parallel(x, w):
    """The last rung on every thread, each with its share of the columns. The idea: nothing is
    shared but what is read.

    Two threads take half the time of one; that of a launch, some 40 us, is what a product must be
    worth.
    """
    return _by_panels(
        x, w, lambda work, panels: in_parallel(work, panels, cost=x.size * w.shape[1])
    )


def _by_panels(x, w, for_all):
    """float_matmul on panels of W; for_all(work, n) calls work on slices that cover range(n)."""
    x, w = operands(x, w)
    panels = in_panels(w)
    y = np.empty((x.shape[0], 16 * len(panels)), np.float32)
    nothing = np.zeros(16 * len(panels), np.float32)
    for_all(lambda part: float_matmul(panels[part], x, nothing, y, 16 * part.start), len(panels))
    return y[:, : w.shape[1]]


MATMUL = {rung.__name__: rung for rung in (naive, reordered, tiled, register_blocked, parallel)}
