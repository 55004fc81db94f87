"""Products with stored weights: one row (matvec, bound by memory) or several (matmul, bound by
arithmetic).

A weight comes as panels of 16 outputs (minillm/weights/weight.py): `panels` is [P, ...], flat
inside a panel, and lane i of a vector is output i of the panel. Kernels take one thread's share of
the panels and write the columns that begin at `column` of y. `bias` [16 P of all panels] is where
the sums start.
"""

from __future__ import annotations

import numpy as np

from .compile import helper, jit
from .memory import reshaped
from .vectors import (
    BLOCK_TILE,
    BYTES_START,
    PANELS,
    TILE,
    dot4,
    dot_small,
    element,
    fma,
    halves_of,
    largest_size,
    load,
    load_bytes,
    load_row,
    nearest_words,
    pair,
    prefetch,
    repeat,
    row_of,
    scale_by,
    settled,
    spread,
    store,
    store_bytes,
    store_row,
    times,
    to_floats,
    total_of,
    unknown,
    zeros,
)

ONE = np.float32(1.0)
# Numbers of a stored row that memory is told of ahead: 2 KiB of bytes, 4 KiB of 16 bits. One row by
# bytes is 7 to 17 % faster so (Zen 3, two threads), by 16 bits 3 to 7 %; by float32 16 % slower.
AHEAD = 2048
# Rows from which it pays to pair the numbers of a panel for them: two tiles.
MANY = 2 * len(TILE)


@jit(inline="always")
def float_matvec(panels, x, bias, y, column):
    """y = W x + bias for one row. panels: [P, 16 K] of any float; x: [K]."""
    for p in range(panels.shape[0]):
        w = panels[p]
        a, b, c, d = (
            load(bias, column + 16 * p),
            zeros(),
            zeros(),
            zeros(),
        )  # four sums, so that none waits for another
        for k in range(x.shape[0] // 4):
            if w.itemsize == 2:
                prefetch(w, 64 * k + AHEAD)
                prefetch(w, 64 * k + AHEAD + 32)
            a = fma(load(w, 64 * k), spread(x[4 * k]), a)
            b = fma(load(w, 64 * k + 16), spread(x[4 * k + 1]), b)
            c = fma(load(w, 64 * k + 32), spread(x[4 * k + 2]), c)
            d = fma(load(w, 64 * k + 48), spread(x[4 * k + 3]), d)
        for k in range(x.shape[0] // 4 * 4, x.shape[0]):
            a = fma(load(w, 16 * k), spread(x[k]), a)
        store(y, column + 16 * p, fma(fma(a, spread(ONE), b), spread(ONE), fma(c, spread(ONE), d)))


@jit(inline="always")
def float_matmul(panels, x, bias, y, column):
    """y = x W + bias. panels: [P, 16 K]; x: [M, K] (either may be wider than the other); y: [M, all
    columns]. Panels and x may be int32 with two bfloat16 each, K being the number of words.

    Several rows by one panel or two are as many sums in registers (vectors.py): a vector of W is
    loaded (and made float32) once for all the rows, a number of x once for the panels; and two
    panels are two streams, which memory serves better than one. Where rows or panels run out, the
    last one is done again instead of a special case.
    """
    last, last_panel = x.shape[0] - 1, panels.shape[0] - 1
    for p in range(0, panels.shape[0], PANELS):
        other = min(p + 1, last_panel)
        left, right, c, d = panels[p], panels[other], column + 16 * p, column + 16 * other
        for m in range(0, x.shape[0], len(TILE)):
            rows = row_of(m, TILE, last)
            a, b = repeat(load(bias, c), rows), repeat(load(bias, d), rows)
            for k in range(min(x.shape[1], panels.shape[1] // 16)):
                s = spread(element(x, rows, k))
                a = fma(load(left, 16 * k), s, a)
                if PANELS == 2:
                    b = fma(load(right, 16 * k), s, b)
            store_row(y, rows, c, a)
            if PANELS == 2:
                store_row(y, rows, d, b)


@helper
def half(x):
    """The bits of the bfloat16 nearest to a float32; of NaN a NaN's."""
    bits = np.float32(x).view(np.uint32)
    half_step = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    near = bits | np.uint32(0x400000) if x != x else bits + half_step
    return np.uint16(near >> np.uint32(16))


@helper
def pack_rows(x, rows, per_word):
    """x [M,K] row by row. rows: float32 [M,K], or int32 [M, ceil(K/2)] of two numbers each."""
    full = x.shape[1] // 16 * 16
    for m in range(x.shape[0]):
        row = x[m]
        if per_word == 1:
            for k in range(0, full, 16):
                store(rows[m], k, load(row, k))
            for k in range(full, x.shape[1]):
                rows[m, k] = row[k]
        else:
            halves = rows[m].view(np.uint16)
            for k in range(0, full, 16):
                store(halves, k, load(row, k))
            for k in range(full, x.shape[1]):
                halves[k] = half(row[k])


@jit(inline="always")
def round_to_bfloat16(x, y):
    """y = the nearest bfloat16 of every number, as float32. x, y: [N]."""
    bits = y.view(np.uint32)
    for i in range(x.shape[0]):
        bits[i] = np.uint32(half(x[i])) << np.uint32(16)


@jit
def pair_rows(x, pairs):
    """x [M,K] rounded to bfloat16, two numbers to a word. pairs: zeros, int32 [M, ceil(K/2)]."""
    pack_rows(x, pairs, 2)


@jit(inline="always")
def pair_matmul(panels, x, bias, y, column, room):
    """float_matmul for panels of bfloat16, uint16 [P, 16 K], and rows of pairs, int32 [M, ceil(K/2)
    or more]. room: int32 [PAIR_ROOM ceil(K/32)], where panels are paired once for all rows."""
    K = panels.shape[1] // 16
    words = reshaped(room, (PANELS, 16 * ((K + 1) // 2)))
    for p in range(0, panels.shape[0], PANELS):
        some = min(PANELS, panels.shape[0] - p)
        for i in range(some):
            w = panels[p + i]
            for k in range(0, K, 2):
                high = load(w, 16 * k + 16) if k + 1 < K else zeros()
                store(words[i], 8 * k, pair(load(w, 16 * k), high))
        float_matmul(words[:some], x, bias, y, column + 16 * p)


@jit(inline="always")
def quantize(x, q, scales, sums):
    """Round blocks of 32 numbers to 8 bits each: x = q * scale, and the sum of each block's q.

    x: [R, 32]; q: int8 [R, 32]; scales: float32 [R]; sums: int32 [R]. Returns whether all numbers
    are finite: 8 bits hold no others, and the scale of a block with one is NaN.
    """
    all_finite = True
    for r in range(x.shape[0]):
        v, u = load_row(x, r, 0), load_row(x, r, 16)
        largest = largest_size(v, u)
        if not largest < np.inf:
            all_finite, largest, v, u = False, np.float32(np.nan), zeros(), zeros()
        inverse = np.float32(127) / largest if largest > np.float32(1e-30) else np.float32(0)
        v, u = nearest_words(scale_by(v, inverse)), nearest_words(scale_by(u, inverse))
        store_bytes(q[r], 0, v)
        store_bytes(q[r], 16, u)
        scales[r], sums[r] = largest / np.float32(127), total_of(v, u)
    return all_finite


@jit(inline="always")
def int8_matvec(values, scales, q, x_scales, sums, bias, y, column):
    """y = W x + bias for one row in blocks of 8 bits. values: [P, 512 B]; scales: [P, 16 B]; q:
    int32 [8 B], four to one.

    The stored number is 128 too large; where dot4 does not see to that, a block's sum starts at
    -128 times the sum of its q.
    """
    for p in range(values.shape[0]):
        w, d = values[p], scales[p]
        total = load(bias, column + 16 * p)
        for b in range(x_scales.shape[0]):
            t = spread(BYTES_START * sums[b])
            for j in range(8):
                prefetch(w, 512 * b + 64 * j + AHEAD)
                t = dot4(t, load_bytes(w, 512 * b + 64 * j), spread(q[8 * b + j]))
            total = fma(to_floats(t), scale_by(load(d, 16 * b), x_scales[b]), total)
        store(y, column + 16 * p, total)


@jit(inline="always")
def int8_matmul(values, scales, q, x_scales, sums, bias, y, column):
    """y = x W + bias for several rows: int8_matvec with some of them at a time. q: int32 [M, 8 B];
    x_scales, sums: [M, B]."""
    last = q.shape[0] - 1
    for p in range(values.shape[0]):
        w, d, c = values[p], scales[p], column + 16 * p
        for m in range(0, q.shape[0], len(BLOCK_TILE)):
            rows = row_of(m, BLOCK_TILE, last)
            total = repeat(load(bias, c), rows)
            for b in range(x_scales.shape[1]):
                t = spread(times(BYTES_START, element(sums, rows, b)))
                for j in range(8):
                    v = load_bytes(w, 512 * b + 64 * j)
                    t = dot4(t, v, spread(element(q, rows, 8 * b + j)))
                scale = scale_by(load(d, 16 * b), element(x_scales, rows, b))
                total = fma(to_floats(t), scale, total)
            store_row(y, rows, c, total)


@jit(inline="always")
def int4_matvec(values, scales, minima, q, x_scales, sums, bias, y, column):
    """y = W x + bias for one row in blocks of 4 bits. values: [P, 256 B]; scales: [P, 16 B];
    minima: that or None.

    Without minima the stored number is 8 too large; with them it is right, and the minimum meets
    the block's sum of x.
    """
    for p in range(values.shape[0]):
        w, d = values[p], scales[p]
        total = load(bias, column + 16 * p)
        for b in range(x_scales.shape[0]):
            t = spread(0)
            for j in range(4):
                prefetch(w, 256 * b + 64 * j + AHEAD)
                lower, upper = halves_of(load_bytes(w, 256 * b + 64 * j))
                t = dot_small(t, lower, spread(q[8 * b + j]))
                t = dot_small(t, upper, spread(q[8 * b + 4 + j]))
            t = settled(t, spread(0 if minima is not None else -8 * sums[b]))
            total = fma(to_floats(t), scale_by(load(d, 16 * b), x_scales[b]), total)
            if minima is not None:
                low = load(minima[p], 16 * b)
                total = fma(low, spread(x_scales[b] * np.float32(sums[b])), total)
        store(y, column + 16 * p, total)


@jit(inline="always")
def int4_matmul(values, scales, minima, q, x_scales, sums, bias, y, column, room):
    """y = x W + bias for several rows: int4_matvec with some of them at a time. q: int32 [M, 8 B];
    x_scales, sums: [M, B]; room: int32 [BLOCK_ROOM B], where a panel is unpacked once for all."""
    last, B = q.shape[0] - 1, x_scales.shape[1]
    groups = unknown(8)  # of four inputs, which LLVM would unroll, out of all registers
    steps, lows = room[128 * B : 144 * B].view(np.float32), room[144 * B :].view(np.float32)
    for p in range(values.shape[0]):
        c = column + 16 * p
        for b in range(B):
            for j in range(4):
                lower, upper = halves_of(load_bytes(values[p], 256 * b + 64 * j))
                store(room, 128 * b + 16 * j, lower)
                store(room, 128 * b + 64 + 16 * j, upper)
            store(steps, 16 * b, load(scales[p], 16 * b))
            if minima is not None:
                store(lows, 16 * b, load(minima[p], 16 * b))
        for m in range(0, q.shape[0], len(BLOCK_TILE)):
            rows = row_of(m, BLOCK_TILE, last)
            total = repeat(load(bias, c), rows)
            for b in range(B):
                x_sums, x_scale = element(sums, rows, b), element(x_scales, rows, b)
                t = repeat(spread(0), rows)
                for j in range(groups):
                    w = load(room, 128 * b + 16 * j)
                    t = dot_small(t, w, spread(element(q, rows, groups * b + j)))
                t = settled(t, spread(times(0 if minima is not None else -8, x_sums)))
                total = fma(to_floats(t), scale_by(load(steps, 16 * b), x_scale), total)
                if minima is not None:
                    total = fma(load(lows, 16 * b), spread(times(x_scale, x_sums)), total)
            store_row(y, rows, c, total)
