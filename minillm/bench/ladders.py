"""How far each rung of the ladders is from BLAS, and from what the processor can do at all:
`minillm bench --ladders`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter, sleep

import numpy as np

from .. import families, kernels
from ..errors import InputError, count
from ..families.gpt2.config import GPT2Config
from ..machine.load import undisturbed
from ..machine.progress import progress_bar
from ..twins.threads import set_threads
from ..weights import store
from .run import lasting

ROWS, WIDTH = 512, 768
BLAS = "BLAS"
PEAK = "multiply-adds in registers"
STORED = "linear, stored weight"
NUMPY = "two_pass"
MEASURES = (BLAS, PEAK, NUMPY)  # what the others of a group are compared with
LONG = 0.1  # seconds for which each is repeated in a round
PAUSE = 0.15  # before each: BLAS lets idle threads spin, on the next one's cores
log = logging.getLogger(__name__)


@dataclass
class Rung:
    """One way to compute something on so many threads; cost is in FLOP, of softmax in numbers,
    rates are that a second."""

    group: str
    name: str
    threads: int
    cost: float
    work: Callable[[], object]
    rates: list[float] = field(default_factory=list)

    def share(self, other: Rung) -> float:
        """The median over rounds of this rate over the other's, round by round."""
        return median(mine / theirs for mine, theirs in zip(self.rates, other.rates))


def run(rounds: int = 5, threads: int = 2) -> list[Rung]:
    """Time all rungs in turn, `rounds` times after a warm-up.

    The ladders on one thread: [512,768] x [768,768], and softmax of 512 rows of 1024. Their last
    rung, and `linear` with 512 rows at GPT-2 124M's four shapes, on all. Beside products: BLAS, and
    the most that multiply-adds can come to.
    """
    if not kernels.available():
        raise InputError("the ladders need Numba: python -m pip install numba")
    rungs = _rungs(threads)
    seconds = (rounds + 1) * len(rungs) * (PAUSE + LONG)
    log.info("%s rungs in turn, %s times: %s at least", len(rungs), rounds + 1, lasting(seconds))
    with undisturbed("the ladders were measured"), progress_bar("timings") as update:
        for turn in range(rounds + 1):
            for done, rung in enumerate(rungs):
                update("ladders", turn * len(rungs) + done, (rounds + 1) * len(rungs))
                set_threads(rung.threads)
                rate = _rate(rung)
                if turn:
                    rung.rates.append(rate)
    return rungs


def _rungs(threads: int) -> list[Rung]:
    from ..kernels.ladders import MATMUL, SOFTMAX
    from ..kernels.limits import multiply_and_add

    r = np.random.default_rng(0)
    rungs: list[Rung] = []

    def add(group: str, n: int, cost: float, works: dict) -> None:
        rungs.extend(Rung(group, name, n, cost, work) for name, work in works.items())

    def products(group: str, n: int, n_in: int, n_out: int, names) -> None:
        x = r.standard_normal((ROWS, n_in), np.float32)
        w = r.standard_normal((n_in, n_out), np.float32)
        stored, flop = store(w, "float32"), 2 * x.size * n_out
        ways = {**MATMUL, STORED: lambda x, w: kernels.linear(x, stored), BLAS: np.matmul}
        add(group, n, flop, {name: lambda way=ways[name]: way(x, w) for name in names})
        times = 1_000_000  # some 4 ms
        add(group, n, n * 384 * times, {PEAK: lambda: multiply_and_add(times, n)})

    one, many = count(1, "thread"), count(threads, "thread")
    shape = f"[{ROWS},{WIDTH}] x [{WIDTH},{WIDTH}]"
    *alone, last = MATMUL
    products(f"matmul {shape}, {one}", 1, WIDTH, WIDTH, [*alone, STORED, BLAS])
    products(f"matmul {shape}, {many}", threads, WIDTH, WIDTH, [last, STORED, BLAS])
    config = GPT2Config()  # the 124M model's
    family, layout = families.of(config), config.layout
    for name in family.block_matrices(config):
        n_in, n_out = layout[family.layer_name(0, f"{name}.weight")].shape(config.sizes)
        products(
            f"{name} [{ROWS},{n_in}] x [{n_in},{n_out}], {many}",
            threads,
            n_in,
            n_out,
            [STORED, BLAS],
        )
    x = r.standard_normal((ROWS, 1024), np.float32)
    for n, names in ((1, list(SOFTMAX)[:-1]), (threads, [NUMPY, list(SOFTMAX)[-1]])):
        works = {name: lambda rung=SOFTMAX[name]: rung(x) for name in names}
        add(f"softmax [{ROWS},1024], {one if n == 1 else many}", n, x.size, works)
    return rungs


def _rate(rung: Rung) -> float:
    """By the median of the calls that fit into LONG seconds, after one that wakes the processor."""
    sleep(PAUSE)
    rung.work()
    times: list[float] = []
    while sum(times) < LONG:
        start = perf_counter()
        rung.work()
        times.append(perf_counter() - start)
    return rung.cost / median(times)
