"""A hub's limits are read from both versions of Linux's control groups, and hold for threads and
for students' code."""

import subprocess
import sys

import pytest

import minillm
from minillm import InputError
from minillm.exercises.checking import inside
from minillm.machine import quota
from minillm.twins import threads

NONE = str((1 << 63) - 4096)
CASES = {
    "version 2": (
        "0::/hub/anna\n",
        {"hub/anna/cpu.max": "150000 100000", "hub/anna/memory.max": "1073741824"},
        2,
        1 << 30,
    ),
    "of an outer group": (
        "0::/hub/anna\n",
        {"hub/anna/cpu.max": "max 100000", "hub/cpu.max": "50000 100000"},
        1,
        None,
    ),
    "a container's own": ("0::/\n", {"cpu.max": "400000 100000", "memory.max": "max"}, 4, None),
    "version 1": (
        "5:memory:/hub\n4:cpu,cpuacct:/hub\n1:name=systemd:/\n",
        {
            "cpu/hub/cpu.cfs_quota_us": "50000",
            "cpu/hub/cpu.cfs_period_us": "100000",
            "memory/hub/memory.limit_in_bytes": "536870912",
        },
        1,
        1 << 29,
    ),
    "version 1, a path of the host's": (
        "5:memory:/docker/7\n",
        {"memory/memory.limit_in_bytes": "1000000"},
        None,
        1_000_000,
    ),
    "version 1, no limits": (
        "5:memory:/\n4:cpu:/\n",
        {
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": NONE,
        },
        None,
        None,
    ),
    "nothing there": (None, {}, None, None),
    "odd": ("nonsense\n", {"cpu.max": "1 1"}, None, None),
}


@pytest.fixture(params=CASES)
def hub(request, tmp_path, monkeypatch):
    own, files, cores, memory = CASES[request.param]
    monkeypatch.setattr(quota, "GROUPS", tmp_path)
    monkeypatch.setattr(quota, "OWN", tmp_path / "own")
    if own is not None:
        (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    return cores, memory


def test_limits_are_read(hub):
    assert (quota.cores(), quota.memory()) == hub


def test_a_quota_sets_the_threads_unless_somebody_chose(monkeypatch):
    used = []
    monkeypatch.setattr(threads, "set_threads", used.append)
    monkeypatch.setattr(threads, "_set", False)
    monkeypatch.setattr(quota, "cores", lambda: 3)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not threads.chosen()
    minillm.load("tales-draft", kernels="numpy")
    assert used == [3]
    monkeypatch.setenv(threads.VARIABLES[0], "2")
    threads.keep_to_quota()
    monkeypatch.delenv(threads.VARIABLES[0])
    monkeypatch.setattr(threads, "_set", True)
    threads.keep_to_quota()
    assert used == [3]


def test_students_code_may_take_half_of_a_hubs_memory(monkeypatch):
    monkeypatch.setattr(quota, "memory", lambda: 1 << 30)
    assert inside.allowed() == 1 << 29
    monkeypatch.setattr(quota, "memory", lambda: None)
    assert inside.allowed() == inside.MEMORY


def test_this_machine_can_be_asked():
    code = "from minillm.machine import quota; print(quota.cores(), quota.memory())"
    assert subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("free", "allowed", "expected"),
    [(8e9, None, "8.0 GB"), (8e9, 1 << 30, "1.1 GB"), (None, 10**6, "1.0 MB"), (None, None, "")],
)
def test_what_does_not_fit_is_told_with_what_there_is(monkeypatch, free, allowed, expected):
    monkeypatch.setattr(quota, "free_bytes", lambda: free)
    monkeypatch.setattr(quota, "memory", lambda: allowed)
    quota.require_memory("this", quota.SMALL - 1, "less")
    for needed, told in ((9 * 10**9, "9.0 GB"), (10**400, "more than a million GB")):
        if not expected:
            quota.require_memory("this", needed, "less")
            continue
        with pytest.raises(InputError) as error:
            quota.require_memory("this", needed, "less")
        assert str(error.value) == f"this would take about {told}, and {expected} are free: less"
