"""Which functions a model computes with: the textbook (ops) or its Numba twin (kernels), chosen by
name."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from types import ModuleType

from .. import kernels, ops
from ..errors import InputError
from ..machine import quota

NAMES = ("auto", "numba", "numpy")
_threads_chosen = any(name in os.environ for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"))


def twin(name: str | None = None) -> ModuleType:
    """Return the module of functions called `name`: "numpy" is ops, "numba" is kernels, "auto" is
    kernels if possible.

    A folder of exercises stands for ops with what was written there. None takes the environment
    variable MINILLM_KERNELS, or "auto". Where Numba is missing, "auto" takes ops, says so once, and
    "numba" raises InputError. Within a hub's quota, and where nobody chose, threads are as many as
    it is worth.
    """
    source = "kernels" if name else "MINILLM_KERNELS"
    name = name or os.environ.get("MINILLM_KERNELS") or "auto"
    if name not in NAMES and not Path(name).is_dir():
        raise InputError(
            f"{source} is {name!r}; it must be one of {', '.join(NAMES)}, or a folder of exercises"
        )
    if not _threads_chosen and (cores := quota.cores()):
        set_threads(min(cores, os.cpu_count() or 1))
    if name == "numpy":
        return ops
    if name not in NAMES:
        from ..exercises.student.own import of_folder

        return of_folder(Path(name).resolve())
    if kernels.available():
        try:
            import numba  # noqa: F401
        except ValueError as error:  # NUMBA_NUM_THREADS=0, say
            raise InputError(
                f"Numba does not start: {error} Look at the NUMBA_* environment variables."
            ) from None
        return kernels
    if name == "numba":
        raise InputError(
            "Numba is not installed: python -m pip install numba (or choose the kernels numpy)"
        )
    warnings.warn(
        "Numba is not installed: computing with NumPy, which is slower",
        RuntimeWarning,
        stacklevel=2,
    )
    return ops


def n_threads(ops_twin: ModuleType) -> int:
    """Return with how many threads a twin computes now."""
    if ops_twin is kernels and kernels.available():
        return kernels.n_threads()
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
    """Compute with n threads from now on, in kernels and in NumPy's BLAS, which never run at the
    same time."""
    import threadpoolctl

    global _threads_chosen
    _threads_chosen = True
    threadpoolctl.threadpool_limits(checked_threads(n), user_api="blas")
    if kernels.available():
        kernels.set_threads(n)


def checked_threads(n: int) -> int:
    """Return n if it is a number of threads that can be had, else raise InputError."""
    most = max(64, os.cpu_count() or 1)
    if not 1 <= n <= most:
        raise InputError(f"threads is {n}; it must be 1 to {most}")
    return n
