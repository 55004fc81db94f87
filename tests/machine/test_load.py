"""How busy the machine is with others' work, by counters that are made up."""

import os
import subprocess
import sys
from time import perf_counter, sleep

import pytest

from minillm.machine import load


@pytest.fixture
def counters(tmp_path, monkeypatch):
    """write(busy, idle) sets the system's counters, in seconds of all processors."""
    monkeypatch.setattr(load, "STAT", str(tmp_path / "stat"))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    own = [0.0]
    monkeypatch.setattr(os, "times", lambda: (own[0], 0.0, 0.0, 0.0, 0.0))
    tick = os.sysconf("SC_CLK_TCK")

    def write(busy, idle, ours=0.0):
        own[0] = ours
        words = [busy * tick, 0, 0, idle * tick, 0, 0, 0, 0, 7, 7]
        (tmp_path / "stat").write_text("cpu  " + " ".join(str(round(w)) for w in words) + "\n")

    return write


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows counts otherwise")
def test_others_are_what_is_busy_and_not_ours(counters):
    counters(100, 100)
    others = load.Load()
    assert others.share() is None  # no time has passed
    counters(103, 101, ours=2)
    assert others.share() == pytest.approx(1 / 4)
    counters(103, 101, ours=9)  # counted in steps: ours may seem more than all
    assert others.share() == 0


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows counts otherwise")
def test_what_was_measured_beside_others_is_in_doubt(counters, caplog):
    for others, said in ((0.1, 0), (1.0, 1)):
        counters(100, 100)
        with load.undisturbed("it was measured"):
            counters(101 + others, 102 - others, ours=1)
        assert caplog.text.count("% of the processors while it was measured") == said
    assert "others took 33 %" in caplog.text


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows counts otherwise")
def test_what_happens_while_it_rests_does_not_count(counters):
    counters(100, 100)
    others = load.Load()
    counters(104, 104, ours=2)
    with others.resting():
        counters(204, 104, ours=3)
    counters(206, 106, ours=4)
    assert others.share() == pytest.approx((6 - 3) / 12)


@pytest.mark.skipif(not os.path.exists(load.STAT), reason="Linux counts so")
def test_a_process_that_we_started_is_ours_while_it_runs():
    *_, before = load._counted()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            end = perf_counter() + 30
            while load._counted()[2] < before + 0.3 and perf_counter() < end:
                sleep(0.05)
            assert load._counted()[2] >= before + 0.3 > sum(os.times()[:4])
        finally:
            child.kill()


def test_a_system_that_does_not_say(tmp_path, monkeypatch):
    for text in (None, "", "cpu 1 2", "cpu a b c d e f"):
        monkeypatch.setattr(load, "STAT", str(tmp_path / "stat"))
        if text is not None:
            (tmp_path / "stat").write_text(text)
        assert load.Load().share() is None
