"""What the fused step's table calls by its address, but for attention: norms, products, and what
comes after them.

Each kernel is compiled when a model first needs it. All are told where their row of the table is,
the thread's share of its panels (first to end), the number of new positions R, and where the job,
the places and the thread's room are (table.py).
"""

from __future__ import annotations

import math

import numpy as np

from .compile import entry, helper
from .forms import BLOCK_ROOM, PAIR_ROOM
from .machine_code import HAS_PAIRS
from .mathematics import GELU_CUBIC, GELU_SLOPE, gelu_new_of, silu_of
from .memory import array_at, call, reshaped, row_at
from .products import (
    MANY,
    float_matmul,
    float_matvec,
    int4_matmul,
    int4_matvec,
    int8_matmul,
    int8_matvec,
    pack_rows,
    pair_matmul,
    quantize,
    round_to_bfloat16,
)
from .rows import normalize_row, rms_normalize_row
from .table import JOB, PLACE, ROOM, ROW, Job, Place, Room, Row


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
def rounded_product(at_row, first, end, R, at_job, at_places, at_room):
    """The same for bfloat16, to which the rows are rounded first; many of them in pairs, where the
    processor multiplies these."""
    row, h = product_inputs(at_row, R, at_room)
    room, which = row_at(at_room, ROOM, np.int64), at_row if row[Row.FROM] else 2  # as in `rounded`
    anew, room[Room.ROUNDED] = room[Room.ROUNDED] != which, which
    panels = array_at(row[Row.VALUES], row[Row.PANELS], row[Row.WIDTH], np.uint16)[first:end]
    bias, y = bias_and_outputs(row, R)
    if HAS_PAIRS and R >= MANY:
        pairs = array_at(room[Room.Q], R, h.shape[1] // 2, np.int32)
        if anew:
            pack_rows(h, pairs, 2)
        words = row_at(room[Room.PANEL], PAIR_ROOM * (h.shape[1] // 32), np.int32)
        pair_matmul(panels, pairs, bias, y, 16 * first, words)
    else:
        x = array_at(room[Room.Q], R, h.shape[1], np.float32)
        for r in range(R if anew else 0):
            round_to_bfloat16(h[r], x[r])
        if R == 1:
            float_matvec(panels, x[0, : row[Row.INPUTS]], bias, y[0], 16 * first)
        else:
            float_matmul(panels, x, bias, y, 16 * first)


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


def int4_product(with_minima: bool):
    """The same for blocks of 4 bits. (What a kernel closes over is part of its name on the disk:
    another kernel there would be another one in every process.)"""

    @entry
    def product(at_row, first, end, R, at_job, at_places, at_room):
        """The thread's panels of y = h W + bias, for R rows."""
        row, h = product_inputs(at_row, R, at_room)
        values, w_scales = stored_blocks(row, first, end)
        minima = minima_of(row, first, end, w_scales.shape[1]) if with_minima else None
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
def product_inputs(at_row, R, at_room):
    """The instruction; the rows to be multiplied [R, inputs or more]."""
    row, room = row_at(at_row, ROW, np.int64), row_at(at_room, ROOM, np.int64)
    source = row[Row.FROM] if row[Row.FROM] else room[Room.NORMED]
    return row, array_at(source, R, row[Row.FROM_WIDTH], np.float32)


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
        q = array_at(room[Room.Q], n, 32, np.int8)
        if not quantize(reshaped(h, (n, 32)), q, scales, sums):
            row_at(at_job, JOB, np.int64)[Job.NOT_FINITE] = 1
        room[Room.ROUNDED] = which
    q = array_at(room[Room.Q], R, 8 * blocks, np.int32)
    return q, reshaped(scales, (R, blocks)), reshaped(sums, (R, blocks))


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
    x, one, nan = row_at(x_at, n, np.float32), np.float32(1), np.float32(np.nan)
    slope, cubic = np.float32(GELU_SLOPE), np.float32(GELU_CUBIC)
    for i in range(n):
        x[i] = gelu_new_of(x[i], one, slope, cubic, nan)


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
        x[i] = silu_of(x[i], np.float32(1), np.float32(np.nan))


NORMS = {"layer_norm": layer_norm, "rms_norm": rms_norm}
PRODUCTS = {
    "float32": float_product(np.float32),
    "bfloat16": float_product(np.uint16),
    "bfloat16_rounded": rounded_product,
    "float16": float_product(np.int16),
    "int8": int8_product,
    "int4": int4_product(False),
    "int4_min": int4_product(True),
}
ACTIVATIONS = {"gelu_new": gelu_new, "gelu": gelu, "relu": relu, "silu": silu}
