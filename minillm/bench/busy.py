"""Decode beside busy neighbours: endless loops of the same priority, each in its own process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import sleep

import numpy as np

from ..errors import InputError
from ..loading import config_of
from .peers import choose
from .run import PAUSE, in_rounds, started

PEERS = "minillm-float32,llama.cpp-F32"
# Whoever started it holds the other end of its standard input: it ends with them, however they end.
LOOP = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
print(flush=True)
while True: pass
"""


@dataclass
class BusyResult:
    """What one peer did with so many threads beside so many neighbours: of each round, tokens/s and
    tokens per second of processor time, of all its threads; missing says why there are none."""

    name: str
    threads: int
    busy: int
    rates: list[float] = field(default_factory=list)
    per_cpu: list[float] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    missing: str | None = None

    def ratio(self, other: BusyResult, kind: str = "rates") -> float:
        """The median over rounds of self / other, round by round: "rates" or "per_cpu"."""
        return median(a / b for a, b in zip(getattr(self, kind), getattr(other, kind)))


@contextmanager
def neighbours(n: int) -> Iterator[list[subprocess.Popen]]:
    """n processes that compute without end, until the block is left."""
    pipe, loops = subprocess.PIPE, []
    try:
        for _ in range(n):
            command = [sys.executable, "-c", LOOP]
            loops.append(subprocess.Popen(command, stdin=pipe, stdout=pipe))
        for loop in loops:
            assert loop.stdout  # a pipe
            loop.stdout.readline()  # it runs
        yield loops
    finally:
        for loop in loops:
            loop.kill()
            loop.communicate()


def run(
    folder: str | Path,
    names: str | Sequence[str],
    busy: int,
    n_prompt: int = 32,
    n_new: int = 64,
    rounds: int = 5,
    threads: int = 2,
) -> list[BusyResult]:
    """Let each peer decode with one and with `threads` threads, alone and beside `busy` neighbours,
    all in turn in each round, after one round to warm up.

    Returns for each number of neighbours and threads every peer's result. Raises InputError for a
    peer that is unknown, and where none could be measured.
    """
    names, config = choose(names), config_of(folder)
    if n_prompt + n_new > config.sizes.P:
        raise InputError(
            f"{n_prompt} + {n_new} tokens do not fit the model's {config.sizes.P} positions"
        )
    ids = np.random.default_rng(0).integers(0, config.sizes.V, n_prompt).tolist()
    request = {"ids": ids, "n_new": n_new}
    results = [
        BusyResult(name, t, n) for n in (0, busy) for t in sorted({1, threads}) for name in names
    ]
    with ExitStack() as stack:
        groups = {t: stack.enter_context(started(names, folder, t)) for t in sorted({1, threads})}
        for result in results:
            said = groups[result.threads][1][result.name]
            result.versions, result.missing = said.get("versions", {}), said.get("missing")

        def one_round(keep: bool) -> None:
            for n in (0, busy):
                with neighbours(n):
                    for result in results:
                        if result.busy == n and not result.missing:
                            _measure(result, groups[result.threads][0][result.name], request, keep)

        in_rounds(rounds, one_round)
    if all(result.missing for result in results):
        raise InputError(
            "no peer could be measured: "
            + "; ".join(dict.fromkeys(f"{r.name}: {r.missing}" for r in results))
        )
    return results


def _measure(result: BusyResult, worker, request: dict, keep: bool) -> None:
    sleep(PAUSE)
    answer = worker.answer(request)
    result.missing = answer.get("missing")
    if keep and not result.missing:
        result.rates.append(request["n_new"] / answer["decode_s"])
        result.per_cpu.append(request["n_new"] / answer["decode_cpu_s"])
