"""Two processes compile what is missing, from both ends of a list; every kernel has its address."""

import os
import subprocess
import sys
from unittest.mock import MagicMock

import pytest

pytest.importorskip("numba")

from minillm.kernels import addresses, decode, machine_code, perform, threads

NEEDED = [("product", "int8"), ("then", "attend"), ("attention", "float32"), ("norm", "rms_norm")]
FROM_BOTH_ENDS = ["attention.float32", "then.attend", "norm.rms_norm", "product.int8"]


@pytest.fixture
def asked(monkeypatch):
    """What is compiled here, and what the other process is asked for, where nothing is on disk."""
    here, there, killed = [], [], []

    def other(command, **how):
        there.append(command[-len(NEEDED) :])
        process = MagicMock()  # also a context
        process.kill = lambda: killed.append(len(here))
        return process

    monkeypatch.setattr(machine_code, "linked", lambda name: False)
    monkeypatch.setattr(addresses, "kernel_at", lambda *kernel: here.append(".".join(kernel)))
    monkeypatch.setattr(subprocess, "Popen", other)
    yield here, there, killed
    threads.set_threads(None)


def test_another_process_begins_at_the_other_end(asked):
    here, there, killed = asked
    threads.set_threads(2)
    addresses.have(NEEDED + NEEDED)
    assert here == FROM_BOTH_ENDS and there == [FROM_BOTH_ENDS[::-1]] and killed == [4]


def test_the_other_process_is_ended_whatever_happens(asked, monkeypatch):
    def interrupt(*kernel):
        raise KeyboardInterrupt

    monkeypatch.setattr(addresses, "kernel_at", interrupt)
    threads.set_threads(2)
    with pytest.raises(KeyboardInterrupt):
        addresses.have(NEEDED)
    assert asked[2] == [0]


def test_where_no_process_may_be_started_this_one_compiles_alone(asked, monkeypatch):
    def refuse(command, **how):
        raise BlockingIOError("too many processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    threads.set_threads(2)
    addresses.have(NEEDED)
    assert asked == ([], [], [])  # each is compiled when its address is asked for


def test_one_thread_or_little_to_do_needs_no_other(asked, monkeypatch):
    threads.set_threads(1)
    addresses.have(NEEDED)
    threads.set_threads(2)
    addresses.have(NEEDED[:2])
    monkeypatch.setattr(machine_code, "linked", lambda name: True)
    addresses.have(NEEDED)
    assert asked == ([], [], [])


def test_what_the_other_process_does(tmp_path):
    """It keeps what it compiles, up to a kernel that is there already."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)

    def compiled(*names: str) -> set[str]:
        command = [sys.executable, "-m", addresses.__name__, *names]
        subprocess.run(command, env=environment, check=True)
        return {file.name.rsplit(".", 2)[0] for file in tmp_path.glob("*.code")}

    assert compiled("then.attend") == {"then.attend"}
    assert compiled("activation.relu", "then.attend", "activation.silu") == {
        "then.attend",
        "activation.relu",
    }


def test_what_is_known_without_numba_is_so():
    kernels = perform.KERNELS
    assert (*decode.NORMS,) == (*kernels["norm"],)
    assert (*decode.PRODUCTS,) == (*kernels["product"],)
    assert (*decode.ACTIVATIONS,) == (*kernels["activation"],)
    assert {*decode.THEN.values()} == {*kernels["then"]}
    for what in ("attention", "tiles"):
        assert (*decode.CACHES.values(),) == (*kernels[what],)
    assert {*addresses.ORDER, "pass"} == {*kernels}
