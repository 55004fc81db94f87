"""Sharing work out between threads: kernels that let go of the GIL, in a pool of ordinary Python
threads.

Numba's own parallel regions are not used: each takes a second to compile, their cheap launch
depends on the threading layer (1.7 us with OpenMP, 116 us with workqueue), and workqueue ends the
process when two threads enter at once. A launch from a pool costs 30 us, and up to 200 where the
caches are full of weights: prefill does not notice. A decode step keeps time with `meet` inside
(0.1 to 0.4 us), and its threads stay awake for the next token (Team).

Beside busy neighbours the system puts a thread aside in the middle of its work, for milliseconds.
In a pool another one then takes the next share. At a meeting all wait, and two threads are slower
than one: so a team tells how long it waited, and after long waits fewer threads work for a while
(`threads_now`), which changes no number.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from .compile import helper, jit
from .memory import now, ticks

_pool: tuple[int, ThreadPoolExecutor] | None = None  # (workers, pool)
_team: Team | None = None  # whose threads may still be waiting in the pool
_one_at_a_time = threading.Lock()


def _forget() -> None:
    """Start anew in the child of a fork, which copies no threads."""
    global _pool, _team, _one_at_a_time
    _pool, _team, _one_at_a_time = None, None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
    # Who forks waits until nobody compiles: what is compiled half would stay so in the child, and
    # Numba's lock taken.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def n_threads() -> int:
    """How many threads kernels use: set_threads, else NUMBA_NUM_THREADS, else OMP_NUM_THREADS, else
    one a core."""
    return _limit if _limit is not None else numba.config.NUMBA_NUM_THREADS


def set_threads(n: int | None) -> None:
    """Use n threads, or with None as many as the environment says."""
    global _limit
    _limit = None if n is None else max(1, int(n))


def _from_environment() -> int | None:
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return (
        int(value)
        if "NUMBA_NUM_THREADS" not in os.environ and value.isdigit() and int(value) > 0
        else None
    )


_limit = _from_environment()

# What a team loses by waiting, less a third of its time, which is about what it gains, adds up to a
# debt, in ns. Above PATIENCE, fewer threads work for as many times as long as the debt: few times
# at first, since most disturbances pass, and twice as many whenever the debt is back within SOON
# ns, up to MOST_REST: beside neighbours that stay, trying again costs a few hundredths of the time.
PATIENCE, SOON, FIRST_REST, MOST_REST = 5_000_000, 200_000_000, 4, 64
_debt, _rest = 0.0, FIRST_REST
_useful, _until = 1, 0  # how many threads are of use until when (perf_counter_ns)


def threads_now() -> int:
    """How many of the n_threads() are of use in a team at this moment: fewer where teams have lost
    much time by waiting for a thread that the system had put aside."""
    resting = time.perf_counter_ns() < _until
    return min(n_threads(), _useful) if resting else n_threads()


def judge(threads: int, took: float, lost: float) -> None:
    """Take account of a team's work that took so many ns, `lost` of them waiting."""
    global _debt, _rest, _useful, _until
    _debt = max(_debt + lost - took / 3, 0.0)
    if _debt > PATIENCE:
        this = time.perf_counter_ns()
        _rest = min(2 * _rest, MOST_REST) if this < _until + SOON else FIRST_REST
        _useful, _until, _debt = max(threads // 2, 1), this + _rest * int(_debt), 0.0


def pool(workers: int) -> ThreadPoolExecutor:
    """The pool of this process, with at least this many threads."""
    global _pool
    if _pool is None or _pool[0] < workers:
        _pool = (workers, ThreadPoolExecutor(workers, thread_name_prefix="minillm"))
    return _pool[1]


def shares(n: int, parts: int, unit: int = 1) -> list[slice]:
    """Cut range(n) into at most `parts` slices of almost equal length, at multiples of `unit`:
    shares(5, 2) -> 0:3, 3:5."""
    length = -(-n // (parts * unit)) * unit  # rounded up
    return [slice(start, min(start + length, n)) for start in range(0, n, max(length, 1))]


def in_parallel(work, n: int, *, unit: int = 1, cost: float = np.inf) -> None:
    """Call work(share) for slices that cover range(n), on all threads; whoever is free takes the
    next.

    cost: about how many multiplications it all takes. What one thread does in the time of a launch
    stays on one, and long work is cut finer, so that nobody waits long for a thread that the system
    has put aside.
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

    if workers > 1 and _team:
        _team.dismiss()
    futures = [pool(workers - 1).submit(take_turns) for _ in range(min(workers, len(waiting)) - 1)]
    try:
        take_turns()
    finally:
        waiting.clear()
        for future in futures:
            if not future.cancel():  # who has not begun has nothing left to do
                future.result()


# ---- keeping time inside a kernel

# Places in a team's `state`, a cache line apart, and how many numbers it has; LOST: ticks that its
# threads slept at meetings.
STATE = 80
ARRIVED, ROUND, ABANDONED, CALLS, LOST = range(0, STATE, 16)
CLOSED = -1  # stands in CALLS when nobody waits for a call any more
# How often a thread looks at a place before it naps between the looks, and before it goes. 200,000
# looks are 0.1 to 0.3 ms: longer than a nap, or one thread's nap would be the cause of the other's.
LOOKS, STAY = 200_000, 500_000
NAP = 50  # us, and as much again until a thread is awake


class Team:
    """n threads that run one kernel at the same time, and may `meet(state, n)` in it.

    Waking a thread of the pool takes 50 to 100 us, and a token of a small model 400. So all but the
    first thread may ask at the end whether they are `called_again`: then the next run of the same
    work needs no waking. One team at a time, since half of one and half of another would wait for
    each other for ever.
    """

    def __init__(self, n: int):
        self.n, self.state, self._others = n, np.zeros(STATE, np.int64), []

    def run(self, work, again: bool = False) -> None:
        """Call work(i) for all i < n at the same time. again: it is that of the last time, and asks
        for `called_again`."""
        global _team
        if self.n == 1:
            return work(0)
        with _one_at_a_time:
            start, began = time.perf_counter_ns(), now()
            try:
                calls = int(self.state[CALLS])
                if not (
                    again
                    and _team is self
                    and calls != CLOSED
                    and swap(self.state, calls, calls + 1)
                ):
                    if _team:
                        _team.end()
                    self.state[:], self._others, _team = 0, [], self
                    for i in range(1, self.n):
                        self._others.append(pool(self.n - 1).submit(self._other, work, i))
                work(0)
            except BaseException:  # Ctrl-C between the lines above: nobody must be left waiting
                self.state[ABANDONED] = 1
                self.end()
                raise
            if self.state[ABANDONED]:
                for other in self._others:
                    other.result()  # raises what went wrong there
            lost = int(self.state[LOST])  # in ticks
            if lost or _debt:
                self.state[LOST], took = 0, time.perf_counter_ns() - start
                judge(self.n, took, lost * took / (now() - began) / (self.n - 1))

    def _other(self, work, i: int) -> None:
        try:
            work(i)
        except BaseException:
            self.state[ABANDONED] = 1
            raise

    def dismiss(self) -> None:
        """Let go who waits for a call; who still works goes afterwards."""
        swap(self.state, int(self.state[CALLS]), CLOSED)

    def end(self) -> None:
        """Dismiss the others, and wait until they have gone."""
        self.dismiss()
        wait(self._others)


@intrinsic
def atomic_add(typing_context, array, index, value):
    """array[index] += value as one indivisible act; returns the value before. array: int64 [n]."""

    def build(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        amount = context.cast(builder, values[2], signature.args[2], types.int64)
        return builder.atomic_rmw("add", builder.gep(data, [values[1]]), amount, "seq_cst")

    return types.int64(array, types.intp, value), build


@intrinsic
def atomic_swap(typing_context, array, index, expected, value):
    """array[index] = value if it is `expected`, as one indivisible act; returns whether it was."""

    def build(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        old = builder.cmpxchg(builder.gep(data, [values[1]]), *values[2:], "seq_cst")
        return builder.extract_value(old, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), build


@intrinsic
def atomic_load(typing_context, array, index):
    """array[index], read anew each time and before all that follows: unlike adding 0 it leaves the
    others their copy."""

    def build(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.load_atomic(builder.gep(data, [values[1]]), "acquire", align=8)

    return types.int64(array, types.intp), build


@intrinsic
def nap(typing_context):
    """Sleep for NAP, or for a little longer."""

    def build(context, builder, signature, values):
        name, length = ("usleep", NAP) if os.name == "posix" else ("Sleep", 1)  # Sleep: in ms
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32)])
        builder.call(
            cgutils.get_or_insert_function(builder.module, kind, name), [kind.args[0](length)]
        )
        return context.get_dummy_value()

    return types.none(), build


@jit
def swap(state, calls, value):
    """Put `value` in the place of the number of calls, unless that has changed; returns whether it
    was done."""
    return atomic_swap(state, CALLS, calls, value)


@helper
def called_again(state, calls):
    """Wait for another call than the `calls` so far; False when none comes for a while."""
    looks = 0
    while atomic_load(state, CALLS) == calls:
        looks += 1
        if looks > STAY:
            atomic_swap(state, CALLS, calls, CLOSED)
    return atomic_load(state, CALLS) != CLOSED


@helper
def meet(state, n):
    """Wait until n threads have come here: the last one opens the door for all."""
    if n == 1:
        return
    this_round = atomic_load(state, ROUND)
    if atomic_add(state, ARRIVED, 1) == n - 1:
        state[ARRIVED] = 0
        atomic_add(state, ROUND, 1)
        return
    looks, began = 0, 0
    while atomic_load(state, ROUND) == this_round and atomic_load(state, ABANDONED) == 0:
        looks += 1
        if looks == LOOKS:
            began = ticks()
        if looks >= LOOKS:
            nap()
    if looks >= LOOKS:
        atomic_add(state, LOST, ticks() - began)


if numba.config.DISABLE_JIT:
    # Python threads would have to take turns at every line; one after another needs no meeting. See
    # DecodeStep.
    def meet(state, n):
        """Nothing to wait for with one thread, which is all there is without compiled kernels."""

    def atomic_add(array, index, value):
        """The same: nobody comes between."""
        array[index] += value
        return array[index] - value

    def n_threads() -> int:
        """One: without compiled kernels every line needs the GIL."""
        return 1
