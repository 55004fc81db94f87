"""How the threads of a Team keep time inside a kernel: `meet`, and what it is made of."""

from __future__ import annotations

import os

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .compile import helper
from .machine_code import COMPILED
from .memory import ticks
from .threads import (
    ABANDONED,
    ARRIVED,
    CALLS,
    CLOSED,
    ENOUGH,
    LOOKS,
    LOST,
    NAP,
    ROUND,
    STAY,
    TIRED,
)


@intrinsic
def atomic_add(typing_context, array, index, value):
    """array[index] += value as one indivisible act; returns the value before. array: int64 [n]."""

    def build(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        amount = context.cast(builder, values[2], signature.args[2], types.int64)
        return builder.atomic_rmw("add", builder.gep(data, [values[1]]), amount, "seq_cst")

    return types.int64(array, types.intp, value), build


@intrinsic
def atomic_swap(typing_context, array, index, expected, value):
    """array[index] = value if it is `expected`, as one indivisible act; returns whether it was."""

    def build(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        old = builder.cmpxchg(builder.gep(data, [values[1]]), *values[2:], "seq_cst")
        return builder.extract_value(old, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), build


@intrinsic
def atomic_load(typing_context, array, index):
    """array[index], read anew each time and before all that follows: unlike adding 0 it leaves the
    others their copy."""

    def build(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.load_atomic(builder.gep(data, [values[1]]), "acquire", align=8)

    return types.int64(array, types.intp), build


@intrinsic
def nap(typing_context):
    """Sleep for NAP, or for a little longer."""

    def build(context, builder, signature, values):
        name, length = ("usleep", NAP) if os.name == "posix" else ("Sleep", 1)  # Sleep: in ms
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32)])
        builder.call(
            cgutils.get_or_insert_function(builder.module, kind, name), [kind.args[0](length)]
        )
        return context.get_dummy_value()

    return types.none(), build


@helper
def called_again(state, calls):
    """Wait for another call than the `calls` so far; False when none comes for a while."""
    looks = 0
    while atomic_load(state, CALLS) == calls:
        looks += 1
        if looks > STAY:
            atomic_swap(state, CALLS, calls, CLOSED)
    return atomic_load(state, CALLS) != CLOSED


@helper
def meet(state, n):
    """Wait until n threads have come here: the last one opens the door for all."""
    if n == 1:
        return
    this_round = atomic_load(state, ROUND)
    if atomic_add(state, ARRIVED, 1) == n - 1:
        state[ARRIVED] = 0
        if state[LOST] > state[ENOUGH]:
            state[TIRED] = this_round + 1
        atomic_add(state, ROUND, 1)
        return
    looks, began = 0, 0
    while atomic_load(state, ROUND) == this_round and atomic_load(state, ABANDONED) == 0:
        looks += 1
        if looks == LOOKS:
            began = ticks()
        if looks >= LOOKS:
            nap()
    if looks >= LOOKS:
        atomic_add(state, LOST, ticks() - began)


@helper
def tired(state, began):
    """Whether one thread had better go on alone, for those that have just met, since the round in
    which the run began: all of them are told the same."""
    return state[TIRED] > began


@helper
def share(n, thread, threads):
    """A thread's share of n things: first and end."""
    return n * thread // threads, n * (thread + 1) // threads


if not COMPILED:
    # Python threads would have to take turns at every line; one after another needs no meeting. See
    # DecodeStep.
    def meet(state, n):
        """Nothing to wait for with one thread, which is all there is without compiled kernels."""

    def atomic_add(array, index, value):
        """The same: nobody comes between."""
        array[index] += value
        return array[index] - value

    def atomic_load(array, index):
        """The same."""
        return array[index]
