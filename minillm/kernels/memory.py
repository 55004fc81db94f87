"""Reaching what arguments cannot carry well: arrays and kernels by their address, and the
processor's clock."""

from __future__ import annotations

import ctypes
import math
import time

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.np.arrayobj import populate_array

from .compile import helper
from .machine_code import COUNTER, interpreted
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


def reshaped(x, shape):
    """The beginning of an array that lies in one piece, in another shape. Numba's own `reshape`
    calls a function of Numba's, without which machine code could not be loaded."""
    return x.reshape(-1)[: math.prod(shape)].reshape(shape)


@becomes(reshaped, lambda x, shape: types.Array(x.dtype, len(shape), "C"))
def _(context, builder, signature, values):
    array = context.make_array(signature.return_type)(context, builder)
    first = context.make_array(signature.args[0])(context, builder, values[0]).data
    pairs = zip(cgutils.unpack_tuple(builder, values[1]), signature.args[1])
    lengths = [context.cast(builder, *pair, types.intp) for pair in pairs]
    itemsize = context.get_abi_sizeof(context.get_data_type(signature.return_type.dtype))
    strides = [context.get_constant(types.intp, itemsize)]
    for length in lengths[:0:-1]:
        strides.insert(0, builder.mul(strides[0], length))
    populate_array(array, first, lengths, strides, strides[-1], meminfo=None)
    return array._getvalue()


@helper
def row_at(address, n, dtype):
    """The array [n] of `dtype` that begins at `address`."""
    return array_at(address, 1, n, dtype)[0]


def call(address, numbers):
    """Call the kernel that begins at an address (machine_code) with a tuple of integers; it returns
    nothing."""
    interpreted[int(address)](*numbers)


@becomes(call, lambda address, numbers: types.none)
def _(context, builder, signature, values):
    address_type, several = signature.args
    pairs = zip([values[0], *cgutils.unpack_tuple(builder, values[1])], [address_type, *several])
    address, *numbers = (context.cast(builder, *pair, types.int64) for pair in pairs)
    # Numba's functions have two more arguments, for their result and for an exception: none here
    nothing = [cgutils.alloca_once(builder, cgutils.voidptr_t) for _ in range(2)]
    given = [*nothing, *numbers]
    kind = ir.FunctionType(ir.IntType(32), [value.type for value in given])
    builder.call(builder.inttoptr(address, kind.as_pointer()), given)
    return context.get_dummy_value()


def ticks():
    """A counter that grows at a constant rate (`ticks_per_second`): the time-stamp counter where a
    kernel can read it."""
    return time.perf_counter_ns()


@becomes(ticks, lambda: types.int64)
def _(context, builder, signature, values):
    kind = ir.FunctionType(ir.IntType(64), [])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, COUNTER), [])
