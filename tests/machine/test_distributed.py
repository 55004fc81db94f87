"""Several processes as one: every method by mpiexec with 3 processes, and the same methods for one
process alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minillm import InputError
from minillm.machine import distributed
from minillm.machine.distributed import STARTED_BY_MPI, World

MPIEXEC = next(
    (
        path
        for folder in (Path(sys.executable).parent, None)
        if (path := shutil.which("mpiexec", path=folder))
    ),
    None,
)

METHODS = """
import json
import numpy as np
from minillm import InputError
from minillm.machine.distributed import world

ranks = world()
ranks.barrier()
transposed = np.arange(6.0, dtype=np.float32).reshape(2, 3).T * (1 + ranks.rank)
arrays = [np.full(4, float(ranks.rank)), transposed]
ranks.all_reduce_sum(arrays)
def refuse(n):
    if n > 3:
        raise InputError(f"{n} is too much")
    return n
try:
    ranks.share(refuse, range(6))
    said = ""
except InputError as error:
    said = str(error)
found = {
    "broadcast": ranks.broadcast({"from": ranks.rank}),
    "gathered": ranks.all_gather(ranks.rank ** 2),
    "said": said,
    "sums": [a.tolist() for a in arrays],
    "dtypes": [str(a.dtype) for a in arrays],
    "in place": arrays[1] is transposed,
    "shared": ranks.share(lambda n: (n, ranks.rank), range(7)),
    "few": ranks.share(lambda n: n, [5]),
    "cores": ranks.cores,
}
every = ranks.all_gather(found)
if ranks.rank == 0:
    print(json.dumps([ranks.size, every]))
"""


# BLAS rounds differently on one thread and on two, and three processes have one each.
ONE_THREAD = ("--threads", "1")


def processes(n, *args, **kwargs):
    """Run Python with `args` in n processes."""
    pytest.importorskip("mpi4py", reason="needs the extra mpi")
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec")
    more = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }  # Open MPI: in containers, and
    more |= {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}  # more processes than cores
    command = [MPIEXEC, "-n", str(n), sys.executable, *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, **more}, **kwargs
    )


def test_every_method_with_three_processes():
    done = processes(3, "-c", METHODS)
    assert done.returncode == 0, done.stderr
    size, every = json.loads(done.stdout)
    assert size == 3 and all(found == every[0] for found in every)
    found = every[0]
    assert (
        found["broadcast"] == {"from": 0}
        and found["gathered"] == [0, 1, 4]
        and found["said"] == "4 is too much"
    )
    assert found["sums"] == [[3.0] * 4, (np.arange(6.0).reshape(2, 3).T * 6).tolist()]
    assert found["dtypes"] == ["float64", "float32"] and found["in place"] and found["cores"] >= 1
    assert found["shared"] == [[n, n % 3] for n in range(7)] and found["few"] == [5]


def test_one_process_alone(monkeypatch, capsys):
    for name in STARTED_BY_MPI:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed, "_world", None)
    ranks, array = distributed.world(), np.arange(3.0)
    assert (
        type(ranks) is World and ranks is distributed.world() and (ranks.rank, ranks.size) == (0, 1)
    )
    ranks.barrier()
    ranks.all_reduce_sum([array])
    assert (
        array.tolist() == [0, 1, 2] and ranks.broadcast("x") == "x" and ranks.all_gather(4) == [4]
    )
    assert ranks.share(lambda n: 2 * n, range(4)) == [0, 2, 4, 6] and ranks.cores >= 1

    def refuse(n):
        raise InputError(f"not {n}")

    with pytest.raises(InputError, match="not 0"):
        ranks.share(refuse, range(4))


def test_mpiexec_without_mpi4py_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setattr(distributed, "_world", None)
    with pytest.raises(InputError, match="pip install mpi4py mpich"):
        distributed.world()


def test_who_fails_alone_ends_the_others(tmp_path):
    """Rank 1 alone finds its file missing, while rank 0 waits for it: both end, and the reason is
    said."""
    (tmp_path / "0").write_text("Once upon a time there was a king. " * 9)
    code = (
        "import sys; from minillm.cli import main; from minillm.machine.distributed import world; "
    )
    code += "sys.exit(main(['score', sys.argv[1] + str(world().rank)]))"
    done = processes(2, "-c", code, str(tmp_path) + os.sep)
    assert (
        done.returncode != 0
        and "rank 1: minillm: " in done.stderr
        and "no such file" in done.stderr
    )


def test_who_fails_with_all_says_so_once():
    done = processes(3, "-m", "minillm", "score", "no-such-file")
    assert done.returncode == 2 and done.stderr.count("no-such-file") == 1 and done.stdout == ""


def test_scoring_shared_between_processes_gives_the_same_numbers(tmp_path):
    (tmp_path / "tales").write_text(
        "Once upon a time there was a king who had a daughter; she was proud.\n<|endoftext|>\n" * 9
    )
    command = (
        "-m",
        "minillm",
        "score",
        str(tmp_path / "tales"),
        "--model",
        "tales-draft",
        "--window",
        "40",
        "--stride",
        "32",
        *ONE_THREAD,
    )
    alone = subprocess.run([sys.executable, *command, "--json"], capture_output=True, text=True)
    done = processes(3, *command, "--json")
    assert done.returncode == 0, done.stderr
    expected, found = json.loads(alone.stdout), json.loads(done.stdout)
    assert found == expected


def test_levers_shared_between_processes_have_the_same_quality(tmp_path):
    (tmp_path / "tales").write_text(
        "Once upon a time there was a king who had a daughter; she was proud. " * 40
    )
    options = (
        "--model tales-draft --quality-tokens 64 --rounds 1 --max-new-tokens 4 --prompt-tokens 8"
        " --json"
    )
    command = ["-m", "minillm", "compare", str(tmp_path / "tales"), *options.split()]
    command += [*ONE_THREAD, "--levers", "int8", "low-rank:8", "heads:2", "sparse:0.7"]
    alone = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    done = processes(3, *command)
    assert done.returncode == alone.returncode == 0, done.stderr
    (expected, found) = (json.loads(d.stdout) for d in (alone, done))
    names = ("levers", "bits_per_byte", "divergence", "missing")
    assert [[e[n] for n in names] for e in found["levers"]] == [
        [e[n] for n in names] for e in expected["levers"]
    ]
    assert found["processes"] == 3 and all(e["decode"] for e in found["levers"] if not e["missing"])
