"""One run at a time in a folder; the lock of a killed one is taken over."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from minillm import InputError
from minillm.machine.distributed import World
from minillm.training import lock as room
from minillm.training.lock import LOCK, began, held, one_run_a_folder

posix = pytest.mark.skipif(os.name == "nt", reason="there an open file cannot be deleted instead")

HOLD = """
import sys, time
from pathlib import Path
from minillm.training.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder):
    """A process that holds the lock of a folder until its standard input ends."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], text=True, **streams)


def test_a_second_run_is_refused_while_the_first_one_is_alive(tmp_path):
    folder = tmp_path / "run"
    process = holder(folder)
    assert process.stdout.readline() == "held\n"
    with (
        pytest.raises(InputError, match=rf"run: process {process.pid} on .* trains in it; wait"),
        held(folder),
    ):
        pass
    assert (folder / LOCK).exists()
    process.communicate()
    with held(folder):
        assert json.loads((folder / LOCK).read_bytes())["process"] == os.getpid()
    assert not folder.exists()  # nothing was begun in it


def test_so_is_a_second_run_in_the_same_process(tmp_path):
    with held(tmp_path), pytest.raises(InputError, match="trains in it"), held(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists() and tmp_path.exists()


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path):
    process = holder(tmp_path)
    process.stdout.readline()
    process.kill()
    process.wait()
    assert (tmp_path / LOCK).exists()
    with held(tmp_path):
        pass
    process.communicate()


@posix
def test_of_a_killed_run_that_its_parent_has_not_fetched_too(tmp_path):
    """A zombie has a process number, but does nothing any more."""
    if not os.path.exists("/proc/self/stat"):
        pytest.skip("only Linux tells")
    process = holder(tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with held(tmp_path):
        pass
    process.communicate()


def written(folder, **changes):
    mine = {"process": os.getpid(), "host": room.platform.node(), "began": began(os.getpid())}
    (folder / LOCK).write_text(json.dumps(mine | changes))


@posix
def test_a_later_process_with_the_same_number_is_another_one(tmp_path):
    if not began(os.getpid()):
        pytest.skip("only Linux tells")
    written(tmp_path, began="1")
    with held(tmp_path):
        pass
    written(tmp_path, began="")
    with pytest.raises(InputError, match="trains in it"), held(tmp_path):
        pass


@posix
def test_of_another_host_nobody_can_tell(tmp_path):
    written(tmp_path, host="elsewhere")
    said = "on elsewhere trains in it; wait for it, .*or delete .*run.lock if it has ended"
    with pytest.raises(InputError, match=said), held(tmp_path):
        pass
    (tmp_path / LOCK).unlink()
    with held(tmp_path):
        pass


@posix
@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"process": 1}', '{"process": "1", "host": "x", "began": ""}'],
)
def test_a_lock_that_says_nothing_holds_nobody_off(tmp_path, content):
    """Its process was killed between making it and writing into it."""
    (tmp_path / LOCK).write_text(content)
    with held(tmp_path):
        pass


@posix
def test_of_many_that_find_the_same_old_lock_one_takes_it(tmp_path, monkeypatch):
    """Even if all of them have looked at it before one removes it."""
    written(tmp_path, process=2**22 + 1)  # above the largest number there is
    is_held = room.is_held

    def slowly(path, holder):
        found = is_held(path, holder)
        time.sleep(0.03)
        return found

    monkeypatch.setattr(room, "is_held", slowly)
    inside, refused, meet = [], [], threading.Barrier(8)
    end = threading.Event()

    def run():
        meet.wait(20)
        try:
            with held(tmp_path):
                inside.append(1)
                end.wait(20)
        except InputError:
            refused.append(1)
        if len(refused) == 7:
            end.set()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(inside), len(refused)) == (1, 7)


def test_only_rank_0_holds_the_lock(tmp_path):
    class Rank(World):
        def __init__(self, rank):
            self.rank, self.size = rank, 2

    @one_run_a_folder
    def train(out, *, world):
        return (out / LOCK).exists()

    assert train(tmp_path, world=Rank(0)) and not train(tmp_path, world=Rank(1))
    with pytest.raises(ZeroDivisionError), held(tmp_path):
        1 / 0  # noqa: B018
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("process", [0, -1, -(2**40)])
def test_no_group_of_processes_holds_a_lock(tmp_path, process):
    """To the system they are alive, and the folder would be locked for ever."""
    mine = {"process": process, "host": platform.node(), "began": ""}
    (tmp_path / LOCK).write_text(json.dumps(mine))
    with held(tmp_path):
        pass


@posix
def test_where_nothing_can_be_written_the_file_is_named(tmp_path):
    full = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", full + HOLD, str(tmp_path)], capture_output=True, text=True
    )
    assert f"InputError: {tmp_path / LOCK}: File too large" in done.stderr
    assert not (tmp_path / LOCK).exists()
