"""Giving memory back to the system without letting go of the arrays in it. (Without Numba: caches
do it, too.)"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache

import numpy as np


def give_back(array: np.ndarray) -> None:
    """Let Linux take the pages of an array whose numbers nobody needs any more: until they are
    written again, they are 0. Its first and last numbers, on pages that others share, stay."""
    if sys.platform == "linux" and array.flags.c_contiguous:
        start = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
        whole = (array.ctypes.data + array.nbytes - start) // mmap.PAGESIZE
        if whole > 0:
            _madvise()(start, whole * mmap.PAGESIZE, mmap.MADV_DONTNEED)


@cache
def _madvise():
    function = ctypes.CDLL(None).madvise
    function.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return function
