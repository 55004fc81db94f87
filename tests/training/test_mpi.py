"""Training shared between processes by mpiexec: the curve of one process, one voice, one end."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minillm.training.trainer import METRICS, read_metrics
from tests.machine.test_distributed import MPIEXEC, processes

pytestmark = pytest.mark.live

KNOBS = (
    "--n-layer 2 --n-head 2 --n-embd 32 --n-positions 32 --vocab-size 300 --batch-size 8 --threads"
    " 1 --kernels numpy"
)
KNOBS += (
    " --steps 20 --warmup 5 --log-every 1 --eval-every 10 --sample-every 20 --checkpoint-every 5"
    " --lr 0.01"
)
KNOBS += " --sample-prompt king"


def command(data, out, *more):
    return ["-m", "minillm", "train", "--data", str(data), "--out", str(out), *KNOBS.split(), *more]


def losses(out):
    return [r["loss"] for r in read_metrics(out / METRICS) if "lr" in r]


@pytest.mark.parametrize("how", ["adamw", "muon", "muon --family llama --n-kv-head 1"])
def test_two_ranks_with_half_the_batch_each_follow_one(data, tmp_path, how):
    """float32, gradients summed in another order, 20 steps at a high learning rate: losses within
    1e-4."""
    alone = subprocess.run(
        [sys.executable, *command(data, tmp_path / "one", "--optimizer", *how.split())],
        capture_output=True,
    )
    done = processes(2, *command(data, tmp_path / "two", "--optimizer", *how.split()))
    assert alone.returncode == done.returncode == 0, done.stderr
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 20 and one[-1] < one[0] - 0.5
    np.testing.assert_allclose(two, one, atol=1e-4)
    assert done.stderr.count("\n") == done.stderr.count(": written; next: ") == 1 and [
        line.split()[:2] for line in done.stdout.splitlines() if line.startswith("step")
    ] == [["step", "0"], ["step", "10"], ["step", "20"]]
    assert {f.name for f in (tmp_path / "one").rglob("*")} == {
        f.name for f in (tmp_path / "two").rglob("*")
    }


def test_resumed_by_one_process(data, tmp_path):
    """What two ranks began, one goes on with: a checkpoint knows nothing of ranks."""
    done = processes(2, *command(data, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    again = processes(1, *command(data, tmp_path / "run", "--resume"))
    assert again.returncode == 0 and "finished" in again.stdout


def test_a_loss_that_is_not_finite_is_said_once(data, tmp_path):
    done = processes(
        2, *command(data, tmp_path / "run", "--lr", "1000", "--optimizer", "sgd", "--clip", "1e30")
    )
    assert (
        done.returncode == 2
        and done.stderr.count("minillm: step") == 1
        and "Traceback" not in done.stderr
    )


def test_bad_data_end_all(data, tmp_path):
    """Rank 0 alone looks at them, while the others wait for it."""
    done = processes(2, *command(tmp_path / "none", tmp_path / "run"))
    assert (
        done.returncode != 0
        and "there is no such folder or file" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_who_fails_alone_ends_the_others(data, tmp_path):
    code = (
        "import sys; from minillm.cli import main; from minillm.machine.distributed import world\n"
    )
    code += "sys.argv[5] += str(world().rank or ''); sys.exit(main(sys.argv[1:]))"
    done = processes(2, "-c", code, *command(data, tmp_path / "run")[2:])
    assert (
        done.returncode != 0 and "rank 1: minillm: " in done.stderr and "no folder" in done.stderr
    )


def test_ctrl_c_saves_and_ends_all(data, tmp_path):
    pytest.importorskip("mpi4py", reason="needs the extra mpi")
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec")
    out, deadline = tmp_path / "run", time.monotonic() + 120
    arguments = command(
        data, out, "--steps", "100000", "--checkpoint-every", "100000", "--eval-every", "100000"
    )
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([MPIEXEC, "-n", "2", sys.executable, *arguments], **streams)
    while (
        not ((out / METRICS).exists() and (out / METRICS).stat().st_size)
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0 and "Traceback" not in err
    assert err.count("stopping after this step") <= 1 and (out / "checkpoint.safetensors").exists()
