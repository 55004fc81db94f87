"""Two results compared as a teacher does: the first thing that is wrong, in the order in which one would look."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..reference import TOLERANCES

EXACT = 1e-10  # for Python's own floats, which are float64


@dataclass(frozen=True)
class Problem:
    """What is wrong, and in one sentence how: kind is missing, signature, raised, shape, dtype, not finite, mutated, wrong,
    slow or stopped; todo and skipped where nothing was written yet or nothing can be checked."""

    kind: str
    says: str


def describe(value) -> str:
    """A value in a few words: float32 [2, 3], a tuple of 2, 7."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r:.60}" if isinstance(value, (int, float, str, bytes, type(None))) else f"a {type(value).__name__}"


def problem(got, want, mutated=()) -> Problem | None:
    """Return the first problem of `got` where `want` is right: shape, dtype, not finite, mutated, wrong; None if equal.

    Numbers agree within 2e-5 (float32) or 1e-10 (float64) of the largest one: rounding, see reference.TOLERANCES.
    """
    leaves = []
    for path, mine, right in _leaves("", got, want):
        if right is _DIFFERENT:
            return Problem("shape", mine)
        leaves.append((path, mine, right))
    for check in (_dtype, _finite):
        for path, mine, right in leaves:
            if says := check(mine, right):
                return Problem(check.kind, path + says)
    if mutated:
        return Problem("mutated", f"your function changed its input {', '.join(mutated)}: compute into a new array")
    for path, mine, right in leaves:
        if says := _values(mine, right):
            return Problem("wrong", path + says)
    return None


_DIFFERENT = object()


def _leaves(path: str, got, want) -> Iterator[tuple[str, object, object]]:
    """Yield (path, got, want) for every array, number and text; (_, sentence, _DIFFERENT) where the structure differs."""

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
        if not isinstance(got, numbers.Real) and not (isinstance(got, np.ndarray) and got.ndim == 0):
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
        return f"dtype {got.dtype}; needed: {want.dtype} (the values would be {'right' if right else 'wrong too'})"
    if isinstance(want, int) and not isinstance(got, numbers.Integral):
        return f"returned {got!r}, {type(got).__name__}; needed: an integer"
    return None


def _finite(got, want) -> str | None:
    if not isinstance(want, (np.ndarray, float)) or np.asarray(want).dtype.kind != "f":
        return None
    bad = ~np.isfinite(got) & np.isfinite(want)
    if not bad.any():
        return None
    index = np.unravel_index(np.argmax(bad), bad.shape)
    return f"{np.asarray(got)[index]} at {_at(index)}; needed: {np.asarray(want)[index]:.6g}"


def _values(got, want) -> str | None:
    if not isinstance(want, (np.ndarray, numbers.Real)):
        return None if got == want else f"yours {got!r:.80}, right {want!r:.80}"
    mine, right = np.asarray(got), np.asarray(want)
    with np.errstate(invalid="ignore"):
        same = (mine == right) | (mine != mine) & (right != right)  # inf is inf; nan, in the gallery only, is nan
        far = np.where(same, 0.0, np.abs(mine.astype(np.float64) - right))
    finite = right[np.isfinite(right)]
    tolerance = TOLERANCES.get(right.dtype, 0.0) if isinstance(want, np.ndarray) else EXACT if isinstance(want, float) else 0
    bad = ~(far <= tolerance * float(np.abs(finite).max(initial=0.0)))
    if not bad.any():
        return None
    index = np.unravel_index(np.argmax(bad), bad.shape)
    numbers_ = f"first wrong number at {_at(index)}: " if bad.ndim else ""
    count = f"; {bad.sum():,} of {bad.size:,} differ, by at most {far.max():.3g}" if bad.size > 1 else ""
    return f"{numbers_}yours {mine[index]:.7g}, right {right[index]:.7g}{count}"


def _at(index) -> str:
    return str([int(i) for i in index])


_dtype.kind, _finite.kind = "dtype", "not finite"
