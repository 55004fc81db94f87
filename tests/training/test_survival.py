"""Kill -9 at any moment, Ctrl-C, SIGTERM: a run goes on where it was, to the last bit."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minillm.training.trainer import CHECKPOINT, METRICS, read_metrics

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.name == "nt", reason="POSIX signals")]

KNOBS = (
    "--kernels numpy --threads 1 --n-layer 2 --n-head 2 --n-embd 32 --n-positions 32 --vocab-size"
    " 300 --batch-size 8"
)
KNOBS += (
    " --steps 60 --warmup 5 --log-every 1 --eval-every 7 --sample-every 20 --checkpoint-every 3"
    " --sample-prompt king"
)


def start(data, out):
    """Begin the run, or go on with what there is of it."""
    resume = ["--resume"] if (out / "settings.json").exists() else []
    command = [
        sys.executable,
        "-m",
        "minillm",
        "train",
        "--data",
        str(data),
        "--out",
        str(out),
        *KNOBS.split(),
        *resume,
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(data, out):
    process = start(data, out)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0 and err == "", err


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """The folder of the whole run, and how long it took."""
    out, began = tmp_path_factory.mktemp("runs") / "whole", time.perf_counter()
    finish(data, out)
    return out, time.perf_counter() - began


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


def run_for(seconds, data, out):
    """Train, and kill it after so long, if it has not come to its end."""
    process = start(data, out)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("moment", np.random.default_rng(20).uniform(0.1, 1, 20).round(3))
def test_killed_at_a_random_moment(moment, data, uninterrupted, tmp_path):
    """moment: as a part of the time that the whole run takes."""
    whole, seconds = uninterrupted
    run_for(moment * seconds, data, tmp_path / "run")
    finish(data, tmp_path / "run")
    same(tmp_path / "run", whole)


def test_killed_again_and_again(data, uninterrupted, tmp_path):
    whole, seconds = uninterrupted
    for moment in np.random.default_rng(5).uniform(0.5, 1, 4):
        run_for(moment * seconds, data, tmp_path / "run")
    finish(data, tmp_path / "run")
    same(tmp_path / "run", whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_quietly(number, data, uninterrupted, tmp_path):
    out, deadline = tmp_path / "run", time.monotonic() + 120
    process = start(data, out)
    while (
        not ((out / METRICS).exists() and (out / METRICS).stat().st_size)
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.split("\n") == [
        "",
        "stopping after this step; once more to stop at once",
        "",
        "",
    ]
    finish(data, out)
    same(out, uninterrupted[0])
