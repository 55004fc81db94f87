"""Kill -9 at any moment, Ctrl-C, SIGTERM: a run goes on where it was, to the last bit.

MINILLM_KILLS=100 kills as often, half of the times in the middle of a write (default: 10).
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minillm.training.trainer import CHECKPOINT, METRICS, read_metrics

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.name == "nt", reason="POSIX signals")]

KILLS = int(os.environ.get("MINILLM_KILLS", "10"))
KNOBS = (
    "--kernels numpy --n-layer 2 --n-head 2 --n-embd 32 --n-positions 32 --vocab-size 300"
    " --batch-size 8 --steps 60 --warmup 5 --log-every 1 --eval-every 7 --sample-every 20"
    " --checkpoint-every 3 --sample-prompt king"
)


# Who forks has one thread only, and BLAS rounds differently on two: every run has one.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def arguments(data, out):
    """Of the command that begins the run, or goes on with what there is of it."""
    resume = ["--resume"] if (out / "settings.json").exists() else []
    return ["train", "--data", str(data), "--out", str(out), *KNOBS.split(), *resume]


@pytest.fixture(scope="module")
def fork():
    """Run `minillm train` in a fork (see forks.py), with the request as keywords."""
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("forks.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ONE_THREAD,
    )

    def call(data, out, **when):
        print(json.dumps({"argv": arguments(data, out)} | when), file=server.stdin, flush=True)
        return json.loads(server.stdout.readline())

    yield call
    server.communicate()


@pytest.fixture(scope="module")
def finish(fork):
    """Let a run come to its end. It may say that the last checkpoint is not whole, nothing else."""

    def call(data, out):
        done = fork(data, out)
        said = r"(minillm: )?.*checkpoint.safetensors: there is no such file; going on from .*\n"
        assert done["code"] == 0 and re.fullmatch(
            f"({said})?.*: written; next: .*\n", done["err"]
        ), done["err"]
        return done

    return call


@pytest.fixture(scope="module")
def uninterrupted(data, finish, tmp_path_factory):
    """The folder of the whole run, and how long it took and how often it wrote."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, finish(data, out)


def same(out, whole):
    """Parameters, optimiser and every reported number to the last bit; and no file too many."""
    assert (out / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    curves = [
        [{k: v for k, v in r.items() if k != "tokens_per_s"} for r in read_metrics(f / METRICS)]
        for f in (out, whole)
    ]
    assert curves[0] == curves[1] and (out / METRICS).read_text().endswith("}\n")
    assert len((out / METRICS).read_text().splitlines()) == len(curves[0])
    files = [
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        for folder in (out, whole)
    ]
    assert files[0] == files[1]


def moment(rng, within_a_write, whole):
    """When to kill: at one of the writes of the whole run, or at any time of it."""
    if within_a_write:
        return {"write": int(rng.integers(1, whole["writes"] + 1))}
    return {"seconds": rng.uniform(0, whole["seconds"])}


@pytest.mark.parametrize("n", range(KILLS))
def test_killed(n, data, fork, finish, uninterrupted, tmp_path):
    out, (folder, whole) = tmp_path / "run", uninterrupted
    within_a_write = n % 2 == 0
    done = fork(data, out, **moment(np.random.default_rng([20, n]), within_a_write, whole))
    assert done["code"] == -signal.SIGKILL or not within_a_write
    finish(data, out)
    same(out, folder)


def test_killed_again_and_again(data, fork, finish, uninterrupted, tmp_path):
    out, (folder, whole), rng = tmp_path / "run", uninterrupted, np.random.default_rng(5)
    for n in range(6):
        fork(data, out, **moment(rng, n % 2 == 0, whole))
    finish(data, out)
    same(out, folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_quietly(number, data, finish, uninterrupted, tmp_path):
    out, deadline = tmp_path / "run", time.monotonic() + 120
    process = subprocess.Popen(
        [sys.executable, "-m", "minillm", *arguments(data, out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ONE_THREAD,
    )
    while (
        not ((out / METRICS).exists() and (out / METRICS).stat().st_size)
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.split("\n") == [
        "",
        "stopping after this step, from which a resumed run goes on; once more to stop at once",
        "",
        "",
    ]
    finish(data, out)
    same(out, uninterrupted[0])
