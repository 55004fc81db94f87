"""Sharing work out between threads: kernels that let go of the GIL, in a pool of ordinary Python threads.

Numba's own parallel regions are not used: each takes a second to compile, their cheap launch depends on the threading
layer (1.7 us with OpenMP, 116 us with workqueue), and workqueue ends the process when two threads enter at once. A pool
costs some 30 us a launch, which prefill does not notice; a decode step launches once and then keeps time with `meet`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_pool: tuple[int, int, ThreadPoolExecutor] | None = None  # (process, workers, pool)
_one_at_a_time = threading.Lock()


def n_threads() -> int:
    """How many threads kernels use: set_threads, else NUMBA_NUM_THREADS, else OMP_NUM_THREADS, else one a core."""
    return _limit if _limit is not None else numba.config.NUMBA_NUM_THREADS


def set_threads(n: int | None) -> None:
    """Use n threads, or with None as many as the environment says."""
    global _limit
    _limit = None if n is None else max(1, int(n))


def _from_environment() -> int | None:
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(value) if "NUMBA_NUM_THREADS" not in os.environ and value.isdigit() and int(value) > 0 else None


_limit = _from_environment()


def pool(workers: int) -> ThreadPoolExecutor:
    """The pool of this process, with at least this many threads; made anew after a fork, which copies no threads."""
    global _pool
    if _pool is None or _pool[0] != os.getpid() or _pool[1] < workers:
        _pool = (os.getpid(), workers, ThreadPoolExecutor(workers, thread_name_prefix="minillm"))
    return _pool[2]


def shares(n: int, parts: int, unit: int = 1) -> list[slice]:
    """Cut range(n) into at most `parts` slices of almost equal length, at multiples of `unit`: shares(5, 2) -> 0:3, 3:5."""
    length = -(-n // (parts * unit)) * unit  # rounded up
    return [slice(start, min(start + length, n)) for start in range(0, n, max(length, 1))]


def in_parallel(work, n: int, *, unit: int = 1, cost: float = np.inf) -> None:
    """Call work(share) for slices that cover range(n), on all threads; whoever is free takes the next.

    cost: about how many multiplications it all takes. What one thread does in the time of a launch stays on one, and
    long work is cut finer, so that nobody waits long for a thread that the system has put aside.
    """
    workers = n_threads() if cost > 300_000 else 1
    waiting = deque(shares(n, workers if cost < 10_000_000 else 4 * workers, unit))

    def take_turns():
        while waiting:
            try:
                part = waiting.popleft()
            except IndexError:  # someone else was quicker
                return
            work(part)

    futures = [pool(workers - 1).submit(take_turns) for _ in range(min(workers, len(waiting)) - 1)]
    try:
        take_turns()
    finally:
        waiting.clear()
        for future in futures:
            future.result()


# ---- keeping time inside a kernel

ARRIVED, ROUND, ABANDONED = 0, 16, 32  # places in `state`, a cache line apart


def together(work, n: int, state: np.ndarray) -> None:
    """Call work(i) for i < n, all at the same time, so that they may `meet(state, n)`. state: int64 [48], zeros.

    One such group at a time, since half of one and half of another would wait for each other for ever.
    """
    with _one_at_a_time:
        state[:] = 0
        futures = []
        try:
            futures += [pool(n - 1).submit(work, i) for i in range(1, n)]
            work(0)
        except BaseException:  # Ctrl-C between the lines above: nobody must be left waiting
            state[ABANDONED] = 1
            raise
        finally:
            for future in futures:
                future.result()


@intrinsic
def atomic_add(typing_context, array, index, value):
    """array[index] += value as one indivisible act; returns the value before. array: int64 [n]."""

    def build(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        amount = context.cast(builder, values[2], signature.args[2], types.int64)
        return builder.atomic_rmw("add", builder.gep(data, [values[1]]), amount, "seq_cst")

    return types.int64(array, types.intp, value), build


@intrinsic
def atomic_load(typing_context, array, index):
    """array[index], read anew each time and before all that follows: unlike adding 0 it leaves the others their copy."""

    def build(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.load_atomic(builder.gep(data, [values[1]]), "acquire", align=8)

    return types.int64(array, types.intp), build


@intrinsic
def breathe(typing_context, long):
    """Let others run: a short pause, or after long waiting the rest of this thread's time slice."""

    def build(context, builder, signature, values):
        if os.name == "posix":
            with builder.if_then(values[0], likely=False):
                kind = ir.FunctionType(ir.IntType(32), [])
                builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.none(types.boolean), build


@numba.njit(nogil=True)
def meet(state, n):
    """Wait until n threads have come here: the last one opens the door for all."""
    if n == 1:
        return
    this_round = atomic_load(state, ROUND)
    if atomic_add(state, ARRIVED, 1) == n - 1:
        state[ARRIVED] = 0
        atomic_add(state, ROUND, 1)
        return
    waited = 0
    while atomic_load(state, ROUND) == this_round and atomic_load(state, ABANDONED) == 0:
        waited += 1
        breathe(waited > 4000)


if numba.config.DISABLE_JIT:
    # Python threads would have to take turns at every line; one after another needs no meeting. See DecodeStep.
    def meet(state, n):
        """Nothing to wait for with one thread, which is all there is without compiled kernels."""

    def n_threads() -> int:
        """One: without compiled kernels every line needs the GIL."""
        return 1
