"""Peers beside busy neighbours, which are processes and go with whoever started them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from time import perf_counter, sleep
from types import SimpleNamespace

import pytest

from minillm import InputError
from minillm.bench import busy, trainers
from minillm.bench.peers import clocks, spent
from minillm.cli import main
from minillm.machine import load
from tests.bench.conftest import run_module
from tests.bench.workers import CONFIG, ENDED, Steady


def test_beside_busy_neighbours_everybody_is_measured_in_turn(
    compare, in_threads, monkeypatch, capsys
):
    monkeypatch.setattr(busy, "TURN", 0)
    names = ["minillm-steady", "engine-absent"]
    results = busy.run(compare.folder, names, 1, n_prompt=2, n_new=6, rounds=2, threads=3)
    assert [(r.busy, r.threads, r.name) for r in results] == [
        (n, t, name) for n in (0, 1) for t in (1, 3) for name in names
    ]
    for result in results:
        if result.name == "engine-absent":
            assert (
                result.missing
                == "no_such_library is not installed: python -m pip install no_such_library"
            )
        else:
            assert [*result.rates] == [*result.per_cpu] == ["decode", "prefill"]
            for kind, most in (("decode", 250), ("prefill", 500)):
                rates, per_cpu = result.rates[kind], result.per_cpu[kind]
                assert len(rates) == len(per_cpu) == 2
                assert 0 < max(rates) < most < min(per_cpu)  # who sleeps needs no processor
    sizes = ["--prompt", "2", "--new", "3", "--rounds", "1", "--threads", "1"]
    args = ["bench", "--model", str(compare.folder), *sizes, "--busy"]
    assert main([*args, "1", "--peers", "engine-other,engine-dying"]) == 0
    out = capsys.readouterr().out
    assert out.count(f"\nengine-dying: missing (failed: {ENDED.format(7)})") == 1
    lines = out.splitlines()
    for start, title in ((0, "decode of 3 tokens after a prompt of 2"), (6, "prefill of 2 tokens")):
        assert lines[start] == f"{title}, beside busy processes"
        rows = [line.split()[:3] for line in lines[start + 3 : start + 5]]
        assert rows == [[n, "engine-other", "1"] for n in "01"]
    assert main([*args, "0"]) == 2 and "--busy is 0; it must be" in capsys.readouterr().err
    with pytest.raises(InputError, match="no peer could be measured: engine-absent: no_such"):
        busy.run(compare.folder, "engine-absent", 1, 2, 2, 1, threads=1)


@pytest.mark.parametrize(("disturbed", "said"), [(0, True), (1, False)])
def test_others_count_where_there_are_no_neighbours(
    compare, in_threads, monkeypatch, caplog, disturbed, said
):
    counted = [0.0, 0.0, 0.0]  # seconds: all, the busy ones, ours

    @contextmanager
    def neighbours(n):
        counted[0] += 10
        counted[1] += 9 if n == disturbed else 0
        yield []

    monkeypatch.setattr(busy, "TURN", 0)
    monkeypatch.setattr(busy, "neighbours", neighbours)
    monkeypatch.setattr(load, "_counted", lambda: tuple(counted))
    busy.run(compare.folder, "engine-other", 1, n_prompt=2, n_new=3, rounds=1, threads=1)
    warning = "others took 90 % of the processors while what has no busy neighbours was measured"
    assert (warning in caplog.text) == said


def test_a_turn_lasts_until_slices_even_out(monkeypatch):
    """Asked again within half a second, what all answers say counts together."""
    ticks = iter((0.0, 0.3, 0.6))
    monkeypatch.setattr(run_module, "perf_counter", lambda: next(ticks))
    answers = iter({"decode_s": n, "decode_cpu_s": 2 * n} for n in (1, 3, 5))
    worker = SimpleNamespace(answer=lambda request: next(answers))
    result = busy.BusyResult("engine", 1, 0, {"decode": []}, {"decode": []})
    busy._measure(result, worker, {}, {"decode": 8}, keep=True)
    assert (result.rates, result.per_cpu) == ({"decode": [4]}, {"decode": [2]})
    monkeypatch.setattr(run_module, "perf_counter", perf_counter)
    worker.answer = lambda request: {"decode_s": 1}  # as an older minillm
    monkeypatch.setattr(busy, "TURN", 0)
    busy._measure(result, worker, {}, {"decode": 8}, keep=True)
    assert result.missing == "does not say its processor time of decode"


class Trainer(Steady):
    """Takes 5 ms."""

    def measure(self, rows):
        start = clocks()
        sleep(0.005)
        return spent("training", start, clocks()) | {"loss": float(len(rows))}


def test_training_beside_busy_neighbours(in_threads, monkeypatch, capsys):
    monkeypatch.setattr(busy, "TURN", 0)
    monkeypatch.setitem(trainers.SHAPES, "small", (CONFIG, (3, 4)))
    monkeypatch.setitem(trainers.TRAINERS, "trainer", Trainer)
    args = ["bench", "--train", "small", "--busy", "1", "--peers", "trainer", "--rounds", "2"]
    assert main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    title = "training step (forward, backward, AdamW) of small, batch 3 x 4"
    assert lines[0] == f"{title}, beside busy processes"
    rows = [line.split()[:3] for line in lines[3:7]]
    assert rows == [[n, "trainer", t] for n in "01" for t in "12"]
    assert main([*args, "--json"]) == 0
    for result in json.loads(capsys.readouterr().out):
        (rates,) = result["rates"].values()
        assert len(rates) == 2 and 0 < max(rates) < trainers.STEPS * 3 * 4 / 0.005
    assert main([*args, "--model", "tales"]) == 2
    assert "--train takes no --model" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"peer 'llama.cpp' does not train"):
        busy.train("small", "llama.cpp", 1)


def test_neighbours_go_whatever_happens(compare):
    with pytest.raises(KeyboardInterrupt), busy.neighbours(2) as loops:
        assert all(loop.poll() is None for loop in loops)
        raise KeyboardInterrupt
    assert all(loop.poll() is not None for loop in loops)
    program = (
        "import os; from minillm.bench.busy import neighbours\n"
        "with neighbours(1) as (loop,): print(loop.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    if os.name == "posix":
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        with pytest.raises(ProcessLookupError):
            for _ in range(200):
                os.kill(int(done.stdout), 0)
                sleep(0.05)
