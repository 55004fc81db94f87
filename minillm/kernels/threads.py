"""Sharing work out between threads: kernels that let go of the GIL, in a pool of ordinary Python
threads.

Numba's own parallel regions are not used: each takes a second to compile, their cheap launch
depends on the threading layer (1.7 us with OpenMP, 116 us with workqueue), and workqueue ends the
process when two threads enter at once. A launch from a pool costs 30 us, and up to 200 where the
caches are full of weights: prefill does not notice. A decode step keeps time with `meet` inside
(0.1 to 0.4 us), and its threads stay awake for the next token (Team).

Beside busy neighbours the system puts a thread aside in the middle of its work, for milliseconds.
In a pool another one then takes the next share, but somebody waits for the last; at a meeting all
wait, and two threads are slower than one. So they tell how long they waited, and after long waits
fewer threads work for a while (`threads_now`), which changes no number.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

import numpy as np

from .machine_code import COMPILED, now, swap

_pool: tuple[int, ThreadPoolExecutor] | None = None  # (workers, pool)
_team: Team | None = None  # whose threads may still be waiting in the pool
_one_at_a_time = threading.Lock()


def _forget() -> None:
    """Start anew in the child of a fork, which copies no threads."""
    global _pool, _team, _one_at_a_time
    _pool, _team, _one_at_a_time = None, None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def n_threads() -> int:
    """How many threads kernels use: set_threads, else NUMBA_NUM_THREADS, else OMP_NUM_THREADS, else
    one a core. One where kernels are not compiled: then every line needs the GIL."""
    return _limit if COMPILED else 1


def set_threads(n: int | None) -> None:
    """Use n threads, or with None as many as the environment says."""
    global _limit
    _limit = _from_environment() if n is None else max(1, int(n))


def _from_environment() -> int:
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").split(",")[0]
        if value.isdecimal() and int(value) > 0:
            return int(value)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return len(cores) or os.cpu_count() or 1


_limit = _from_environment()

# What threads lose by waiting, less a third of their time, which is about what they gain, adds up
# to a debt, in ns. Above PATIENCE, fewer threads work for as many times as long as the debt: few
# times at first, since most disturbances pass, and twice as many whenever the debt is back after
# less than SOON ns of work (a pause tells nothing of the neighbours), up to MOST_REST, and LONGEST
# in all: beside neighbours that stay, trying again costs a few hundredths of the time.
PATIENCE, SOON, FIRST_REST, MOST_REST, LONGEST = 5_000_000, 200_000_000, 8, 64, 2_000_000_000
LAUNCH = 200_000  # ns that a thread of the pool may take to wake: no loss
_debt, _rest, _worked = 0.0, FIRST_REST, float(SOON)  # _worked: since the last rest
_ticks = 0.0  # of a ns, once a team has run
_useful, _until = 1, 0  # how many threads are of use until when (perf_counter_ns)


def threads_now() -> int:
    """How many of the n_threads() are of use at this moment: fewer where much time was lost by
    waiting for a thread that the system had put aside."""
    resting = time.perf_counter_ns() < _until
    return min(n_threads(), _useful) if resting else n_threads()


def judge(threads: int, took: float, lost: float) -> None:
    """Take account of threads' work that took so many ns, `lost` of them waiting."""
    global _debt, _rest, _worked, _useful, _until
    _debt, _worked = max(_debt + lost - took / 3, 0.0), _worked + took
    if _debt > PATIENCE:
        _rest = min(2 * _rest, MOST_REST) if _worked < SOON else FIRST_REST
        ns = min(_rest * int(_debt), LONGEST)
        _useful, _until = max(threads // 2, 1), time.perf_counter_ns() + ns
        _debt = _worked = 0.0


def pool(workers: int) -> ThreadPoolExecutor:
    """The pool of this process, with at least this many threads."""
    global _pool
    if _pool is None or _pool[0] < workers:
        _pool = (workers, ThreadPoolExecutor(workers, thread_name_prefix="minillm"))
    return _pool[1]


LOADAVG = "/proc/loadavg"  # Linux: of all its numbers, the fourth is running/all threads
try:
    _processor = ctypes.CDLL(None).sched_getcpu if hasattr(os, "sched_setaffinity") else None
except (AttributeError, OSError, TypeError):  # no Linux
    _processor = None


def here() -> int:
    """The number of the processor that this thread runs on; -1 where the system does not say."""
    return -1 if _processor is None else _processor()


def apart(processor: int, i: int) -> None:
    """Go to another processor than this one, where the i-th thread was woken by who runs there, if
    one is idle.

    The system often begins a thread where the one runs that woke it, and takes milliseconds to see
    that another processor is idle; at every meeting one of the two would wait for its turn.
    """
    if here() == processor >= 0 and one_is_idle():
        free = sorted(allowed := os.sched_getaffinity(0))
        with contextlib.suppress(ValueError, OSError):  # the system allows others meanwhile
            os.sched_setaffinity(0, {free[(free.index(processor) + i) % len(free)]})
            os.sched_setaffinity(0, allowed)


def one_is_idle() -> bool:
    """Whether no more threads run on this machine than it has processors."""
    try:
        with open(LOADAVG, "rb") as file:
            running = int(file.read().split()[3].partition(b"/")[0])
    except (OSError, IndexError, ValueError):
        return False
    return running <= (os.cpu_count() or 1)


def shares(n: int, parts: int, unit: int = 1) -> list[slice]:
    """Cut range(n) into at most `parts` slices at multiples of `unit`, as equal as these allow:
    shares(5, 2) -> 0:3, 3:5."""
    units = -(-n // unit)
    parts = min(parts, units)
    cuts = [min(unit * -(-units * i // parts), n) for i in range(parts + 1)] if n else []
    return [slice(*cut) for cut in pairwise(cuts)]


def in_parallel(
    work, n: int, *, unit: int = 1, cost: float = np.inf, each: int | None = None
) -> None:
    """Call work(share) for slices that cover range(n), on all threads; whoever is free takes the
    next.

    cost: about how many multiplications it all takes. What one thread does in the time of a launch
    stays on one, and long work is cut finer, so that nobody waits long for a thread that the system
    has put aside; each: into so many shares for each thread.
    """
    if cost <= 300_000:
        for part in shares(n, 1, unit):
            work(part)
        return
    workers, each = n_threads(), each or (1 if cost < 10_000_000 else 4)
    waiting, processor = deque(shares(n, each * workers, unit)), here()

    def take_turns():
        while waiting:
            try:
                part = waiting.popleft()
            except IndexError:  # someone else was quicker
                return
            work(part)

    def take_turns_apart(i):
        apart(processor, i)
        take_turns()

    if workers > 1 and _team:
        _team.dismiss()
    others, start = min(threads_now(), len(waiting)) - 1, time.perf_counter_ns()
    futures = [pool(workers - 1).submit(take_turns_apart, i) for i in range(1, others + 1)]
    try:
        take_turns()
        done = time.perf_counter_ns()
    finally:
        waiting.clear()
        for future in futures:
            if not future.cancel():  # who has not begun has nothing left to do
                future.result()
        work = None  # what was cancelled waits in the queue, and must keep no arrays meanwhile
    if futures:
        end = time.perf_counter_ns()
        judge(others + 1, end - start, max(end - done - LAUNCH, 0))


# ---- keeping time inside a kernel

# Places in a team's `state`, a cache line apart, and how many numbers it has. LOST: ticks that its
# threads slept at meetings in one run; ENOUGH: of these, from where one of them had better go on
# alone; TIRED: the last round before which that was so.
STATE = 112
ARRIVED, ROUND, ABANDONED, CALLS, LOST, ENOUGH, TIRED = range(0, STATE, 16)
CLOSED = -1  # stands in CALLS when nobody waits for a call any more
# How often a thread looks at a place before it naps between the looks, and before it goes. 200,000
# looks are 0.1 to 0.3 ms: longer than a nap, or one thread's nap would be the cause of the other's.
LOOKS, STAY = 200_000, 500_000
NAP = 50  # us, and as much again until a thread is awake
SLICE = 2_000_000  # ns: who waits so long waits for a thread that the system has put aside


class Team:
    """n threads that run one kernel at the same time, and may `meet(state, n)` in it.

    Waking a thread of the pool takes 50 to 100 us, and a token of a small model 400. So all but the
    first thread may ask at the end whether they are `called_again`: then the next run of the same
    work needs no waking. One team at a time, since half of one and half of another would wait for
    each other for ever.
    """

    def __init__(self, n: int):
        self.n, self.state, self._others = n, np.zeros(STATE, np.int64), []
        self._calls_at = self.state[CALLS:].ctypes.data

    def run(self, work, again: bool = False) -> None:
        """Call work(i) for all i < n at the same time. again: it is that of the last time, and asks
        for `called_again`."""
        global _team, _ticks
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
                    and swap(self._calls_at, calls, calls + 1)
                ):
                    if _team:
                        _team.end()
                    self.state[:], self._others, _team = 0, [], self
                    self.state[ENOUGH] = SLICE * _ticks or 1 << 62
                    for i in range(1, self.n):
                        self._others.append(pool(self.n - 1).submit(self._other, work, i, here()))
                work(0)
            except BaseException:  # Ctrl-C between the lines above: nobody must be left waiting
                self.state[ABANDONED] = 1
                self.end()
                raise
            if self.state[ABANDONED]:
                for other in self._others:
                    other.result()  # raises what went wrong there
            took, slept = time.perf_counter_ns() - start, int(self.state[LOST])
            self.state[LOST], _ticks = 0, (now() - began) / took
            judge(self.n, took, slept / _ticks / (self.n - 1) if slept else 0.0)

    def _other(self, work, i: int, processor: int) -> None:
        try:
            apart(processor, i)
            work(i)
        except BaseException:
            self.state[ABANDONED] = 1
            raise

    def dismiss(self) -> None:
        """Let go who waits for a call; who still works goes afterwards."""
        swap(self._calls_at, int(self.state[CALLS]), CLOSED)

    def end(self) -> None:
        """Dismiss the others, and wait until they have gone."""
        self.dismiss()
        wait(self._others)
