"""Sharing out: every item exactly once, errors handed on, no waiting for ever."""

import os
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event, get_ident
from time import process_time, sleep

import numpy as np
import pytest

pytest.importorskip("numba")

from minillm import kernels, ops
from minillm.kernels import meetings, threads
from minillm.kernels.compile import jit


@pytest.fixture(params=[1, 2, 5])
def some_threads(request):
    threads.set_threads(request.param)
    yield request.param
    threads.set_threads(None)


@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 1000])
@pytest.mark.parametrize("unit", [1, 16])
def test_every_item_once(some_threads, n, unit):
    counts = np.zeros(n, int)
    parts = []

    def work(part):
        counts[part] += 1
        parts.append(part)

    threads.in_parallel(work, n, unit=unit)
    assert (
        (counts == 1).all()
        and len(parts) <= 4 * some_threads
        and all(part.start % unit == 0 for part in parts)
    )


def test_shares_are_as_equal_as_their_unit_allows():
    assert threads.shares(5, 2) == [slice(0, 3), slice(3, 5)]
    lengths = [part.stop - part.start for part in threads.shares(44, 8, 2)]
    assert sum(lengths) == 44 and set(lengths) == {4, 6}


def test_work_that_another_has_done_keeps_no_arrays():
    """Where a thread does not come to its turn, what was meant for it waits for it."""
    threads.set_threads(2)
    leave = Event()
    busy = threads.pool(1).submit(leave.wait)
    array = np.zeros(1000)
    seen, work = weakref.ref(array), array.__getitem__
    try:
        threads.in_parallel(work, 1000)
        del array, work
        assert not busy.done() and seen() is None
    finally:
        leave.set()
        threads.set_threads(None)


def test_errors_reach_the_caller(some_threads):
    def work(part):
        raise ArithmeticError(part.start)

    with pytest.raises(ArithmeticError):
        threads.in_parallel(work, 10)
    with pytest.raises(ArithmeticError):
        threads.Team(some_threads).run(lambda i: work(slice(i, i + 1)))


@pytest.mark.parametrize("failing", [0, 1])
def test_nobody_waits_for_one_who_has_failed(failing):
    team = threads.Team(2)

    def work(i):
        if i == failing:
            raise KeyboardInterrupt
        meet(team.state, 2)  # would wait for ever

    for _ in range(2):  # and the team is as good as new
        with pytest.raises(KeyboardInterrupt):
            team.run(work)


@jit
def count(thread, state, counts):
    """The least that a kernel can do which stays: count its runs, meet, and see whether there is
    another."""
    calls, again = 0, True
    while again:
        counts[thread] += 1
        meetings.meet(state, 2)
        again = thread > 0 and meetings.called_again(state, calls)
        calls += 1


meet = jit(lambda state, n: meetings.meet(state, n))


def test_a_team_stays_for_the_next_run_only_while_nobody_else_needs_it():
    team, other = threads.Team(2), threads.Team(2)
    counts, launches = np.zeros(2, np.int64), []

    def work(i):
        launches.append(i)
        count(i, team.state, counts)

    for n in range(1, 30):
        team.run(work, again=n > 1)
        assert counts.tolist() == [n, n]
    assert launches.count(0) == 29 and launches.count(1) < 29
    assert not wait(team._others, timeout=60).not_done  # of its own accord
    team.run(work, again=True)
    other.run(lambda i: count(i, other.state, counts))
    assert all(future.done() for future in team._others)  # sent home by the other
    team.run(work, again=True)
    assert counts.tolist() == [32, 32] and launches.count(1) >= 3


@pytest.fixture
def rested(monkeypatch):
    """Nothing of what teams lost before, and nothing is left of what they lose here."""
    for name, value in (("_debt", 0), ("_worked", threads.SOON), ("_useful", 1), ("_until", 0)):
        monkeypatch.setattr(threads, name, value)
    yield
    threads.set_threads(None)


def test_who_waits_long_sleeps_and_fewer_threads_work_for_a_while(rested):
    threads.set_threads(2)
    team = threads.Team(2)

    def work(i):
        if i == 1:
            sleep(0.3)
        meet(team.state, 2)

    meet(team.state, 1)  # compile
    used = process_time()
    team.run(work)
    assert process_time() - used < 0.1 and threads.threads_now() == 1
    threads._until = 0
    assert threads.threads_now() == 2 == threads.n_threads()


def test_who_waits_for_a_thread_of_the_pool_works_alone_for_a_while(rested):
    threads.set_threads(2)
    here, began, workers = get_ident(), Event(), set()

    def work(part):
        if get_ident() == here:
            assert began.wait(60)
        else:
            began.set()
            sleep(0.3)

    threads.in_parallel(work, 8)
    assert threads.threads_now() == 1
    threads.in_parallel(lambda part: workers.add(get_ident()), 8)
    assert workers == {here}


def test_rests_are_short_at_first_and_longer_where_the_neighbours_stay(rested, monkeypatch):
    threads.set_threads(2)
    at = 1_000_000_000_000
    monkeypatch.setattr(threads.time, "perf_counter_ns", lambda: at)

    def rest_of_6_ms_lost():
        threads.judge(2, took=9_000_000, lost=9_000_000)
        return (threads._until - at) / 6e6

    assert rest_of_6_ms_lost() == threads.FIRST_REST == 8
    for longer in (16, 32, 64, 64):
        at = threads._until + 10 * threads.SOON  # a pause, in which nobody saw the neighbours go
        threads.judge(2, took=threads.SOON // 2, lost=0)
        assert rest_of_6_ms_lost() == longer
    threads.judge(2, took=threads.SOON, lost=0)  # they have gone: what comes now is another one
    assert rest_of_6_ms_lost() == 8
    threads.judge(2, took=9e9, lost=9e9)
    assert threads._until == at + threads.LONGEST


def test_short_waits_keep_all_threads(rested):
    threads.set_threads(8)
    for _ in range(1000):  # a thread is woken late, and what follows makes up for it
        threads.judge(8, took=1_000_000, lost=900_000)
        threads.judge(8, took=2_000_000, lost=0)
    assert threads.threads_now() == 8
    for left in (4, 2, 1, 1):
        for _ in range(10):
            threads.judge(threads.threads_now(), took=10_000_000, lost=7_000_000)
            if threads.threads_now() == left:
                break
        assert threads.threads_now() == left


def test_many_python_threads_at_once(some_threads):
    x = np.random.default_rng(0).standard_normal((8, 400, 300)).astype(np.float32)
    with ThreadPoolExecutor(8) as pool:
        for y, row in zip(pool.map(kernels.softmax, x), x):
            assert np.abs(y - ops.softmax(row)).max() < 1e-6


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "3,2"}, 3),
        ({"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}, 1),
        ({"OMP_NUM_THREADS": "nonsense"}, None),
    ],
)
def test_the_environment_is_respected(environment, expected):
    clean = {
        k: v for k, v in os.environ.items() if k not in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")
    }
    program = (
        "from minillm.kernels import threads; import numba; print(threads.n_threads(),"
        " numba.config.NUMBA_DEFAULT_NUM_THREADS)"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
    )
    found, default = map(int, done.stdout.split())
    assert found == (expected or default)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_works_after_a_fork():
    program = """
import os, numpy as np
from minillm import kernels
x = np.zeros((4000, 300), np.float32)
kernels.softmax(x)
child = os.fork()
if child:
    os.waitpid(child, 0)
print(kernels.softmax(x).sum().round(), flush=True)
os._exit(0)
"""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["4000.0", "4000.0"], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_beside_a_thread_that_compiles_can_compile():
    """Numba's lock is not left taken in the child, which would wait for it for ever (or, here,
    until the alarm)."""
    program = """
import os, signal, threading, time
import numba
from numba.core.compiler_lock import global_compiler_lock
import minillm.kernels.compile
compiling = threading.Event()
def compile():
    with global_compiler_lock:
        compiling.set()
        time.sleep(0.5)
threading.Thread(target=compile).start()
compiling.wait()
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    signal.alarm(30)
print(numba.njit(lambda x: x + 1)(1), flush=True)
os._exit(0)
"""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["2", "2"], done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system says no processors")
@pytest.mark.parametrize(
    ("where", "running", "goes"), [(5, 2, True), (3, 2, False), (5, 99, False), (-1, 2, False)]
)
def test_a_thread_leaves_the_processor_of_who_woke_it_if_one_is_idle(
    monkeypatch, tmp_path, where, running, goes
):
    """And is then as free as before."""
    asked = []
    monkeypatch.setattr(threads, "here", lambda: where)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 9})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, allowed: asked.append(allowed))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    said = tmp_path / "loadavg"
    said.write_text(f"0.1 0.2 0.3 {running}/345 6789\n")
    monkeypatch.setattr(threads, "LOADAVG", str(said))
    threads.apart(5, 2)
    assert asked == ([{3}, {3, 5, 9}] if goes else [])
    monkeypatch.setattr(threads, "LOADAVG", str(tmp_path / "not there"))
    threads.apart(5, 2)
    said.write_text("nothing of the kind/345 as other systems may say\n")
    monkeypatch.setattr(threads, "LOADAVG", str(said))
    threads.apart(5, 2)
    assert len(asked) == 2 * goes
