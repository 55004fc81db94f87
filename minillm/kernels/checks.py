"""What fits, looked at before a kernel runs: kernels themselves look at no bounds."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np

FLOATS = np.dtype(np.float32), np.dtype(np.float64)  # the types that kernels are written for


class OutOfRange(ValueError, IndexError):
    """An id without a row: an IndexError, as NumPy has it, and a ValueError, as all that kernels
    refuse."""


def require(**needed) -> None:
    """Raise ValueError unless each array holds real numbers in the shape, and where it matters of
    the dtype, that is named: require(bias=(bias, (C,)), x=(x, (B, T, C), np.float32))."""
    for name, (array, shape, *dtype) in needed.items():
        found = getattr(array, "dtype", None) or np.asarray(array).dtype
        if (
            np.shape(array) != tuple(shape)
            or found.kind not in "fiub"
            or found not in (dtype or [found])
        ):
            kind = str(np.dtype(*dtype)) if dtype else "real numbers"
            raise ValueError(
                f"{name} is {found} {np.shape(array)}; it must be {kind} {tuple(shape)}"
            )


def require_in_place(*read, contiguous: bool = False, **written) -> None:
    """Raise ValueError unless a kernel may change the arrays `written` where they lie: of one
    floating type, writable, and sharing no memory with each other or with those that are `read`."""
    arrays = list(written.values())
    for name, array in written.items():
        if not isinstance(array, np.ndarray) or array.dtype not in FLOATS:
            raise ValueError(f"{name} is changed in place: it must be float32 or float64")
        require(**{name: (array, array.shape, arrays[0].dtype)})
        if not array.flags.behaved or (contiguous and not array.flags.c_contiguous):
            raise ValueError(
                f"{name} is changed in place: it must be writable"
                + ", and lie in one piece, row by row" * contiguous
            )
    overlapping = [*combinations(arrays, 2), *product(arrays, read)]
    if any(np.may_share_memory(*pair) for pair in overlapping):
        raise ValueError(f"{', '.join(written)}: what is changed in place must not overlap")


def row_numbers(ids, n: int, name: str, of: str) -> np.ndarray:
    """ids [...] as int64 from 0 to n - 1; they may count from the end, as in NumPy. Raises
    ValueError."""
    ids = np.asarray(ids)
    if ids.size and ids.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, not {ids.dtype}")
    if ids.size and (ids.min() < -n or ids.max() >= n):
        raise OutOfRange(f"{name} reach from {ids.min()} to {ids.max()}; there are {n} {of}")
    return ids.astype(np.int64, copy=False) % n


def working(x):
    """x as a C-contiguous array of float32 or float64: the types that kernels are written for."""
    x = np.asarray(x)
    if x.dtype not in FLOATS:
        if x.dtype.kind not in "fiub" or (dtype := np.result_type(x, np.float32)) not in FLOATS:
            raise ValueError(f"kernels compute in float32 or float64, not in {x.dtype}")
        x = x.astype(dtype)
    return np.ascontiguousarray(x)
