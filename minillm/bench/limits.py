"""What the machine can do at most, measured as a peer is: how fast it reads memory, and how fast it multiplies matrices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

import numpy as np

from ..config import GPT2Config

READ_BYTES = 512 * 10**6  # far beyond any cache
GEMM_SIZE = 2048
PASSES = 7


class Machine:
    """Spoken to as a peer (load, measure), in a process of its own."""

    def load(self, folder: str, threads: int) -> None:
        from threadpoolctl import ThreadpoolController

        self.controller, self.threads, self.versions = ThreadpoolController(), threads, {"numpy": np.__version__}
        self.weight_bytes = self.cache_bytes = 0
        self.parts = np.array_split(np.ones(READ_BYTES // 4, np.float32), threads)
        self.left, self.right = np.random.default_rng(0).standard_normal((2, GEMM_SIZE, GEMM_SIZE), np.float32)
        self.product = np.empty_like(self.left)

    def measure(self, ids, n_new: int) -> dict:
        """Return bytes/s and FLOP/s, each the median of 7 passes.

        Reading: the dot product of a float32 array of 512 MB with itself, a part for each thread, BLAS with one thread
        inside: one load and one fused multiply-add a number, so memory is what it waits for. Multiplying: BLAS sgemm of
        two 2048 x 2048 matrices.
        """
        with self.controller.limit(limits=1, user_api="blas"), ThreadPoolExecutor(self.threads) as pool:
            read = _seconds(lambda: list(pool.map(lambda part: np.dot(part, part), self.parts)))
        multiply = _seconds(lambda: np.matmul(self.left, self.right, out=self.product))
        return {"bandwidth": READ_BYTES / read, "flops": 2 * GEMM_SIZE**3 / multiply}


def _seconds(work) -> float:
    """Return the median time of PASSES calls."""
    times = []
    for _ in range(PASSES):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return median(times)


def prefill_flop(config: GPT2Config, T: int) -> int:
    """The multiplications and additions that a prompt of T tokens needs, logits of the last position only.

    2 for each weight of a block's matrices and each token; 4 C for each pair of a position and one that it may see (scores,
    and their sum of values), T (T + 1) / 2 pairs a layer; 2 V C for the head.
    """
    C, F, L = config.n_embd, config.hidden_dim, config.n_layer
    return L * (2 * T * (4 * C * C + 2 * C * F) + 4 * C * T * (T + 1) // 2) + 2 * config.vocab_size * C
