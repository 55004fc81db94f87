"""`linear`, the only place where a weight multiplies: it finds the product by how the weight is
stored.

A weight is known here by `kind`, `stored`, `shape` and `transposed` (minillm/weights), or is a
plain ndarray, for which BLAS is the fastest there is.
"""

from __future__ import annotations

import numpy as np

from .checks import working
from .forms import BLOCK_ROOM, PAIR_ROOM, flat_panels
from .machine_code import HAS_PAIRS, say_without_pairs
from .products import (
    MANY,
    float_matmul,
    float_matvec,
    int4_matmul,
    int4_matvec,
    int8_matmul,
    int8_matvec,
    pair_matmul,
    pair_rows,
    quantize,
    round_to_bfloat16,
)
from .threads import in_parallel

FLOATS = ("float32", "bfloat16", "float16")  # what multiplies the rows as they are
# The product for each kind, with one row and with several. A weight of another kind brings its own
# x @ weight.
MATVEC = {
    **dict.fromkeys((*FLOATS, "bfloat16_rounded"), float_matvec),
    "int8": int8_matvec,
    "int4": int4_matvec,
    "int4_min": int4_matvec,
}
MATMUL = {
    **dict.fromkeys((*FLOATS, "bfloat16_rounded"), float_matmul),
    "int8": int8_matmul,
    "int4": int4_matmul,
    "int4_min": int4_matmul,
}


def linear(x, weight, bias=None):
    """Multiply by a weight and add a bias: y = x W + b. x: [..., in]; weight: [in, out]; bias:
    [out] -> [..., out].

    weight: an ndarray, or a stored Weight; blocks of 8 and 4 bits round x to 8 bits for each 32
    inputs, bfloat16_rounded to bfloat16.
    """
    x = np.atleast_1d(x)
    rows = x.reshape(-1, x.shape[-1])
    if (
        getattr(weight, "kind", None) not in MATVEC
        or not weight.transposed
        or x.dtype != np.float32
    ):
        y = rows @ weight
        if bias is not None:
            y = y + bias if y.dtype != np.result_type(y, bias) else np.add(y, bias, out=y)
    else:
        if rows.shape[1] != weight.shape[0]:
            raise ValueError(
                f"x has {rows.shape[1]} columns and the weight {weight.shape[0]} inputs"
            )
        y = product(working(rows), weight, bias)
    return y.reshape(*x.shape[:-1], weight.shape[-1])


def product(x, weight, bias):
    """x [M,K] times a stored weight [K,N], by the kernel for its kind and for one or several rows
    -> [M,N]."""
    (M, K), N = x.shape, weight.shape[1]
    P, kind = len(flat_panels(weight)[0]), weight.kind
    unpacks = M > 1 and kind.startswith("int4")
    pairs = M >= MANY and HAS_PAIRS and kind == "bfloat16_rounded"
    start = np.zeros(
        16 * P, np.float32
    )  # where the sums start, for the last panel's empty rows too
    if bias is not None:
        start[:N] = bias
    y = np.empty((M, 16 * P), np.float32)
    kernel = pair_matmul if pairs else (MATMUL if M > 1 else MATVEC)[kind]
    words = BLOCK_ROOM if unpacks else PAIR_ROOM if pairs else 0  # of room for 32 inputs
    inputs, lost = (in_pairs(x),) if pairs else inputs_of(x, kind), ()
    if len(inputs) > 1:
        # rows with infinity or NaN, which 8 bits do not hold: they are multiplied as they are
        lost = np.flatnonzero(np.isnan(inputs[1]).any(axis=1))
    if M == 1:
        inputs, y = tuple(a[0] for a in inputs), y[0]

    def work(part):
        room = (np.empty(-(-K // 32) * words, np.int32),) if words else ()
        kernel(*flat_panels(weight, part), *inputs, start, y, 16 * part.start, *room)

    if M:
        in_parallel(work, P, cost=M * K * N)
    y = y.reshape(M, -1)[:, :N]
    if len(lost):
        y[lost] = x[lost] @ weight + start[:N]
    return y


def inputs_of(x, kind):
    """Rows [M,K] as products with weights of a kind take them: the same, rounded to bfloat16, or
    `quantized`."""
    if kind in FLOATS:
        return (x,)
    if kind != "bfloat16_rounded":
        return quantized(x)
    say_without_pairs()
    return (to_bfloat16(x),)


def to_bfloat16(x):
    """The nearest bfloat16 of every float32, as float32."""
    y = np.empty(x.size, np.float32)
    flat = x.reshape(-1)
    in_parallel(lambda part: round_to_bfloat16(flat[part], y[part]), y.size, cost=4 * y.size)
    return y.reshape(x.shape)


def in_pairs(x):
    """Rows [M,K] rounded to bfloat16, two numbers to an int32 [M, ceil(K/2)]."""
    pairs = np.zeros((len(x), -(-x.shape[1] // 2)), np.int32)
    in_parallel(lambda part: pair_rows(x[part], pairs[part]), len(x), cost=x.size)
    return pairs


def quantized(x):
    """x [M,K] in blocks of 8 bits: q as int32 [M, 8 B], four numbers to one; scales float32 and
    sums int32 [M, B]."""
    M, K = x.shape
    x = np.pad(x, ((0, 0), (0, -K % 32))) if K % 32 else x
    B = x.shape[1] // 32
    q, scales, sums = (
        np.empty((M * B, 32), np.int8),
        np.empty(M * B, np.float32),
        np.empty(M * B, np.int32),
    )
    blocks = x.reshape(M * B, 32)
    in_parallel(
        lambda part: quantize(blocks[part], q[part], scales[part], sums[part]),
        M * B,
        cost=4 * x.size,
    )
    return q.reshape(M, -1).view(np.int32), scales.reshape(M, B), sums.reshape(M, B)
