"""What the machine can do at most, by the clock's limits, measured in turn with the peers: what a
prompt needs of it, and how much memory this process took."""

from __future__ import annotations

import sys

import numpy as np

from .. import kernels, ops
from ..clock.limits import ARRAYS, read_bandwidth, rows_rate
from ..families.gpt2.config import GPT2Config
from ..twins.choose import set_threads

MACHINE = "the machine"  # its name among the peers


class Machine:
    """Spoken to as a peer (load, measure), in a process of its own."""

    def load(self, folder: str, threads: int) -> None:
        set_threads(threads)
        self.threads = threads
        self.versions = {"numpy": np.__version__}
        self.weight_bytes = 0
        self.cache_bytes = 0

    def measure(self, ids, n_new: int) -> dict:
        """Return bytes/s read from an array far beyond any cache, and FLOP/s of BLAS's float32
        GEMM."""
        return {
            "bandwidth": read_bandwidth(ARRAYS[-1], kernels.available()),
            "flops": rows_rate(ops, "float32"),
        }


def prefill_flop(config: GPT2Config, T: int) -> int:
    """The multiplications and additions that a prompt of T tokens needs, logits of the last
    position only.

    2 for each weight of a block's matrices and each token; 4 A for each pair of a position and one
    that it may see (scores, and their sum of values), T (T + 1) / 2 pairs a layer; 2 V C for the
    head.
    """
    C, A, F = config.n_embd, config.attention_dim, config.hidden_dim
    block = 2 * T * (4 * C * A + 2 * C * F) + 4 * A * T * (T + 1) // 2
    return config.n_layer * block + 2 * config.vocab_size * C


def peak_bytes() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not say.

    Linux: of /proc, since what getrusage says there counts the memory of the parent that it was
    started from.
    """
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
