"""What the machine can do at best: the simplest kernels that reach a limit, for minillm/clock to
measure."""

from __future__ import annotations

import numpy as np

from .checks import require
from .compile import jit
from .forms import flat_panels
from .matrices import MATVEC, inputs_of
from .meetings import meet
from .threads import Team, in_parallel, n_threads
from .vectors import fma, load, spread, store, zeros


@jit
def read(blocks, times, sums):
    """Add up all numbers of float32 blocks [n, 64 m], `times` over, into sums [16]: nothing but
    reading."""
    a = b = c = d = zeros()
    one = spread(np.float32(1))
    for _ in range(times):
        for i in range(blocks.shape[0]):
            x = blocks[i]
            for j in range(x.shape[0] // 64):
                a, b = fma(load(x, 64 * j), one, a), fma(load(x, 64 * j + 16), one, b)
                c, d = fma(load(x, 64 * j + 32), one, c), fma(load(x, 64 * j + 48), one, d)
    store(sums, 0, fma(fma(a, one, b), one, fma(c, one, d)))


@jit
def multiply_add(times, factor, sums):
    """`times` times twelve vectors of sums = sums * factor + factor, in registers: nothing but
    arithmetic. sums: [16].

    Twelve are enough that none waits for its last result: a processor begins one or two a cycle and
    needs four or five.
    """
    f = spread(factor)
    a = b = c = d = e = g = h = i = j = k = m = n = load(sums, 0)
    for _ in range(times):
        a, b, c, d, e, g = (
            fma(a, f, f),
            fma(b, f, f),
            fma(c, f, f),
            fma(d, f, f),
            fma(e, f, f),
            fma(g, f, f),
        )
        h, i, j, k, m, n = (
            fma(h, f, f),
            fma(i, f, f),
            fma(j, f, f),
            fma(k, f, f),
            fma(m, f, f),
            fma(n, f, f),
        )
    one = spread(np.float32(1))
    for v in (b, c, d, e, g, h, i, j, k, m, n):
        a = fma(v, one, a)
    store(sums, 0, a)


@jit
def meetings(state, n, times):
    """Meet `times` times."""
    for _ in range(times):
        meet(state, n)


def read_everything(array, times: int = 1) -> None:
    """Read an array [n, 64 m] `times` over with all threads, each its share."""
    in_parallel(lambda part: read(array[part], times, np.empty(16, np.float32)), len(array))


def multiply_and_add(times: int, threads: int) -> None:
    """Let each thread do `times` times 12 vectors of 16 fused multiply-adds: 384 FLOP."""
    in_parallel(
        lambda part: multiply_add(times, np.float32(0.5), np.zeros(16, np.float32)), threads
    )


def launch() -> None:
    """Begin work on every thread, and wait for it: no work at all."""
    in_parallel(lambda part: None, n_threads())


def meet_often(times: int) -> None:
    """Let all threads wait for each other `times` times."""
    team = Team(n_threads())
    team.run(lambda thread: meetings(team.state, team.n, times))


def row_product(weight, x, panels: int | None = None):
    """Return a function that multiplies one row x [K] by a stored weight [K,N], or by its first
    panels only, on this thread, and does nothing else."""
    require(x=(x, (weight.k,), np.float32))
    stored = flat_panels(weight, slice(panels))
    y = np.zeros(16 * len(stored[0]), np.float32)
    inputs = tuple(array[0] for array in inputs_of(x[None], weight.kind))
    kernel = MATVEC[weight.kind]
    return lambda: kernel(*stored, *inputs, y, y, 0)
