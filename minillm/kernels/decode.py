"""The fused step: a whole model for one new position, or for hundreds, in one call of one kernel.

The second of the two forwards; the readable one is the family's, and tests hold both equal. New
positions may be of one text (a chunk of the prompt, guesses to verify) or of several (a batch): one
or the other, each knows its own place in the cache. What is computed is the family's program
(program.py), kept as a table of numbers: what an instruction does is a kernel that is called by its
address, and where its arrays are stands beside it. All threads run `decode_kernel` side by side on
a workspace made beforehand. Each owns a share of every product's outputs and of the heads; what is
cheap (norms, rounding a product's input to 8 bits) every thread does for itself, because that is
faster than waiting for another to do it. So a block of GPT-2 has five places where all must `meet`.
"""

from __future__ import annotations

import math
import os
import threading
from enum import IntEnum
from itertools import accumulate, count
from operator import add
from weakref import WeakSet

import numpy as np

from .checks import require, row_numbers
from .compile import entry, helper, jit
from .mathematics import exp
from .matrices import flat_panels
from .memory import array_at, call, kernel_at, row_at, ticks
from .processor import HAS_HALVES
from .products import (
    BLOCK_ROOM,
    float_matmul,
    float_matvec,
    int4_matmul,
    int4_matvec,
    int8_matmul,
    int8_matvec,
    quantize,
)
from .program import Instruction, Program
from .rows import normalize_row, rms_normalize_row
from .streaming import KEYS, QUERIES, attend, in_tiles, pack_tile, room_for_tiles
from .threads import STATE, Team, atomic_add, called_again, meet, threads_now
from .vectors import larger, stored_like


class Row(IntEnum):
    """The columns of the table, an instruction a row. Kernels and arrays are addresses, 0 where
    there is none; an array of rows has its width beside it."""

    NORM = 0  # the kernel of the norm
    NORM_NUMBERS = 1  # its weights, biases and epsilon, one after another
    PRODUCT = 2  # the kernel of the product
    THEN = 3  # the kernel of what comes after it
    MEET = 4  # 1: all threads meet at last
    LOGITS = 5  # 1: only for positions whose logits are wanted
    PANELS = 6  # of 16 outputs each; of attention: key-value heads. The threads share these
    FROM = 7  # the rows to be multiplied; 0: those last normed, in the thread's own room
    FROM_WIDTH = 8
    TO = 9  # where the products go, or what attention gathers
    TO_WIDTH = 10
    INPUTS = 11
    WIDTH = 12  # numbers in a panel
    VALUES = 13
    SCALES = 14
    BIAS = 15
    MINIMA = 16
    ACTIVATION = 17  # the kernel that THEN calls, if it is an activation
    GATE = 18  # the rows that are activated instead of the products, as wide as these
    LAYER = 19  # of attention: the number of the layer; queries are at FROM
    KEYS_FROM = 20
    KEYS_WIDTH = 21
    VALUES_FROM = 22
    VALUES_WIDTH = 23
    QUERY_NORM = 24  # weights and epsilon of the norm of each query, one after another
    KEY_NORM = 25


class Job(IntEnum):
    """What instructions share: first what is the same at every call, then the call's own."""

    X = 0  # the residual stream [R,C]
    WIDTH = 1  # C
    NORMED_WIDTH = 2  # of the rows in a thread's own room
    HEADS = 3  # H
    KEY_HEADS = 4  # K
    HEAD_DIM = 5  # D
    HEAD_SCALES = 6  # float32, one for each layer
    COSINES = 7  # [positions,D/2], of the rotation of queries and keys; 0: none
    SINES = 8
    THREADS = 9
    STATE = 10  # the team's, for meetings
    PARTS = 11  # room for what is found in stretches of the context
    ROWS = 12  # R, new positions
    KEPT = 13  # of these the ones whose logits are wanted
    ATTEND = 14  # the kernel of attention for the cache's type
    CAPACITY = 15  # places in a row of the cache
    LAYER_BYTES = 16  # from one layer's keys to the next layer's
    HEAD_BYTES = 17  # from one head's keys to the next head's
    TILES = 18  # room for the keys and values of one layer in tiles, where attention uses them
    NOT_FINITE = 19  # 1: numbers that are not finite were to be put into blocks


class Place(IntEnum):
    """Of each new position."""

    KEYS_AT = 0  # where its row of the cache begins
    VALUES_AT = 1
    POSITION = 2
    FILLED = 3  # how many places of its row are, after this pass
    KEEP = 4  # apart from that: the number of the r-th whose logits are wanted


class Room(IntEnum):
    """A thread's own room."""

    NORMED = 0  # the rows last normed
    Q = 1  # a product's rows in blocks of 8 bits
    Q_SCALES = 2
    Q_SUMS = 3
    SCORES = 4  # of one query
    READY = 5  # one query, or one key, normed and turned
    THREAD = 6  # its number
    ROUNDED = 7  # which rows are in blocks
    QUERIES = 8  # one head's of a few positions, normed and turned
    TILE_ROOM = 9  # see streaming.in_tiles
    PANEL = 10  # see products.int4_matmul


FEW = 32  # positions up to which a pass is a matter of microseconds, and waiting, too
SHARES = 4  # of a product for each thread, where there are more
LONG = 256  # places of a context from which heads are cut, so that all threads have as much to do
ROW, JOB, PLACE, ROOM = (len(columns) for columns in (Row, Job, Place, Room))
NOT_FINITE = int(Job.NOT_FINITE)


# ---- what the table calls by its address: each kernel is compiled when a model first needs it. All
# are told where their row of the table is, the thread's share of its panels (first to end), the
# number of new positions R, and where the job, the places and the thread's room are.


@entry
def layer_norm(at_row, first, end, R, at_job, at_places, at_room):
    """Norm R rows of the residual stream into the thread's room."""
    weight, bias, eps, x, normed = norm_arrays(at_row, R, at_job, at_room)
    for r in range(R):
        row = x[norm_source(at_row, r, R, at_places)]
        normalize_row(row, weight, bias, eps, normed[r, : row.shape[0]])


@entry
def rms_norm(at_row, first, end, R, at_job, at_places, at_room):
    """The same without mean and bias."""
    weight, _, eps, x, normed = norm_arrays(at_row, R, at_job, at_room)
    for r in range(R):
        row = x[norm_source(at_row, r, R, at_places)]
        rms_normalize_row(row, weight, eps, normed[r, : row.shape[0]])


@helper
def norm_arrays(at_row, R, at_job, at_room):
    """Weights [C], biases [C], epsilon; the residual stream, and where its norm goes [R, C or
    more]."""
    row, job = row_at(at_row, ROW, np.int64), row_at(at_job, JOB, np.int64)
    room, C = row_at(at_room, ROOM, np.int64), job[Job.WIDTH]
    room[Room.ROUNDED] = 0
    numbers = row_at(row[Row.NORM_NUMBERS], 2 * C + 1, np.float32)
    x = array_at(job[Job.X], job[Job.ROWS], C, np.float32)
    normed = array_at(room[Room.NORMED], R, job[Job.NORMED_WIDTH], np.float32)
    return numbers[:C], numbers[C : 2 * C], numbers[2 * C], x, normed


@helper
def norm_source(at_row, r, R, at_places):
    """Which row of the residual stream is the r-th to be normed."""
    logits = row_at(at_row, ROW, np.int64)[Row.LOGITS]
    return array_at(at_places, R, PLACE, np.int64)[r, Place.KEEP] if logits else r


def float_product(dtype):
    """The product for matrices of float32, of bfloat16 as uint16, or of float16 as int16."""

    @entry
    def product(at_row, first, end, R, at_job, at_places, at_room):
        """The thread's panels of y = h W + bias, for R rows."""
        row, h = product_inputs(at_row, R, at_room)
        panels = array_at(row[Row.VALUES], row[Row.PANELS], row[Row.WIDTH], dtype)[first:end]
        bias, y = bias_and_outputs(row, R)
        if R == 1:
            float_matvec(panels, h[0, : row[Row.INPUTS]], bias, y[0], 16 * first)
        else:
            float_matmul(panels, h, bias, y, 16 * first)

    return product


@entry
def int8_product(at_row, first, end, R, at_job, at_places, at_room):
    """The same for blocks of 8 bits; the rows are rounded to 8 bits first."""
    row, h = product_inputs(at_row, R, at_room)
    values, w_scales = stored_blocks(row, first, end)
    q, scales, sums = rounded(h, at_row if row[Row.FROM] else 1, at_job, at_room)
    bias, y = bias_and_outputs(row, R)
    if R == 1:
        int8_matvec(values, w_scales, q[0], scales[0], sums[0], bias, y[0], 16 * first)
    else:
        int8_matmul(values, w_scales, q, scales, sums, bias, y, 16 * first)


def int4_product(minima_of):
    """The same for blocks of 4 bits, with or without minima."""

    @entry
    def product(at_row, first, end, R, at_job, at_places, at_room):
        """The thread's panels of y = h W + bias, for R rows."""
        row, h = product_inputs(at_row, R, at_room)
        values, w_scales = stored_blocks(row, first, end)
        minima = minima_of(row, first, end, w_scales.shape[1])
        q, scales, sums = rounded(h, at_row if row[Row.FROM] else 1, at_job, at_room)
        bias, y = bias_and_outputs(row, R)
        if R == 1:
            int4_matvec(values, w_scales, minima, q[0], scales[0], sums[0], bias, y[0], 16 * first)
        else:
            room = row_at(at_room, ROOM, np.int64)
            panel = row_at(room[Room.PANEL], BLOCK_ROOM * scales.shape[1], np.int32)
            int4_matmul(values, w_scales, minima, q, scales, sums, bias, y, 16 * first, panel)

    return product


@helper
def minima_of(row, first, end, width):
    """Minima of panels first to end, float16 as int16 [P, 16 B]."""
    return array_at(row[Row.MINIMA], row[Row.PANELS], width, np.int16)[first:end]


@helper
def no_minima(row, first, end, width):
    """Nothing."""
    return None


@helper
def product_inputs(at_row, R, at_room):
    """The instruction; the rows to be multiplied [R, inputs or more]."""
    row, room = row_at(at_row, ROW, np.int64), row_at(at_room, ROOM, np.int64)
    source = row[Row.FROM] if row[Row.FROM] else room[Room.NORMED]
    return row, array_at(source, R, row[Row.FROM_WIDTH], np.float32)


@helper
def share(n, thread, threads):
    """A thread's share of n things: first and end."""
    return n * thread // threads, n * (thread + 1) // threads


@helper
def stored_blocks(row, first, end):
    """Panels first to end: values uint8 [P, all of a panel], and their scales, float16 as int16 [P,
    16 B]."""
    values = array_at(row[Row.VALUES], row[Row.PANELS], row[Row.WIDTH], np.uint8)
    scales = array_at(row[Row.SCALES], row[Row.PANELS], row[Row.FROM_WIDTH] // 2, np.int16)
    return values[first:end], scales[first:end]


@helper
def rounded(h, which, at_job, at_room):
    """Rows [R,32 B] in blocks of 8 bits, in a thread's room: q, four numbers to an int32 [R,8 B];
    scales and sums [R,B]. which: 1 for those last normed, which go into several products, else
    whose: the same are rounded once."""
    room, R, blocks = row_at(at_room, ROOM, np.int64), h.shape[0], h.shape[1] // 32
    n = R * blocks
    scales = row_at(room[Room.Q_SCALES], n, np.float32)
    sums = row_at(room[Room.Q_SUMS], n, np.int32)
    if room[Room.ROUNDED] != which:
        if not quantize(h.reshape((n, 32)), array_at(room[Room.Q], n, 32, np.int8), scales, sums):
            row_at(at_job, JOB, np.int64)[Job.NOT_FINITE] = 1
        room[Room.ROUNDED] = which
    q = array_at(room[Room.Q], R, 8 * blocks, np.int32)
    return q, scales.reshape((R, blocks)), sums.reshape((R, blocks))


@helper
def bias_and_outputs(row, R):
    """Where the sums start, [all outputs], and where they go, [R, all outputs or more]."""
    bias = row_at(row[Row.BIAS], 16 * row[Row.PANELS], np.float32)
    return bias, array_at(row[Row.TO], R, row[Row.TO_WIDTH], np.float32)


@entry
def residual(at_row, first, end, R, at_job, at_places, at_room):
    """The residual stream takes up the thread's products."""
    row, job = row_at(at_row, ROW, np.int64), row_at(at_job, JOB, np.int64)
    x = array_at(job[Job.X], R, job[Job.WIDTH], np.float32)
    y = array_at(row[Row.TO], R, row[Row.TO_WIDTH], np.float32)
    for r in range(R):
        mine, change = x[r, 16 * first : 16 * end], y[r, 16 * first : 16 * end]
        for c in range(mine.shape[0]):
            mine[c] += change[c]


@entry
def activate(at_row, first, end, R, at_job, at_places, at_room):
    """The activation of the thread's products, in place; or the gate's, times the products."""
    row = row_at(at_row, ROW, np.int64)
    y = array_at(row[Row.TO], R, row[Row.TO_WIDTH], np.float32)
    source = row[Row.GATE] if row[Row.GATE] else row[Row.TO]
    activated = array_at(source, R, row[Row.TO_WIDTH], np.float32)
    for r in range(R):
        mine, factor = y[r, 16 * first : 16 * end], activated[r, 16 * first : 16 * end]
        call(row[Row.ACTIVATION], (factor.ctypes.data, 16 * (end - first)))
        if row[Row.GATE]:
            for c in range(mine.shape[0]):
                mine[c] *= factor[c]


@entry
def gelu_new(x_at, n):
    """The activation of n numbers, in place."""
    x, slope, cubic = (
        row_at(x_at, n, np.float32),
        np.float32(-2.0 * math.sqrt(2.0 / math.pi)),
        np.float32(0.044715),
    )
    for i in range(n):
        y = x[i] / (np.float32(1) + exp(slope * (x[i] + cubic * (x[i] * x[i] * x[i]))))
        x[i] = y if x[i] != -np.inf else np.float32(np.nan)  # as 0 times infinity


@entry
def gelu(x_at, n):
    """The same with erf."""
    x = row_at(x_at, n, np.float32)
    for i in range(n):
        x[i] = (
            np.float32(0.5) * x[i] * (np.float32(1) + math.erf(x[i] * np.float32(math.sqrt(0.5))))
        )


@entry
def relu(x_at, n):
    """The same with a corner."""
    x = row_at(x_at, n, np.float32)
    for i in range(n):
        x[i] = np.float32(0) if x[i] <= 0 else x[i]  # NaN stays


@entry
def silu(x_at, n):
    """The same with the logistic function: x / (1 + exp(-x))."""
    x = row_at(x_at, n, np.float32)
    for i in range(n):
        y = x[i] / (np.float32(1) + exp(-x[i]))
        x[i] = y if x[i] != -np.inf else np.float32(np.nan)  # as infinity by infinity


@entry
def attention(at_row, first, end, R, at_job, at_places, at_room):
    """Attention, by the kernel for the type of this call's cache."""
    job = row_at(at_job, JOB, np.int64)
    call(job[Job.ATTEND], (at_row, first, end, R, at_job, at_places, at_room))


def cached_attention(dtype):
    """Attention for a cache of float32, or of float16 as int16."""

    @entry
    def attention(at_row, first, end, R, at_job, at_places, at_room):
        """The thread's key-value heads of one layer, for every new position: put key and value into
        the cache, then let the queries that share them attend.

        Where heads are fewer than threads, or long contexts would give some thread a head more,
        contexts are cut into stretches: a thread has its part of all heads' contexts side by side,
        and writes the keys that lie there, and reads no others.
        """
        row, job = row_at(at_row, ROW, np.int64), row_at(at_job, JOB, np.int64)
        room, places = row_at(at_room, ROOM, np.int64), array_at(at_places, R, PLACE, np.int64)
        H, K, D, S = job[Job.HEADS], job[Job.KEY_HEADS], job[Job.HEAD_DIM], job[Job.CAPACITY]
        thread, threads, group, layer = room[Room.THREAD], job[Job.THREADS], H // K, row[Row.LAYER]
        scale = row_at(job[Job.HEAD_SCALES], layer + 1, np.float32)[layer]
        queries = array_at(row[Row.FROM], R, row[Row.FROM_WIDTH], np.float32)
        new_keys = array_at(row[Row.KEYS_FROM], R, row[Row.KEYS_WIDTH], np.float32)
        new_values = array_at(row[Row.VALUES_FROM], R, row[Row.VALUES_WIDTH], np.float32)
        context = array_at(row[Row.TO], R, row[Row.TO_WIDTH], np.float32)
        parts = array_at(job[Job.PARTS], threads * R * H, D + 2, np.float32)
        in_stretches = threads > K
        if K % threads:
            for r in range(R):
                if places[r, Place.FILLED] >= LONG:
                    in_stretches = True
        if in_stretches:
            end = (K * (thread + 1) - 1) // threads + 1
        for head in range(first, end):
            there = layer * job[Job.LAYER_BYTES] + head * job[Job.HEAD_BYTES]
            # all new keys and values first: a position may be seen by the one after it
            for r in range(R):
                position = places[r, Place.POSITION]
                place = position % S
                filled = places[r, Place.FILLED]
                start, stop = stretch(filled, head, K, thread, threads, in_stretches)
                if start <= place < stop:
                    key = array_at(places[r, Place.KEYS_AT] + there, S, D, dtype)[place]
                    value = array_at(places[r, Place.VALUES_AT] + there, S, D, dtype)[place]
                    new_key = new_keys[r, head * D : (head + 1) * D]
                    new_value = new_values[r, head * D : (head + 1) * D]
                    new_key = ready(new_key, row[Row.KEY_NORM], position, job, room)
                    for d in range(D):
                        key[d] = stored_like(new_key[d], key[d])
                        value[d] = stored_like(new_value[d], value[d])
            for r in range(R):
                position = places[r, Place.POSITION]
                filled = places[r, Place.FILLED]
                start, stop = stretch(filled, head, K, thread, threads, in_stretches)
                stop = min(stop, position + 1)
                keys = array_at(places[r, Place.KEYS_AT] + there, stop, D, dtype)[start:]
                values = array_at(places[r, Place.VALUES_AT] + there, stop, D, dtype)[start:]
                scores = row_at(room[Room.SCORES], max(stop - start, 0), np.float32)
                for h in range(head * group, (head + 1) * group):
                    query = queries[r, h * D : (h + 1) * D]
                    query = ready(query, row[Row.QUERY_NORM], position, job, room)
                    if not in_stretches:
                        attend(query, keys, values, scale, scores, context[r, h * D : (h + 1) * D])
                    else:
                        part = parts[(thread * R + r) * H + h]
                        part[D], part[D + 1] = -np.inf, 0
                        if start < stop:
                            part[D], part[D + 1] = attend(
                                query, keys, values, scale, scores, part[:D]
                            )
        if in_stretches:
            meet(row_at(job[Job.STATE], STATE, np.int64), threads)
            merge(parts, context, thread, R, job)

    return attention


@helper
def stretch(filled, head, K, thread, threads, in_stretches):
    """The places of a head's context that are the thread's: all, or its part where K heads side by
    side are cut into one part for each thread."""
    start, stop = 0, filled
    if in_stretches:
        start = filled * max(K * thread - threads * head, 0) // threads
        stop = filled * min(K * (thread + 1) - threads * head, threads) // threads
    return start, stop


size_of_room = helper(room_for_tiles)


def attention_in_tiles(dtype):
    """The same for many positions of one text."""

    @entry
    def attention(at_row, first, end, R, at_job, at_places, at_room):
        """Attention of one layer in three acts: keys and values into the cache, then all that there
        are into tiles, then blocks of queries by tiles. The threads share positions, tiles, and
        blocks."""
        row, job = row_at(at_row, ROW, np.int64), row_at(at_job, JOB, np.int64)
        room, places = row_at(at_room, ROOM, np.int64), array_at(at_places, R, PLACE, np.int64)
        H, K, D = job[Job.HEADS], job[Job.KEY_HEADS], job[Job.HEAD_DIM]
        thread, threads, layer = room[Room.THREAD], job[Job.THREADS], row[Row.LAYER]
        state, filled = row_at(job[Job.STATE], STATE, np.int64), places[0, Place.FILLED]
        scale = row_at(job[Job.HEAD_SCALES], layer + 1, np.float32)[layer]
        queries = array_at(row[Row.FROM], R, row[Row.FROM_WIDTH], np.float32)
        new_keys = array_at(row[Row.KEYS_FROM], R, row[Row.KEYS_WIDTH], np.float32)
        new_values = array_at(row[Row.VALUES_FROM], R, row[Row.VALUES_WIDTH], np.float32)
        context = array_at(row[Row.TO], R, row[Row.TO_WIDTH], np.float32)
        first, end = share(R, thread, threads)
        for head in range(K):
            there = layer * job[Job.LAYER_BYTES] + head * job[Job.HEAD_BYTES]
            keys = array_at(places[0, Place.KEYS_AT] + there, filled, D, dtype)
            values = array_at(places[0, Place.VALUES_AT] + there, filled, D, dtype)
            for r in range(first, end):
                position, columns = places[r, Place.POSITION], slice(head * D, (head + 1) * D)
                new_value = new_values[r, columns]
                new_key = ready(new_keys[r, columns], row[Row.KEY_NORM], position, job, room)
                key, value = keys[position], values[position]
                for d in range(D):
                    key[d] = stored_like(new_key[d], key[d])
                    value[d] = stored_like(new_value[d], value[d])
        meet(state, threads)
        n, panels = (filled + KEYS - 1) // KEYS, (D + 15) // 16
        key_size, value_size = KEYS * D, panels * 16 * KEYS
        key_tiles = array_at(job[Job.TILES], K * n, key_size, np.float32)
        value_tiles = array_at(job[Job.TILES] + 4 * K * n * key_size, K * n, value_size, np.float32)
        for i in range(thread, K * n, threads):
            there = layer * job[Job.LAYER_BYTES] + i // n * job[Job.HEAD_BYTES]
            keys = array_at(places[0, Place.KEYS_AT] + there, filled, D, dtype)
            values = array_at(places[0, Place.VALUES_AT] + there, filled, D, dtype)
            these = slice(i % n * KEYS, (i % n + 1) * KEYS)
            pack_tile(
                keys[these],
                values[these],
                key_tiles[i].reshape((KEYS // 16, 16 * D)),
                value_tiles[i].reshape((panels, 16 * KEYS)),
            )
        meet(state, threads)
        blocks = (R + QUERIES - 1) // QUERIES
        tile_room = row_at(room[Room.TILE_ROOM], size_of_room(D), np.float32)
        for i in range(H * blocks):
            h, start = i // blocks, i % blocks * QUERIES
            if (h + i) % threads != thread:  # later blocks see more: each thread has some of both
                continue
            rows, columns = slice(start, min(start + QUERIES, R)), slice(h * D, (h + 1) * D)
            block = array_at(room[Room.QUERIES], rows.stop - start, D, np.float32)
            for r in range(start, rows.stop):
                position, query = places[r, Place.POSITION], queries[r, columns]
                query = ready(query, row[Row.QUERY_NORM], position, job, room)
                for d in range(D):
                    block[r - start, d] = query[d]
            these = slice(h // (H // K) * n, (h // (H // K) + 1) * n)
            in_tiles(
                block,
                places[rows, Place.POSITION],
                key_tiles[these].reshape((n, KEYS // 16, 16 * D)),
                value_tiles[these].reshape((n, panels, 16 * KEYS)),
                filled,
                scale,
                context[rows, columns],
                tile_room,
            )

    return attention


@helper
def ready(x, at_norm, position, job, room):
    """A head's numbers [D], normed and turned where the model does so."""
    if at_norm:
        x = normed(x, at_norm, room)
    if job[Job.COSINES]:
        x = rotated(x, position, job, room)
    return x


@helper
def normed(x, at_numbers, room):
    """The rms_norm of a head's numbers [D], in the thread's room."""
    D = x.shape[0]
    numbers, y = row_at(at_numbers, D + 1, np.float32), row_at(room[Room.READY], D, np.float32)
    rms_normalize_row(x, numbers[:D], numbers[D], y)
    return y


@helper
def rotated(x, position, job, room):
    """A head's numbers [D], turned by the angles of its position, in the thread's room, where they
    may be already."""
    half = x.shape[0] // 2
    cosines = row_at(job[Job.COSINES] + 4 * half * position, half, np.float32)
    sines = row_at(job[Job.SINES] + 4 * half * position, half, np.float32)
    y = row_at(room[Room.READY], 2 * half, np.float32)
    for i in range(half):
        a, b = x[i], x[half + i]
        y[i] = a * cosines[i] - b * sines[i]
        y[half + i] = b * cosines[i] + a * sines[i]
    return y


@helper
def merge(parts, context, thread, R, job):
    """The thread's share of context [R, H D or more], from what all found in their stretches.

    parts: [threads * R * H, D + 2]; of a stretch its context, m, the largest score, and the sum of
    exp(score - m), which times exp(m - the largest m) is the weight of the stretch.
    """
    H, K, D = job[Job.HEADS], job[Job.KEY_HEADS], job[Job.HEAD_DIM]
    threads = job[Job.THREADS]
    first, end = share(R * H, thread, threads)
    for i in range(first, end):
        r, h = i // H, i % H
        head, out = h // (H // K), context[r, h * D : (h + 1) * D]
        from_thread, to_thread = threads * head // K, (threads * (head + 1) - 1) // K + 1
        m, total = np.float32(-np.inf), np.float32(0)
        for t in range(from_thread, to_thread):
            m = larger(m, parts[(t * R + r) * H + h, D])
        for d in range(D):
            out[d] = 0
        for t in range(from_thread, to_thread):
            part = parts[(t * R + r) * H + h]
            if part[D] != -np.inf or m == -np.inf:  # else all of it weighs nothing
                weight = part[D + 1] * exp(part[D] - m)
                total += weight
                for d in range(D):
                    out[d] += weight * part[d]
        for d in range(D):
            out[d] /= total


NORMS = {"layer_norm": layer_norm, "rms_norm": rms_norm}
PRODUCTS = {
    "float32": float_product(np.float32),
    "bfloat16": float_product(np.uint16),
    "float16": float_product(np.int16),
    "int8": int8_product,
    "int4": int4_product(no_minima),
    "int4_min": int4_product(minima_of),
}
ACTIVATIONS = {"gelu_new": gelu_new, "gelu": gelu, "relu": relu, "silu": silu}
THEN = {"attend": attention, "residual": residual, **dict.fromkeys(ACTIVATIONS, activate)}
HALVES = {np.dtype(np.float32): np.float32, np.dtype(np.float16): np.int16}
ATTENTION = {dtype: cached_attention(kept) for dtype, kept in HALVES.items()}
IN_TILES = {dtype: attention_in_tiles(kept) for dtype, kept in HALVES.items()}


# ---- the step


@jit
def decode_kernel(thread, threads, state, stamps, table, job, places, room, taken):
    """From the embedded tokens to the logits. Run by every thread at once; DecodeStep makes the
    arguments.

    table: [instructions, 26], see Row; job: see Job; places: [R, 5], see Place; this thread's own
    room: see Room. taken: [instructions], where there are many rows how many shares of each one's
    product have been taken: a thread that is free takes the next, so that the others need not wait
    for one that the system has put aside. Then all meet after each.
    """
    calls, again = 0, True
    while again:
        n = stamp(stamps, 0, thread)
        room[Room.ROUNDED] = 0
        for i in range(table.shape[0]):
            row = table[i]
            R = job[Job.KEPT] if row[Row.LOGITS] else job[Job.ROWS]
            in_turn = R > FEW and row[Row.PRODUCT] != 0
            part, parts = thread, threads
            if row[Row.NORM]:
                perform(row, row[Row.NORM], 0, 0, R, job, places, room)
                n = stamp(stamps, n, thread)
            if in_turn:
                parts = SHARES * threads
                part = atomic_add(taken, i, 1)
            while part < parts:
                first, end = share(row[Row.PANELS], part, parts)
                if row[Row.PRODUCT]:
                    perform(row, row[Row.PRODUCT], first, end, R, job, places, room)
                if row[Row.THEN]:
                    perform(row, row[Row.THEN], first, end, R, job, places, room)
                part = atomic_add(taken, i, 1) if in_turn else parts
            if in_turn or row[Row.MEET]:
                meet(state, threads)
            if row[Row.MEET]:
                n = stamp(stamps, n, thread)
        again = thread > 0 and called_again(state, calls)  # the first thread takes the logits home
        calls += 1


@helper
def perform(row, kernel, first, end, R, job, places, room):
    """Call a kernel of the table."""
    at_job, at_places, at_room = job.ctypes.data, places.ctypes.data, room.ctypes.data
    call(kernel, (row.ctypes.data, first, end, R, at_job, at_places, at_room))


@helper
def stamp(stamps, n, thread):
    """Write down when step n was finished (the first thread keeps the book); returns the next
    step's number."""
    if thread == 0:
        stamps[n] = ticks()
    return n + 1


class DecodeStep:
    """A model for at most MOST new positions at a time, of several texts at once at most FEW if any
    has more than one: step(ids [B,T], cache) -> logits [B,T,V].

    program: the family's; every matrix is a Weight of a kind in PRODUCTS, everything else float32.
    `stamps` holds the `ticks` at which each of `names` was finished in the last call.
    """

    MOST = 512
    # the dtypes of a KVCache that it can use
    caches = tuple(ATTENTION) if HAS_HALVES else (np.dtype(np.float32),)

    def __init__(self, program: Program):
        if refusal := self.refusal(program):
            raise ValueError(refusal)
        widths, sizes = program.check(), program.sizes
        self.program, self.names = program, program.stamps
        self.stamps = np.zeros(len(self.names), np.int64)
        # Tables hold addresses: arrays are kept alive. Rows have room for whole blocks of 32;
        # what lies beyond the inputs stays zero. Memory that is never written is never taken.
        self._kept_alive = []
        self._widths = {name: -(-width // 32) * 32 for name, width in widths.items()}
        self._buffers = dict.fromkeys(self._widths, 0)
        for name in self._widths.keys() - {"", "logits"}:
            self._buffers[name] = self._at(np.zeros((self.MOST, self._widths[name]), np.float32))
        self._table = np.zeros((len(program.instructions), ROW), np.int64)
        layers = count()
        for row, step in zip(self._table, program.instructions):
            self._fill(row, step, layers)
        self._x = np.zeros((self.MOST, sizes.C), np.float32)
        self._places = np.zeros((self.MOST, PLACE), np.int64)
        self._taken = np.zeros(len(self._table), np.int64)
        self._job = np.zeros(JOB, np.int64)
        # What a call changes, as views: an enumeration's member costs Python 0.2 us
        self._call, self._logits_at = self._job[Job.ROWS :], self._table[-1:, Row.TO]
        self._rows_at, self._keep = self._places[:, : Place.KEEP], self._places[:, Place.KEEP]
        self._logits_width = int(self._table[-1, Row.TO_WIDTH])
        self._job[: Job.COSINES] = (
            self._x.ctypes.data,
            sizes.C,
            self._widths[""],
            sizes.H,
            sizes.K,
            sizes.D,
            self._at(np.array(program.scales, np.float32)),
        )
        self._turned = range(0)  # positions for which there are cosines and sines
        self._tiles = np.empty(0, np.float32)
        self._one_at_a_time = threading.Lock()  # there is one workspace
        self._team, self._rooms = Team(0), []
        _steps.add(self)

    def _at(self, array) -> int:
        """The address of an array, which is kept alive; 0 where it is empty, or None."""
        self._kept_alive.append(array)
        return array.ctypes.data if array is not None and array.size else 0

    def _turn(self, first: int, end: int) -> None:
        """Have cosines and sines for the positions first to end.

        Up to the model's last position for all from 0 on, each time for at least twice as many as
        before; beyond it, where a sliding window goes on for ever, for as many as the model has.
        """
        if self._turned.start <= first and end <= self._turned.stop:
            return
        P, D = self.program.sizes.P, self.program.sizes.D
        if end <= P:
            first, end = 0, min(end + self._turned.stop, P)
        else:
            end = max(end, first + P)
        turns = self.program.rotation(np.arange(first, end))
        self._turned = range(0)  # none, if a Ctrl-C comes now
        self._turns = [np.array(numbers, order="C") for numbers in turns]
        # the kernel counts from where position 0 would be
        places = [numbers.ctypes.data - 4 * (D // 2) * first for numbers in self._turns]
        self._job[[Job.COSINES, Job.SINES]] = places
        self._turned = range(first, end)

    def _fill(self, row, step: Instruction, layers) -> None:
        """Write an instruction into its row of the table; layers: counts those that attend."""
        row[[Row.TO, Row.TO_WIDTH]] = self._buffers[step.target], self._widths[step.target]
        row[[Row.LOGITS, Row.MEET]] = step.target == "logits", step.meet
        if norm := step.norm:
            bias = np.zeros(len(norm.weight)) if norm.bias is None else norm.bias
            numbers = np.concatenate([norm.weight, bias, [norm.eps]], dtype=np.float32)
            row[[Row.NORM, Row.NORM_NUMBERS]] = kernel_at(NORMS[norm.kind]), self._at(numbers)
        if step.then:
            row[Row.THEN] = kernel_at(THEN[step.then])
        if step.then in ACTIVATIONS:
            row[Row.ACTIVATION] = kernel_at(ACTIVATIONS[step.then])
            row[Row.GATE] = self._buffers[step.gate]
        if step.then == "attend":
            H, K, D = (getattr(self.program.sizes, letter) for letter in "HKD")
            row[[Row.LAYER, Row.PANELS]] = next(layers), K
            apart = len(step.sources) > 1  # else q, k and v lie side by side
            starts = (0, 0, 0) if apart else (0, H * D, (H + K) * D)
            places = (Row.FROM, Row.KEYS_FROM, Row.VALUES_FROM)
            for place, source, start in zip(places, step.sources * (1 if apart else 3), starts):
                row[place] = self._buffers[source] + 4 * start
                row[place + 1] = self._widths[source]
            for place, norm in zip((Row.QUERY_NORM, Row.KEY_NORM), step.head_norms):
                row[place] = self._at(np.concatenate([norm.weight, [norm.eps]], dtype=np.float32))
            return
        weight, stored = step.weight, flat_panels(step.weight)
        panels, width = stored[0].shape
        bias = np.zeros(0, np.float32) if step.bias is None else step.bias
        row[[Row.PRODUCT, Row.PANELS]] = kernel_at(PRODUCTS[weight.kind]), panels
        row[[Row.INPUTS, Row.WIDTH]] = weight.shape[0], width
        row[[Row.FROM, Row.FROM_WIDTH]] = self._buffers[step.source], self._widths[step.source]
        row[Row.BIAS] = self._at(np.pad(bias, (0, 16 * panels - len(bias))))
        for column, array in zip((Row.VALUES, Row.SCALES, Row.MINIMA), stored):
            row[column] = self._at(array)
        if step.target == "logits":  # which are another array at every call
            row[Row.TO_WIDTH] = 16 * panels

    @staticmethod
    def refusal(program: Program) -> str | None:
        """Why this program cannot be run here, or None. Then the readable forward serves."""
        steps = program.instructions
        weights = [(step.name, step.weight, True) for step in steps if step.weight is not None]
        for name, p, transposed in [("the table of tokens", program.tokens, False), *weights]:
            if getattr(p, "kind", None) not in PRODUCTS:
                return (
                    f"{name} is not a stored weight; the fused step multiplies by"
                    f" {', '.join(PRODUCTS)}"
                )
            if p.transposed != transposed:
                return (
                    f"{name} is stored the other way round: a table as it is, a matrix [in,out]"
                    " transposed"
                )
        for name, p in program.arrays():
            if p.dtype != np.float32:
                return f"{name} is {p.dtype}; the fused step computes in float32"
        named = [(step.then, THEN) for step in steps if step.then]
        named += [(step.norm.kind, NORMS) for step in steps if step.norm]
        named += [(norm.kind, ("rms_norm",)) for step in steps for norm in step.head_norms]
        for name, known in named:
            if name not in known:
                return f"the fused step knows {', '.join(known)}, not {name}"
        return None

    def fits(self, cache, lengths: list[int]) -> bool:
        """Whether it can read `lengths` [B] more ids of each row into this cache, which is one of
        this model."""
        return (
            sum(lengths) <= (self.MOST if len(lengths) == 1 or max(lengths) == 1 else FEW)
            and len(cache.lengths) == len(lengths)
            and cache.keys.dtype in self.caches
            and max(past + n for past, n in zip(cache.lengths.tolist(), lengths)) <= cache.capacity
            and (max(lengths) == 1 or not cache.one_at_a_time)
        )

    def __call__(
        self, ids, cache, lengths: list[int] | None = None, *, last=False, tell=None
    ) -> np.ndarray | None:
        """Logits [B,T,V] after more ids [B,T] in every row of a KVCache (float32, or float16),
        which grows by them.

        lengths [B]: how many ids of each row are real. last: only the last of these, [B,1,V];
        otherwise none may be padding. tell: called as tell(names, ticks) with what was finished
        when. None, and the cache has not grown, where infinity or NaN met blocks of 8 bits, which
        do not hold them: the readable forward does. Raises ValueError for what does not fit.
        """
        B, T = np.shape(ids)
        lengths = [T] * B if lengths is None else lengths
        self._check_cache(cache, B)
        if len(lengths) != B or not 1 <= min(lengths) <= max(lengths) <= T:
            raise ValueError(f"lengths {lengths} do not fit {B} rows of {T} ids")
        if not self.fits(cache, lengths) or not (last or min(lengths) == T):
            raise ValueError(f"{lengths} more ids do not fit into {cache}, or not into one pass")
        ids = row_numbers(ids, self.program.sizes.V, "ids", "tokens")
        return self.run(ids, cache, lengths, last, tell)

    def _check_cache(self, cache, B: int) -> None:
        """Raise ValueError unless the arrays of a KVCache are those of this model: keys and values
        are written by their address."""
        s, keys, values = self.program.sizes, cache.keys, cache.values
        places = keys.shape[3] if keys.ndim == 5 else 0
        shape = (s.L, B, s.K, places, s.D)
        require(keys=(keys, shape), values=(values, shape, keys.dtype))
        require(lengths=(cache.lengths, (B,), np.int64))
        if (
            not 1 <= places <= min(cache.capacity, s.P)
            or (self.program.positions is not None and cache.capacity > s.P)
            or cache.lengths.min() < 0
            or values.strides != keys.strides
            or keys.strides[3:] != (s.D * keys.itemsize, keys.itemsize)
            or not all(a.flags.behaved for a in (keys, values, cache.lengths))
        ):
            raise ValueError(
                f"the cache has {places} places of {cache.capacity}, the model {s.P}, and lengths"
                f" {cache.lengths.tolist()}; keys and values must be writable and lie in memory"
                " alike, a head's rows in turn"
            )

    def run(self, ids, cache, lengths: list[int], last: bool, tell) -> np.ndarray | None:
        """The step itself. Nothing is checked here: ids are of the vocabulary, the cache `fits`."""
        program = self.program
        # of each new position, as the others
        tokens = [token for row, n in zip(ids.tolist(), lengths) for token in row[:n]]
        keys, threads, past = cache.keys, threads_now(), cache.lengths.tolist()
        (layer_bytes, row_bytes, head_bytes, *_), capacity = keys.strides, keys.shape[3]
        k, v = keys.ctypes.data, cache.values.ctypes.data
        places = [
            (k + b * row_bytes, v + b * row_bytes, past[b] + t, min(past[b] + n, capacity))
            for b, n in enumerate(lengths)
            for t in range(n)
        ]
        kept = [end - 1 for end in accumulate(lengths)] if last else range(len(tokens))
        logits = np.empty((len(kept), self._logits_width), np.float32)
        with self._one_at_a_time:
            again = self._team.n == threads
            if not again:
                self._gather(threads)
            # many positions of one text attend in tiles
            many = len(past) == 1 and len(tokens) > FEW
            if self.program.rotation is not None:
                self._turn(min(past), max(map(add, past, lengths)))
            self._call[:] = (
                len(tokens),
                len(kept),
                kernel_at((IN_TILES if many else ATTENTION)[keys.dtype]),
                capacity,
                layer_bytes,
                head_bytes,
                self._room_for_tiles(places[-1][-1]) if many else 0,
                0,
            )
            self._rows_at[: len(tokens)], self._keep[: len(kept)] = places, kept
            self._logits_at[0] = logits.ctypes.data
            table, positions = program.tokens, program.positions
            for x, token, (_, _, position, _) in zip(self._x, tokens, places):
                # what take does, without its checks
                row = table.decode(*divmod(token, 16))[: table.k]
                if positions is None:
                    x[:] = row
                else:
                    np.add(row, positions[position], out=x)
            common = (
                threads,
                self._team.state,
                self.stamps,
                self._table,
                self._job,
                self._places,
            )
            if len(tokens) > FEW:
                self._taken[:] = 0
            self._team.run(lambda i: decode_kernel(i, *common, self._rooms[i], self._taken), again)
            if self._job[NOT_FINITE]:
                return None
            # `advance`, in half the time
            cache.lengths[:] = [before + n for before, n in zip(past, lengths)]
            if tell:
                tell(self.names, self.stamps.tolist())
        return logits[:, : program.sizes.V].reshape(len(ids), -1, program.sizes.V)

    def _gather(self, threads: int) -> None:
        """Make a team of so many threads, and room for each."""
        s = self.program.sizes
        self._team = Team(threads)
        self._rooms += [self._room(i) for i in range(len(self._rooms), threads)]
        n_parts = threads * self.MOST * s.H if s.K % threads else 0
        self._parts = np.zeros((n_parts, s.D + 2), np.float32)
        self._job[[Job.THREADS, Job.STATE]] = threads, self._team.state.ctypes.data
        self._job[Job.PARTS] = self._parts.ctypes.data if n_parts else 0

    def _room_for_tiles(self, n_keys: int) -> int:
        """Where one layer's keys and values, so many of each head, have room in tiles."""
        s = self.program.sizes
        size = s.K * -(-n_keys // KEYS) * KEYS * (s.D + -(-s.D // 16) * 16)
        if len(self._tiles) < size:
            self._tiles = np.empty(size, np.float32)
        return self._tiles.ctypes.data

    def _start_anew(self) -> None:
        """In the child of a fork: who was at work in this workspace is not there any more."""
        self._one_at_a_time, self._team = threading.Lock(), Team(0)

    def _room(self, thread: int):
        """What one thread has for itself: see Room."""
        blocks = self.MOST * int(self._table[:, Row.FROM_WIDTH].max()) // 32
        room = [
            np.zeros((self.MOST, self._widths[""]), np.float32),
            np.zeros((blocks, 32), np.int8),
            np.zeros(blocks, np.float32),
            np.zeros(blocks, np.int32),
            np.zeros(self.program.sizes.P, np.float32),
            np.zeros(self.program.sizes.D, np.float32),
        ]
        in_tiles = [
            np.zeros((QUERIES, self.program.sizes.D), np.float32),
            np.zeros(room_for_tiles(self.program.sizes.D), np.float32),
            np.zeros(blocks // self.MOST * BLOCK_ROOM, np.int32),
        ]
        addresses = ([self._at(array) for array in arrays] for arrays in (room, in_tiles))
        return np.array([*next(addresses), thread, 0, *next(addresses)])


_steps: WeakSet[DecodeStep] = WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [step._start_anew() for step in _steps])
