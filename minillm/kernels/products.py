"""Products with stored weights: one row (matvec, bound by memory) or several (matmul, bound by
arithmetic).

A weight comes as panels of 16 outputs (minillm/weights/weight.py): `panels` is [P, ...], flat
inside a panel, and lane i of a vector is output i of the panel. Kernels take one thread's share of
the panels and write the columns that begin at `column` of y. `bias` [16 P of all panels] is where
the sums start.
"""

from __future__ import annotations

import numpy as np

from .compile import jit
from .vectors import (
    BYTES_START,
    dot4,
    dot8,
    fma,
    larger,
    load,
    load_bytes,
    prefetch,
    scale_by,
    spread,
    store,
    to_floats,
    zeros,
)

ONE = np.float32(1.0)
AHEAD = 2048  # numbers of 16 bits: 4 KiB, as far as a processor looks ahead by itself


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
            if w.itemsize == 2:  # 3 to 7 % faster; float32 is not, nor are bytes
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
    columns].

    Eight rows by two panels are sixteen sums in registers: a vector of W is loaded (and made
    float32) once for eight products, a number of x once for two; and two panels are two streams,
    which memory serves better than one. Where rows or panels run out, the last one is done again
    instead of a special case.
    """
    last, last_panel = x.shape[0] - 1, panels.shape[0] - 1
    for p in range(0, panels.shape[0], 2):
        other = min(p + 1, last_panel)
        left, right, c, d = panels[p], panels[other], column + 16 * p, column + 16 * other
        for m in range(0, x.shape[0], 8):
            m1, m2, m3, m4 = min(m + 1, last), min(m + 2, last), min(m + 3, last), min(m + 4, last)
            m5, m6, m7 = min(m + 5, last), min(m + 6, last), min(m + 7, last)
            x0, x1, x2, x3, x4, x5, x6, x7 = x[m], x[m1], x[m2], x[m3], x[m4], x[m5], x[m6], x[m7]
            a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = load(bias, c)
            b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = load(bias, d)
            for k in range(min(x.shape[1], panels.shape[1] // 16)):
                w, v = load(left, 16 * k), load(right, 16 * k)
                s = spread(x0[k])
                a0, b0 = fma(w, s, a0), fma(v, s, b0)
                s = spread(x1[k])
                a1, b1 = fma(w, s, a1), fma(v, s, b1)
                s = spread(x2[k])
                a2, b2 = fma(w, s, a2), fma(v, s, b2)
                s = spread(x3[k])
                a3, b3 = fma(w, s, a3), fma(v, s, b3)
                s = spread(x4[k])
                a4, b4 = fma(w, s, a4), fma(v, s, b4)
                s = spread(x5[k])
                a5, b5 = fma(w, s, a5), fma(v, s, b5)
                s = spread(x6[k])
                a6, b6 = fma(w, s, a6), fma(v, s, b6)
                s = spread(x7[k])
                a7, b7 = fma(w, s, a7), fma(v, s, b7)
            rows = (m, m1, m2, m3, m4, m5, m6, m7)
            for row, a, b in zip(
                rows, (a0, a1, a2, a3, a4, a5, a6, a7), (b0, b1, b2, b3, b4, b5, b6, b7)
            ):
                store(y[row], c, a)
                store(y[row], d, b)


@jit(inline="always")
def quantize(x, q, scales, sums):
    """Round blocks of 32 numbers to 8 bits each: x = q * scale, and the sum of each block's q.

    x: [R, 32]; q: int8 [R, 32]; scales: float32 [R]; sums: int32 [R]. Returns whether all numbers
    are finite: 8 bits hold no others, and the scale of a block with one is NaN.
    """
    all_finite = True
    for r in range(x.shape[0]):
        largest, nothing = np.float32(0), np.float32(0)
        for i in range(32):
            largest = larger(largest, abs(x[r, i]))
            nothing += x[r, i] * np.float32(0)
        if nothing != 0:  # infinity times 0 is NaN, and no NaN is equal to 0
            all_finite = False
            scales[r], sums[r] = np.nan, 0
            for i in range(32):
                q[r, i] = 0
            continue
        inverse = np.float32(127) / largest if largest > np.float32(1e-30) else np.float32(0)
        total = np.int32(0)
        for i in range(32):
            rounded = np.int32(np.rint(x[r, i] * inverse))
            q[r, i] = rounded
            total += rounded
        scales[r] = largest / np.float32(127)
        sums[r] = total
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
                t = dot4(t, load_bytes(w, 512 * b + 64 * j), spread(q[8 * b + j]))
            total = fma(to_floats(t), scale_by(load(d, 16 * b), x_scales[b]), total)
        store(y, column + 16 * p, total)


@jit(inline="always")
def int8_matmul(values, scales, q, x_scales, sums, bias, y, column):
    """y = x W + bias for several rows: int8_matvec with four rows at a time. q: int32 [M, 8 B];
    x_scales, sums: [M, B]."""
    last_row = q.shape[0] - 1
    for p in range(values.shape[0]):
        w, d, c = values[p], scales[p], column + 16 * p
        for m in range(0, q.shape[0], 4):
            m1, m2, m3 = min(m + 1, last_row), min(m + 2, last_row), min(m + 3, last_row)
            q0, q1, q2, q3 = q[m], q[m1], q[m2], q[m3]
            a0 = a1 = a2 = a3 = load(bias, c)
            for b in range(x_scales.shape[1]):
                s0, s1, s2, s3 = sums[m, b], sums[m1, b], sums[m2, b], sums[m3, b]
                t0, t1, t2, t3 = (
                    spread(BYTES_START * s0),
                    spread(BYTES_START * s1),
                    spread(BYTES_START * s2),
                    spread(BYTES_START * s3),
                )
                for j in range(8):
                    v = load_bytes(w, 512 * b + 64 * j)
                    t0 = dot4(t0, v, spread(q0[8 * b + j]))
                    t1 = dot4(t1, v, spread(q1[8 * b + j]))
                    t2 = dot4(t2, v, spread(q2[8 * b + j]))
                    t3 = dot4(t3, v, spread(q3[8 * b + j]))
                scale = load(d, 16 * b)
                a0 = fma(to_floats(t0), scale_by(scale, x_scales[m, b]), a0)
                a1 = fma(to_floats(t1), scale_by(scale, x_scales[m1, b]), a1)
                a2 = fma(to_floats(t2), scale_by(scale, x_scales[m2, b]), a2)
                a3 = fma(to_floats(t3), scale_by(scale, x_scales[m3, b]), a3)
            store(y[m], c, a0)
            store(y[m1], c, a1)
            store(y[m2], c, a2)
            store(y[m3], c, a3)


@jit(inline="always")
def int4_matvec(values, scales, minima, q, x_scales, sums, bias, y, column):
    """y = W x + bias for one row in blocks of 4 bits. values: [P, 256 B]; scales: [P, 16 B];
    minima: that or [P, 0].

    Without minima the stored number is 8 too large; with them it is right, and the minimum meets
    the block's sum of x.
    """
    has_minima = minima.shape[1] > 0
    offset = 0 if has_minima else -8
    for p in range(values.shape[0]):
        w, d, low = values[p], scales[p], minima[p]
        total = load(bias, column + 16 * p)
        for b in range(x_scales.shape[0]):
            t = spread(offset * sums[b])
            for j in range(4):
                v = load_bytes(w, 256 * b + 64 * j)
                t = dot8(t, v, spread(q[8 * b + j]), spread(q[8 * b + 4 + j]))
            total = fma(to_floats(t), scale_by(load(d, 16 * b), x_scales[b]), total)
            if has_minima:
                total = fma(load(low, 16 * b), spread(x_scales[b] * np.float32(sums[b])), total)
        store(y, column + 16 * p, total)


@jit(inline="always")
def int4_matmul(values, scales, minima, q, x_scales, sums, bias, y, column):
    """y = x W + bias for several rows: int4_matvec with four rows at a time. q: int32 [M, 8 B];
    x_scales, sums: [M, B]."""
    has_minima = minima.shape[1] > 0
    offset = 0 if has_minima else -8
    last_row = q.shape[0] - 1
    for p in range(values.shape[0]):
        w, d, low, c = values[p], scales[p], minima[p], column + 16 * p
        for m in range(0, q.shape[0], 4):
            m1, m2, m3 = min(m + 1, last_row), min(m + 2, last_row), min(m + 3, last_row)
            q0, q1, q2, q3 = q[m], q[m1], q[m2], q[m3]
            a0 = a1 = a2 = a3 = load(bias, c)
            for b in range(x_scales.shape[1]):
                s0, s1, s2, s3 = sums[m, b], sums[m1, b], sums[m2, b], sums[m3, b]
                t0, t1, t2, t3 = (
                    spread(offset * s0),
                    spread(offset * s1),
                    spread(offset * s2),
                    spread(offset * s3),
                )
                for j in range(4):
                    v = load_bytes(w, 256 * b + 64 * j)
                    t0 = dot8(t0, v, spread(q0[8 * b + j]), spread(q0[8 * b + 4 + j]))
                    t1 = dot8(t1, v, spread(q1[8 * b + j]), spread(q1[8 * b + 4 + j]))
                    t2 = dot8(t2, v, spread(q2[8 * b + j]), spread(q2[8 * b + 4 + j]))
                    t3 = dot8(t3, v, spread(q3[8 * b + j]), spread(q3[8 * b + 4 + j]))
                scale = load(d, 16 * b)
                d0, d1, d2, d3 = x_scales[m, b], x_scales[m1, b], x_scales[m2, b], x_scales[m3, b]
                a0 = fma(to_floats(t0), scale_by(scale, d0), a0)
                a1 = fma(to_floats(t1), scale_by(scale, d1), a1)
                a2 = fma(to_floats(t2), scale_by(scale, d2), a2)
                a3 = fma(to_floats(t3), scale_by(scale, d3), a3)
                if has_minima:
                    least = load(low, 16 * b)
                    a0 = fma(least, spread(d0 * np.float32(s0)), a0)
                    a1 = fma(least, spread(d1 * np.float32(s1)), a1)
                    a2 = fma(least, spread(d2 * np.float32(s2)), a2)
                    a3 = fma(least, spread(d3 * np.float32(s3)), a3)
            store(y[m], c, a0)
            store(y[m1], c, a1)
            store(y[m2], c, a2)
            store(y[m3], c, a3)
