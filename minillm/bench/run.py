"""Measure peers in turn: each in its own process, one round each, again and again, so that drift hits all alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from ..config import GPT2Config
from ..errors import InputError
from ..progress import progress_bar
from .peers import PEERS

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass
class Result:
    """What one peer did: tokens/s of each round, prefill and decode; missing says why there are none."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    peak_bytes: int | None = None
    missing: str | None = None

    def ratio(self, other: Result, kind: str) -> float:
        """The median over rounds of self / other, round by round: "prefill" or "decode"."""
        return median(mine / theirs for mine, theirs in zip(getattr(self, kind), getattr(other, kind)))


def run(
    folder: str | Path,
    names: Sequence[str],
    n_prompt: int = 32,
    n_new: int = 64,
    rounds: int = 5,
    threads: int = 2,
    seed: int = 0,
) -> list[Result]:
    """Return one Result for each name, from `rounds` rounds after one warm-up; the prompt is random ids.

    Raises InputError for a peer that is unknown, and one that fails.
    """
    if unknown := [name for name in names if name not in PEERS]:
        raise InputError(f"peer {unknown[0]!r} is unknown; known: {', '.join(PEERS)}")
    config = GPT2Config.from_file(Path(folder) / "config.json")
    if n_prompt + n_new > config.n_positions:
        raise InputError(f"{n_prompt} + {n_new} tokens do not fit the model's {config.n_positions} positions")
    ids = np.random.default_rng(0).integers(0, config.vocab_size, n_prompt).tolist()
    environment = os.environ | {variable: str(threads) for variable in THREAD_VARIABLES}
    results, workers = [], {}
    try:
        for name in names:
            command = [sys.executable, "-m", "minillm.bench.worker", name, str(folder), str(threads)]
            workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            results.append(Result(name, **_answer(name, workers[name])))
        present = [result for result in results if not result.missing]
        with progress_bar("rounds") as update:
            for turn in range(rounds + 1):
                for result in present:
                    worker = workers[result.name]
                    worker.stdin.write(json.dumps({"ids": ids, "new": n_new}) + "\n")
                    worker.stdin.flush()
                    answer = _answer(result.name, worker)
                    if turn > 0:  # the first is the warm-up
                        result.prefill.append(n_prompt / answer["prefill_s"])
                        result.decode.append(n_new / answer["decode_s"])
                    result.tokens, result.peak_bytes = answer["tokens"], answer["peak_bytes"]
                update("measuring", turn, rounds)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()
    return results


def _answer(name: str, worker: subprocess.Popen) -> dict:
    line = worker.stdout.readline()
    if not line:
        raise InputError(f"peer {name} ended with exit code {worker.wait()}; its own message stands above")
    return json.loads(line)
