"""With how many threads a twin computes: kernels and NumPy's BLAS, which never run at the same
time."""

from __future__ import annotations

import os

from .. import kernels
from ..errors import InputError, short, whole_number
from ..machine import quota
from .twin import Twin, abilities

VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")
_set = False  # whether set_threads was called


def chosen() -> bool:
    """Whether somebody has said how many threads: in the environment, or by set_threads."""
    return _set or any(name in os.environ for name in VARIABLES)


def keep_to_quota() -> None:
    """Where nobody has chosen, compute with as many threads as a hub's quota is worth."""
    if not chosen() and (cores := quota.cores()):
        set_threads(min(cores, os.cpu_count() or 1))


def n_threads(ops: Twin) -> int:
    """Return with how many threads a twin computes now."""
    if (own := abilities(ops).n_threads) is not None:
        return int(own())
    import threadpoolctl

    return max(
        (
            pool["num_threads"]
            for pool in threadpoolctl.threadpool_info()
            if pool["user_api"] == "blas"
        ),
        default=1,
    )


def set_threads(n: int) -> None:
    """Compute with n threads from now on, in kernels and in NumPy's BLAS."""
    import threadpoolctl

    global _set
    _set = True
    n = checked_threads(n)
    threadpoolctl.threadpool_limits(n, user_api="blas")
    if kernels.available():
        kernels.set_threads(n)


def checked_threads(n: int) -> int:
    """Return n if it is a number of threads that can be had, else raise InputError."""
    most = max(64, os.cpu_count() or 1)
    if (number := whole_number("threads", n)) > most:
        raise InputError(f"threads is {short(n)}; it must be 1 to {most}")
    return number
