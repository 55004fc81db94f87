"""Two results compared as a teacher does: the first thing that is wrong, in the order in which one
would look."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...reference import TOLERANCES
from .call import Problem
from .wire import describe

EXACT = 1e-10  # for Python's own floats, which are float64
WIDENED = (
    "it is float64 where float32 came in, which takes twice the memory: np.sqrt(2),"
    " np.where(mask, 0.0, -np.inf) and np.zeros(n) are float64 and widen all that they meet;"
    " math.sqrt(2), 2**0.5 and np.zeros(n, x.dtype) do not"
)
TINY = 8  # numbers: an array of no more is written out
WRITTEN: Any = {
    "float_kind": "{:.4}".format,
    "int": str,
    "bool": str,
}  # as in Python, with no blanks to align them


def written(value) -> str:
    """A value as a reader would write it: (5, 5), b'low', array([0.5, -1.0]); arrays that are not
    tiny, and functions, in a few words."""
    if isinstance(value, np.ndarray) and value.size <= TINY:
        with np.printoptions(formatter=WRITTEN):
            return " ".join(repr(value).split())
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {written(v)}" for name, v in value.items()) + "}"
    if isinstance(value, (tuple, list)) and not any(map(callable, value)):
        return repr(value)
    return repr(value) if isinstance(value, (str, bytes)) else describe(value)


def problem(got, want, mutated=(), exact: float = EXACT, widen: bool = False) -> Problem | None:
    """Return the first problem of `got` where `want` is right: shape, dtype, not finite, mutated,
    wrong; None if equal.

    Numbers agree within 2e-5 (float32) or 1e-10 (float64) of the largest one, or of 1 where all are
    0: rounding, see reference.TOLERANCES. exp and log round near 1: log_softmax of a single score
    comes out as 6e-8 where 0 is right. exact: the same for Python's floats, which may come of
    float32 arrays. widen: whether float64 will do where float32 is right.
    """
    leaves = []
    for path, mine, right in _leaves("", got, want):
        if right is _DIFFERENT:
            return Problem("shape", mine)
        leaves.append((path, mine, right))
    for path, mine, right in leaves:
        if not (widen and is_widened(mine, right)) and (says := _dtype(mine, right)):
            return Problem("dtype", path + says)
    for path, mine, right in leaves:
        if says := _finite(mine, right):
            return Problem("not finite", path + says)
    if mutated:
        return Problem(
            "mutated",
            f"your function changed its input {', '.join(mutated)}: compute into a new array",
        )
    for path, mine, right in leaves:
        if says := _values(mine, right, exact):
            return Problem("wrong", path + says)
    return None


def is_widened(got, want) -> bool:
    """Whether an array, or one in a structure, is float64 where float32 is right."""
    return any(
        isinstance(right, np.ndarray) and (mine.dtype, right.dtype) == (np.float64, np.float32)
        for _, mine, right in _leaves("", got, want)
    )


_DIFFERENT = object()


def _leaves(path: str, got, want) -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, got, want) for every array, number and text; (_, sentence, _DIFFERENT) where the
    structure differs."""

    def different(needed):
        return path, f"{path}returned {describe(got)}; needed: {needed}", _DIFFERENT

    if isinstance(want, dict):
        if not isinstance(got, dict) or got.keys() != want.keys():
            yield different(f"a dict with the keys {', '.join(map(str, want))}")
            return
        for name in want:
            yield from _leaves(f"{name}: " if name else path, got[name], want[name])
    elif isinstance(want, (tuple, list)):
        if not isinstance(got, (tuple, list)) or len(got) != len(want):
            yield different(describe(want))
        else:
            for i, (mine, right) in enumerate(zip(got, want)):
                yield from _leaves(f"{path}result[{i}]: ", mine, right)
    elif isinstance(want, np.ndarray):
        if not isinstance(got, np.ndarray) or got.shape != want.shape:
            yield different(describe(want))
        else:
            yield path, got, want
    elif isinstance(want, numbers.Real):
        if not isinstance(got, numbers.Real) and not (
            isinstance(got, np.ndarray) and got.ndim == 0
        ):
            yield different(f"a number ({type(want).__name__})")
        else:
            yield path, got, want
    elif type(got) is not type(want):
        yield different(f"{type(want).__name__}")
    else:
        yield path, got, want


def _dtype(got, want) -> str | None:
    if isinstance(want, np.ndarray):
        if got.dtype == want.dtype:
            return None
        right = got.dtype.kind in "biuf" and _values(got.astype(want.dtype), want) is None
        return (
            f"dtype {got.dtype}; needed: {want.dtype} (the values are"
            f" {'right' if right else 'wrong too'})"
        )
    if isinstance(want, int) and not isinstance(got, numbers.Integral):
        return f"returned {got!r}, {type(got).__name__}; needed: an integer"
    return None


def _finite(got, want) -> str | None:
    if not isinstance(want, (np.ndarray, float)) or np.asarray(want).dtype.kind != "f":
        return None
    bad = (
        ~np.isfinite(got) & np.isfinite(want) & ~np.isin(got, want)
    )  # where -inf is right elsewhere, it is a value like others
    if not bad.any():
        return None
    index = np.unravel_index(np.argmax(bad), bad.shape)
    return f"{np.asarray(got)[index]} at {_at(index)}; needed: {np.asarray(want)[index]:.6g}"


def _values(got, want, exact: float = EXACT) -> str | None:
    if not isinstance(want, (np.ndarray, numbers.Real)):
        return None if got == want else f"yours {got!r:.80}, right {want!r:.80}"
    mine, right = np.asarray(got), np.asarray(want)
    with np.errstate(invalid="ignore"):
        same = (mine == right) | (mine != mine) & (
            right != right
        )  # inf is inf; nan, in the gallery only, is nan
        far = np.where(same, 0.0, np.abs(mine.astype(np.float64) - right))
    finite = right[np.isfinite(right)]
    tolerance = exact if isinstance(want, float) else TOLERANCES.get(right.dtype, 0.0)
    bad = ~(far <= tolerance * (float(np.abs(finite).max(initial=0.0)) or 1.0))
    if not bad.any():
        return None
    index = np.unravel_index(np.argmax(bad), bad.shape)
    numbers_ = f"first wrong number at {_at(index)}: " if bad.ndim else ""
    count = f"; {bad.sum():,} of {bad.size:,} differ" if bad.size > 1 else ""
    most = (
        f", by at most {far.max():.3g}"
        if count and mine.dtype != bool and np.isfinite(far.max())
        else ""
    )
    return f"{numbers_}{_apart(mine[index], right[index])}{count}{most}"


def _apart(mine, right) -> str:
    """Two different numbers, with as many digits as it takes to see that, seven at least."""
    if isinstance(mine, (numbers.Integral, np.bool_)):
        return f"yours {mine}, right {right}"
    pairs = ((f"{mine:.{digits}g}", f"{right:.{digits}g}") for digits in range(7, 18))
    return "yours {}, right {}".format(*next(pair for pair in pairs if pair[0] != pair[1]))


def _at(index) -> str:
    return str([int(i) for i in index])
