"""Reaching what arguments cannot carry well: arrays and kernels by their address, and the
processor's clock."""

from __future__ import annotations

import ctypes
import time
from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.np.arrayobj import populate_array

from .compile import helper, jit
from .processor import TRIPLE
from .vectors import becomes


def array_at(address, rows, columns, dtype):
    """The array [rows, columns] of `dtype` that begins at `address` (array.ctypes.data); its owner
    must be kept alive.

    A model has a hundred arrays: a table of their addresses is one argument, and kernels need not
    be compiled anew for another number of layers.
    """
    n_bytes = int(rows * columns) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * n_bytes).from_address(int(address)), dtype).reshape(
        rows, columns
    )


@becomes(array_at, lambda address, rows, columns, dtype: types.Array(dtype.dtype, 2, "C"))
def _(context, builder, signature, values):
    array = context.make_array(signature.return_type)(context, builder)
    address, rows, columns = (
        context.cast(builder, *pair, types.intp) for pair in zip(values[:3], signature.args)
    )
    itemsize = context.get_constant(
        types.intp, context.get_abi_sizeof(context.get_data_type(signature.return_type.dtype))
    )
    strides = builder.mul(columns, itemsize), itemsize
    populate_array(
        array,
        builder.inttoptr(address, array.data.type),
        (rows, columns),
        strides,
        itemsize,
        meminfo=None,
    )
    return array._getvalue()


@helper
def row_at(address, n, dtype):
    """The array [n] of `dtype` that begins at `address`."""
    return array_at(address, 1, n, dtype)[0]


_interpreted = {}  # where kernels are not compiled: id -> function


@cache
def kernel_at(kernel) -> int:
    """Where the machine code of a kernel begins, for `call`; kernel: an `entry`, all of whose
    arguments are integers.

    What is called by its address is compiled by itself, once; called by its name it would be
    compiled anew as a part of every kernel that calls it.
    """
    if not hasattr(kernel, "overloads"):  # NUMBA_DISABLE_JIT
        _interpreted[id(kernel)] = kernel
        return id(kernel)
    signature = (types.int64,) * kernel.py_func.__code__.co_argcount
    kernel.compile(signature)
    compiled = kernel.overloads[signature]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)


def call(address, numbers):
    """Call the kernel that begins at an address (`kernel_at`) with a tuple of integers; it returns
    nothing."""
    _interpreted[int(address)](*numbers)


@becomes(call, lambda address, numbers: types.none)
def _(context, builder, signature, values):
    address_type, several = signature.args
    pairs = zip([values[0], *cgutils.unpack_tuple(builder, values[1])], [address_type, *several])
    address, *numbers = (context.cast(builder, *pair, types.int64) for pair in pairs)
    kind = ir.FunctionType(cgutils.voidptr_t, [number.type for number in numbers])
    builder.call(builder.inttoptr(address, kind.as_pointer()), numbers)
    return context.get_dummy_value()


def ticks():
    """A counter that grows at a constant rate (`ticks_per_second`): the time-stamp counter where a
    kernel can read it."""
    return time.perf_counter_ns()


@becomes(ticks, lambda: types.int64)
def _(context, builder, signature, values):
    # On Arm the cycle counter is not for user programs, but the steady one is; LLVM has that only
    # there.
    name = (
        "llvm.readsteadycounter"
        if "aarch64" in TRIPLE or "arm64" in TRIPLE
        else "llvm.readcyclecounter"
    )
    return builder.call(
        cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(64), []), name),
        [],
    )


@jit
def now():
    """The ticks of this moment."""
    return ticks()
