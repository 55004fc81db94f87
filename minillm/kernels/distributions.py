"""Scores as probabilities, along the last axis: twins of those in ops.py, by kernels that are
called by their address, so that to choose a token needs no Numba."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

from . import machine_code
from .addresses import kernel_at
from .checks import FLOATS, working
from .threads import in_parallel

NAMES = {dtype: dtype.name for dtype in FLOATS}


@cache
def kernel_for(name: str, dtype: str):
    """The kernel that writes n rows of `width` numbers from one address to another:
    kernel(x_at, y_at, n, width)."""
    return machine_code.function(kernel_at(name, dtype), 4)


def on_every_row(name: str, x):
    """Call a kernel on shares of x's rows along the last axis; the result has the shape of x."""
    if np.ndim(x) == 0:
        raise ValueError("x is a single number; it must have rows along its last axis")
    x = working(x)
    y, kernel = np.empty_like(x), kernel_for(name, NAMES[x.dtype])
    if x.ndim == 1 and x.size:  # one row, as of the next token, is not shared out
        kernel(address(x), address(y), 1, x.size)
        return y
    n, width = x.reshape(-1, x.shape[-1]).shape
    x_at, y_at, row = address(x), address(y), width * x.itemsize

    def work(part: slice) -> None:
        start = part.start * row
        kernel(x_at + start, y_at + start, part.stop - part.start, width)

    in_parallel(work, n, cost=20 * x.size)
    return y


def address(array) -> int:
    """array.ctypes.data, which takes three times as long, of an array in one piece."""
    if array.size and array.flags.writeable:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    return array.ctypes.data


def softmax(x):
    """Turn scores into probabilities along the last axis: exp(x_i) / sum_j exp(x_j). x: [..., N] ->
    [..., N]."""
    return on_every_row("softmax", x)


def log_softmax(x):
    """Return the logarithm of softmax(x): x_i - log(sum_j exp(x_j)). x: [..., N] -> [..., N]."""
    return on_every_row("log_softmax", x)
