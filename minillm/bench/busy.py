"""Decode, prefill and training beside busy neighbours: endless loops of the same priority, each in
its own process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ..loading import config_of
from ..machine.load import Load
from . import trainers
from .peers import choose
from .run import check_measured, in_rounds, random_ids, require_some, started, turn

PEERS = "minillm-float32,llama.cpp-F32"
# seconds of a turn, in which a peer is asked again and again: the system shares processors out in
# slices of milliseconds, and a prompt may take less than one
TURN = 0.5
LEAST = 1e-7  # seconds: a coarse clock may say none at all
# Whoever started it holds the other end of its standard input: it ends with them, however they end.
LOOP = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
print(flush=True)
while True: pass
"""


@dataclass
class BusyResult:
    """What one peer did with so many threads beside so many neighbours.

    rates, per_cpu: of each kind of work ("decode", "prefill", "training") tokens/s, and tokens per
    second of processor time of all its threads, of each round; missing says why there are none.
    """

    name: str
    threads: int
    busy: int
    rates: dict[str, list[float]]
    per_cpu: dict[str, list[float]]
    versions: dict[str, str] = field(default_factory=dict)
    missing: str | None = None

    def ratio(self, other: BusyResult, kind: str, of: str = "rates") -> float:
        """The median over rounds of self / other, round by round: of "rates" or "per_cpu"."""
        mine, theirs = getattr(self, of)[kind], getattr(other, of)[kind]
        return median(a / b for a, b in zip(mine, theirs))


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
    cache_dtype: str | None = None,
) -> list[BusyResult]:
    """Let each peer read a prompt and decode with one and with `threads` threads, alone and beside
    `busy` neighbours, all in turn in each round, after one round to warm up.

    Returns for each number of neighbours and threads every peer's result. Raises InputError for a
    peer that is unknown, and where none could be measured.
    """
    require_some(names := choose(names))
    request = {"ids": random_ids(config_of(folder), n_prompt, n_new), "n_new": n_new}
    tokens = {"decode": n_new, "prefill": n_prompt}
    return _in_turn(folder, names, request, tokens, busy, rounds, threads, cache_dtype)


def train(shape: str, names: str, busy: int, rounds: int = 5, threads: int = 2) -> list[BusyResult]:
    """The same with training steps of a shape, and the peers, of trainers.run."""
    chosen, (_, (B, T)) = trainers.choose(names), trainers.SHAPES[shape]
    require_some(chosen, trainers.TRAINERS)
    with trainers.prepared(shape) as (folder, request):
        tokens = {"training": B * T * trainers.STEPS}
        return _in_turn(folder, chosen, request, tokens, busy, rounds, threads)


def _in_turn(
    folder: str | Path,
    names: Sequence[str],
    request: dict,
    tokens: Mapping[str, int],
    busy: int,
    rounds: int,
    threads: int,
    cache_dtype: str | None = None,
) -> list[BusyResult]:
    """tokens: of each kind of work, how many a request asks for."""
    results = [
        BusyResult(name, t, n, {kind: [] for kind in tokens}, {kind: [] for kind in tokens})
        for n in (0, busy)
        for t in sorted({1, threads})
        for name in names
    ]
    with ExitStack() as stack:
        groups = {
            t: stack.enter_context(started(names, folder, t, cache_dtype))
            for t in sorted({1, threads})
        }
        for result in results:
            said = groups[result.threads][1][result.name]
            result.versions, result.missing = said.get("versions", {}), said.get("missing")

        others = Load()

        def one_round(keep: bool) -> None:
            for n in (0, busy):
                with others.resting() if n else nullcontext(), neighbours(n):
                    for result in results:
                        if result.busy == n and not result.missing:
                            worker = groups[result.threads][0][result.name]
                            _measure(result, worker, request, tokens, keep)

        in_rounds(rounds, one_round, others, "what has no busy neighbours")
    check_measured(results)
    return results


def _measure(
    result: BusyResult, worker, request: dict, tokens: Mapping[str, int], keep: bool
) -> None:
    answers = turn(worker, request, TURN)
    silent = [kind for kind in tokens if f"{kind}_cpu_s" not in answers[-1]]
    result.missing = answers[-1].get("missing") or (
        f"does not say its processor time of {silent[0]}" if silent else None
    )
    if result.missing:
        return
    for kind, n in tokens.items() if keep else ():
        for rates, clock in ((result.rates, "s"), (result.per_cpu, "cpu_s")):
            seconds = sum(answer[f"{kind}_{clock}"] for answer in answers)
            rates[kind].append(len(answers) * n / max(seconds, LEAST))
