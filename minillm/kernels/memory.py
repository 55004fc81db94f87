"""Reaching what arguments cannot carry well: arrays by their address, and the processor's clock."""

from __future__ import annotations

import ctypes
import time

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .processor import TRIPLE
from .vectors import becomes


@intrinsic
def as_pointer(typing_context, address):
    """An integer as the pointer that it is."""

    def build(context, builder, signature, values):
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), build


def array_at(address, rows, columns, dtype):
    """The array [rows, columns] of `dtype` that begins at `address` (array.ctypes.data); its owner must be kept alive.

    A model has a hundred arrays: a table of their addresses is one argument, and kernels need not be compiled anew for
    another number of layers.
    """
    n_bytes = int(rows * columns) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * n_bytes).from_address(int(address)), dtype).reshape(rows, columns)


@overload(array_at)
def _(address, rows, columns, dtype):
    return lambda address, rows, columns, dtype: carray(as_pointer(address), (rows, columns), dtype)


def ticks():
    """A counter that grows at a constant rate (`ticks_per_second`): the time-stamp counter where a kernel can read it."""
    return time.perf_counter_ns()


@becomes(ticks, lambda: types.int64)
def _(context, builder, signature, values):
    # On Arm the cycle counter is not for user programs, but the steady one is; LLVM has that only there.
    name = "llvm.readsteadycounter" if "aarch64" in TRIPLE or "arm64" in TRIPLE else "llvm.readcyclecounter"
    return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(64), []), name), [])
