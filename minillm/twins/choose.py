"""Which functions a model computes with, chosen by name: the textbook (ops), its Numba twin
(kernels), or a student's folder."""

from __future__ import annotations

import logging
import os
import re
import warnings
from functools import cache
from pathlib import Path
from typing import cast

from .. import kernels, ops
from ..errors import InputError, short
from .folder import open_folder
from .threads import checked_threads
from .twin import Twin, abilities

log = logging.getLogger(__name__)
NAMES = ("auto", "numba", "numpy")


# What the environment says to Numba that it surely takes: Numba is not imported to find out
PLAIN = re.compile(
    r"(?!NUMBA_).*|NUMBA_NUM_THREADS=[1-9]\d*|NUMBA_(CACHE_DIR|CPU_NAME|CPU_FEATURES)=.*", re.DOTALL
)


def twin(name: str | Path | Twin | None = None) -> Twin:
    """Return the twin called `name`: "numpy" is ops, "numba" is kernels, "auto" is kernels if
    possible, a folder of exercises is ops with what was written there.

    None takes the environment variable MINILLM_KERNELS, or "auto"; a twin is taken as it is. Where
    Numba is missing, or told to compile nothing, "auto" takes ops and says so; "numba" raises
    InputError where it is missing.
    """
    if not isinstance(name, str | Path | None):
        return abilities(name).ops
    source = "kernels" if name else "MINILLM_KERNELS"
    name = name or os.environ.get("MINILLM_KERNELS") or "auto"
    if name not in NAMES and not os.path.isdir(name):  # unlike Path.is_dir, False for long names
        raise InputError(
            f"{source} is {short(os.fspath(name))}; it must be one of {', '.join(NAMES)}, or a"
            " folder of exercises"
        )
    if name == "numpy":
        return ops
    if name not in NAMES:
        return open_folder(Path(name).resolve())
    if kernels.available():
        if not all(map(PLAIN.fullmatch, (f"{n}={v}" for n, v in os.environ.items()))):
            _start_numba()
        if name == "auto" and not compiles():
            _say_numpy("NUMBA_DISABLE_JIT is set, so that kernels would run as Python")
            return ops
        checked_threads(kernels.n_threads())
        return cast(Twin, kernels)
    if name == "numba":
        raise InputError(
            "Numba is not installed: python -m pip install numba (or choose the kernels numpy)"
        )
    _say_numpy("Numba is not installed")
    return ops


def compiles() -> bool:
    """Whether Numba, where it is, compiles kernels: NUMBA_DISABLE_JIT runs them as Python, to look
    into them, at a thousandth of their speed."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"


@cache
def _say_numpy(why: str) -> None:
    """Say once that NumPy computes, and why."""
    log.warning("%s: computing with NumPy, which is slower than compiled kernels", why)


def _start_numba() -> None:
    """Import Numba; InputError for an environment that it does not take."""
    try:
        with warnings.catch_warnings():  # it warns, with a traceback, of what it cannot read
            warnings.filterwarnings("error", "Environment variable", RuntimeWarning)
            import numba  # noqa: F401
    except (ValueError, RuntimeWarning) as error:  # NUMBA_NUM_THREADS=0, or =abc
        why = str(error).partition("\n")[0]
        raise InputError(
            f"Numba does not start: {why} Look at the NUMBA_* environment variables."
        ) from None
