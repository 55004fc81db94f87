"""What the machine can do at most, by the clock's limits, measured in turn with the peers; and what
a prompt needs of it."""

from __future__ import annotations

from math import prod

import numpy as np

from .. import kernels, ops
from ..clock.limits import ARRAYS, read_bandwidth, rows_rate
from ..families.family import MATRIX
from ..twins.threads import set_threads

MACHINE = "the machine"  # its name among the peers


class Machine:
    """Spoken to as a peer (load, measure), in a process of its own."""

    needs: tuple[str, ...] = ()

    def load(self, folder: str, threads: int) -> None:
        set_threads(threads)
        self.threads = threads
        self.versions = {"numpy": np.__version__}
        self.weight_bytes = 0
        self.cache_bytes = 0
        self.libraries = None

    def measure(self, ids, n_new: int) -> dict:
        """Return bytes/s read from an array far beyond any cache, and FLOP/s of BLAS's float32
        GEMM."""
        read = kernels.read_everything if kernels.available() else None
        return {
            "bandwidth": read_bandwidth(ARRAYS[-1], read),
            "flops": rows_rate(ops, "float32"),
        }


def prefill_flop(config, T: int) -> int:
    """The multiplications and additions that a prompt of T tokens needs, logits of the last
    position only.

    2 for each weight of the blocks' matrices and each token; 4 H D for each pair of a position and
    one that it may see (scores, and their sum of values), T (T + 1) / 2 pairs a layer; 2 V C for
    the head.
    """
    s = config.sizes
    matrices = (p.shape(s) for p in config.layout.values() if p.role == MATRIX)
    pairs = s.L * T * (T + 1) // 2
    return 2 * T * sum(map(prod, matrices)) + 4 * s.H * s.D * pairs + 2 * s.V * s.C
