"""Products of many rows by many, as in training: matrices in blocks that stay in the cache, every
block packed once.

A block of the right-hand matrix is packed as panels of 16 columns (products.py), so that the inner
loop reads nothing but consecutive numbers. In float32, or with both sides rounded to bfloat16, two
to a word: then one instruction does twice the products, and the sums are float32 as before. A
processor without that instruction multiplies the rounded numbers as float32.
"""

from __future__ import annotations

import importlib

import numpy as np

from .checks import require, working
from .compile import helper, jit
from .elementwise import gated, rotate
from .gradients import gated_backward, sum_rows
from .machine_code import say_without_pairs
from .matrices import linear, to_bfloat16
from .processor import HAS_PAIRS
from .products import half, pack_rows
from .threads import in_parallel, n_threads
from .vectors import (
    PANELS,
    TILE,
    element,
    fma,
    load,
    load_row,
    pair,
    prefetch,
    repeat,
    row_of,
    spread,
    store,
    store_row,
    zeros,
)

# Whether bfloat16 is multiplied in pairs; else as float32 that are rounded before.
IN_PAIRS = HAS_PAIRS

# Of a block of the left-hand matrix: about 128 rows, whole tiles, whose DEPTH numbers meet DEPTH
# rows of the other.
ROWS, DEPTH = 128 // len(TILE) * len(TILE), 256
# rows of the left-hand matrix, up to which the other one is shared out between threads instead
FEW = 512
# Columns of a left-hand matrix that lie side by side where its transpose is multiplied: a tile.
LEFT = -(-6 // len(TILE)) * len(TILE)
# Columns of a share there: DEPTH rows of them fit into a second-level cache, beside the sums.
WIDTH = 384
STRIP, AHEAD = 8, 8  # panels that are packed at a time, and how many rows ahead memory is asked


@helper
def add_matmul(panels, x, y, column, start, fresh):
    """y += x W for panels of W; `fresh`: y = x W + start. panels: [P, 16 K]; x: [M, K]; y: float32
    [M, all columns], of which those that begin at `column`; start: float32 [all columns]. panels
    and x: float32, or int32 with two bfloat16 each, K being the number of words.

    Tiles as in products.float_matmul. Where rows or panels run out, the last one is done again
    instead of a special case: every sum begins with what y held before any of them was stored.
    """
    last, last_panel = x.shape[0] - 1, panels.shape[0] - 1
    for p in range(0, panels.shape[0], PANELS):
        other = min(p + 1, last_panel)
        left, right, c, d = panels[p], panels[other], column + 16 * p, column + 16 * other
        for m in range(0, x.shape[0], len(TILE)):
            rows = row_of(m, TILE, last)
            if fresh:
                a, b = repeat(load(start, c), rows), repeat(load(start, d), rows)
            else:
                a, b = load_row(y, rows, c), load_row(y, rows, d)
            for k in range(x.shape[1]):
                s = spread(element(x, rows, k))
                a = fma(load(left, 16 * k), s, a)
                if PANELS == 2:
                    b = fma(load(right, 16 * k), s, b)
            store_row(y, rows, c, a)
            if PANELS == 2:
                store_row(y, rows, d, b)


@helper
def pack_columns(w, packed, width, per_word):
    """w [K,N] as panels (or tiles, rows of its transpose) of `width` columns. packed: float32 [N /
    width rounded up, width K], or, with two numbers to a word, int32 [..., width ceil(K/2)], whose
    words hold rows 2k and 2k + 1. What has no column in w stays as it is. Vectors of 16 are stored:
    of fewer columns over each other, so that a row has room for 16 more."""
    (K, N), whole = w.shape, max((w.shape[1] - 16) // width + 1, 0)
    ahead = AHEAD * (w.strides[0] // w.itemsize)
    for k in range(0, K, per_word):
        row, next_row, at = w[k], w[min(k + 1, K - 1)], width * (k // per_word)
        for n in range(0, N, 16):
            prefetch(row, ahead + n)
        for p in range(whole):
            if per_word == 1:
                store(packed[p], at, load(row, width * p))
            else:
                high = load(next_row, width * p) if k + 1 < K else zeros()
                store(packed[p], at, pair(load(row, width * p), high))
        for n in range(width * whole, N):
            if per_word == 1:
                packed[n // width, at + n % width] = row[n]
            else:
                halves = packed[n // width].view(np.uint16)
                halves[2 * (at + n % width)] = half(row[n])
                halves[2 * (at + n % width) + 1] = half(next_row[n]) if k + 1 < K else np.uint16(0)


@helper
def pack_transposed(w, panels, per_word):
    """w^T as pack_columns has it, in panels of 16. w: [N,K]."""
    for n in range(w.shape[0]):
        panel, row = panels[n // 16], w[n]
        if per_word == 1:
            for k in range(w.shape[1]):
                panel[16 * k + n % 16] = row[k]
        else:
            halves = panel.view(np.uint16)
            for k in range(w.shape[1]):
                halves[32 * (k // 2) + 2 * (n % 16) + k % 2] = half(row[k])


@helper
def pack_block(w, transposed, start, first, out, per_word):
    """The rows of w [K,N] (or of w^T, for w [N,K]) from `start` that fit into the panels `out` of
    columns 16 first and on."""
    rows, last = out.shape[1] // 16 * per_word, first + out.shape[0]
    if start + rows > w.shape[1 if transposed else 0]:
        out[:] = 0
    if transposed:
        pack_transposed(w[16 * first : 16 * last, start : start + rows], out, per_word)
    else:
        pack_columns(w[start : start + rows, 16 * first : 16 * last], out, 16, per_word)


@jit
def pack_blocks(w, transposed, panels, per_word, first, last):
    """Panels first to last of w [K,N], or of w^T for w [N,K]. panels: [blocks, P, 16 depth]; each
    block's hold depth rows of the matrix (or twice that many)."""
    for block in range(panels.shape[0]):
        pack_block(
            w,
            transposed,
            block * (panels.shape[2] // 16) * per_word,
            first,
            panels[block, first:last],
            per_word,
        )


@jit
def pack_row_blocks(x, blocks, per_word, first, last):
    """Blocks first to last of x [M,K]. blocks: zeros [blocks, M, depth]."""
    rows = blocks.shape[2] * per_word
    for block in range(first, last):
        pack_rows(x[:, block * rows : (block + 1) * rows], blocks[block], per_word)


@jit
def multiply_columns(x, w, transposed, bias, y, fresh, strip, per_word, first, last):
    """y = x W + bias (y += x W unless `fresh`) for panels first to last, each packed just before it
    is used, once: for x of few rows. x: [blocks, M, depth]; y: [M, 16 P]; strip: [STRIP, 16
    depth]."""
    rows = x.shape[2] * per_word
    for p in range(first, last, strip.shape[0]):
        panels = strip[: min(strip.shape[0], last - p)]
        for block in range(x.shape[0]):
            pack_block(w, transposed, block * rows, p, panels, per_word)
            add_matmul(panels, x[block], y, 16 * p, bias, fresh and block == 0)


@jit
def multiply_rows(x, panels, bias, y, fresh, room, packed, per_word):
    """y = x W + bias (y += x W unless `fresh`) for a share of the rows. x: [M,K]; panels: of all of
    W; y: [M, 16 P]; room: zeros [ROWS, depth], or x itself where it is `packed`: one block of
    float32."""
    rows = room.shape[1] * per_word
    for start in range(0, x.shape[0], ROWS):
        out = y[start : start + ROWS]
        for block in range(panels.shape[0]):
            if packed:
                left = room[start : start + ROWS]
            else:
                part = x[start : start + ROWS, block * rows : (block + 1) * rows]
                if part.shape[1] < rows:
                    room[:] = 0
                pack_rows(part, room, per_word)
                left = room[: out.shape[0]]
            add_matmul(panels[block], left, out, 0, bias, fresh and block == 0)


@helper
def add_tiles(panels, tiles, words, y, column, start, fresh):
    """y += a^T b for panels of b (or `fresh`, as add_matmul) and tiles of a, of so many words each.
    A panel or two stay in the first cache until all tiles have met them."""
    for p in range(0, panels.shape[0], PANELS):
        for t in range(tiles.shape[0]):
            x = tiles[t][: LEFT * words].reshape(words, LEFT).T
            out = y[LEFT * t : LEFT * (t + 1)]
            add_matmul(panels[p : p + PANELS], x, out, column + 16 * p, start, fresh)


@jit
def multiply_transposed(a, b, y, start, tiles, strip, per_word, rows, columns):
    """y = a^T b, rows[0] to rows[1] of it and columns[0] to columns[1]. a: [M,K]; b: [M,N]; y:
    float32, both rounded up; start: zeros; tiles: room for these rows, LEFT words of each at a
    time; strip: for STRIP panels."""
    depth = strip.shape[1] // 16
    for first in range(0, a.shape[0], depth * per_word):
        last = min(first + depth * per_word, a.shape[0])
        words, out = (last - first + per_word - 1) // per_word, y[rows[0] :]
        pack_columns(a[first:last, rows[0] : rows[1]], tiles, LEFT, per_word)
        for column in range(columns[0], columns[1], 16 * STRIP):
            part = b[first:last, column : min(column + 16 * STRIP, columns[1])]
            panels = strip[: (part.shape[1] + 15) // 16]
            pack_columns(part, panels, 16, per_word)
            add_tiles(panels, tiles, words, out, column, start, first == 0)


PER_WORD = {
    "float32": (np.float32, 1),
    "bfloat16": (np.int32, 2),
}  # the type of a word, and how many numbers it holds


def up(n: int, unit: int = 16) -> int:
    """n rounded up to a multiple of `unit`."""
    return -(-n // unit) * unit


def depth_of(K: int, per_word: int) -> tuple[int, int]:
    """How many blocks K rows are cut into, and how many words each column of a block has."""
    words = -(-K // per_word)
    blocks = max(-(-words // DEPTH), 1)
    return blocks, -(-words // blocks)


def product(x, weight, bias=None, precision="float32", onto=None):
    """x W + b, the numbers of x and W rounded to `precision`: x [M,K]; weight [K,N], which may be
    the transpose of an array that lies row by row; bias [N] or None -> float32 [M,N].

    onto: instead of b, what x W is added to, [M,N]; in place where N is whole panels of 16."""
    (M, K), (_, N) = x.shape, weight.shape
    require(x=(x, (M, K), np.float32), weight=(weight, (K, N), np.float32))
    transposed = weight.T.flags.c_contiguous and not weight.flags.c_contiguous
    x, weight = working(x), weight.T if transposed else working(weight)
    if precision == "bfloat16" and not IN_PAIRS:
        x, weight, precision = to_bfloat16(x), to_bfloat16(weight), "float32"
    word, per_word = PER_WORD[precision]
    P, (blocks, depth) = up(N) // 16, depth_of(K, per_word)
    start, fresh = np.zeros(16 * P, np.float32), onto is None or N % 16 > 0
    y = np.empty((M, 16 * P), np.float32) if fresh else onto
    if bias is not None:
        start[:N] = bias
    packed = per_word == 1 and blocks == 1
    if M <= FEW:
        rows = x[None] if packed else np.zeros((blocks, M, depth), word)
        if not packed:
            in_parallel(
                lambda part: pack_row_blocks(x, rows, per_word, part.start, part.stop),
                blocks,
                cost=4 * M * K,
            )

        def work(part):
            strip = np.empty((STRIP, 16 * depth), word)
            multiply_columns(
                rows, weight, transposed, start, y, fresh, strip, per_word, part.start, part.stop
            )

        in_parallel(work, P, unit=2, cost=M * K * N)
    else:
        panels = np.empty((blocks, P, 16 * depth), word)
        in_parallel(
            lambda part: pack_blocks(weight, transposed, panels, per_word, part.start, part.stop),
            P,
            cost=10 * K * N,
        )

        def work(part):
            room = x[part] if packed else np.zeros((ROWS, depth), word)
            multiply_rows(x[part], panels, start, y[part], fresh, room, packed, per_word)

        in_parallel(work, M, unit=len(TILE), cost=M * K * N)
    return onto + y[:, :N] if fresh and onto is not None else y[:, :N]


def transposed_product(a, b, precision="float32"):
    """a^T b, for a [M,K] and b [M,N] rounded to `precision` -> float32 [K,N]. The larger side is
    shared out, the other one packed for every share."""
    (M, K), (_, N) = a.shape, b.shape
    require(a=(a, (M, K), np.float32), b=(b, (M, N), np.float32))
    a, b = working(a), working(b)
    if precision == "bfloat16" and not IN_PAIRS:
        a, b, precision = to_bfloat16(a), to_bfloat16(b), "float32"
    word, per_word = PER_WORD[precision]
    depth, wide = depth_of(M, per_word)[1], N > K
    y, start = np.empty((up(K, LEFT), up(N)), np.float32), np.zeros(up(N), np.float32)

    def work(part):
        part, whole = (part.start, part.stop), (0, K if wide else N)
        rows, columns = (whole, part) if wide else (part, whole)
        tiles = np.empty((up(rows[1] - rows[0], LEFT) // LEFT, LEFT * depth + 16), word)
        strip = np.empty((STRIP, 16 * depth), word)
        multiply_transposed(a, b, y, start, tiles, strip, per_word, rows, columns)

    n, unit = (N, 16) if wide else (K, LEFT)
    in_parallel(work, n, unit=unit, cost=M * K * N, each=-(-n // (WIDTH * n_threads())))
    return y[:K, :N]


class Training:
    """The kernels, with products of plain matrices in blocks: the twin for training. precision:
    "float32", or "bfloat16" to round both sides of every product: faster where the processor has
    products of its own for it, and it is said where it has none."""

    def __init__(self, precision: str = "float32"):
        if precision not in PER_WORD:
            raise ValueError(f"precision is {precision!r}; it must be one of {list(PER_WORD)}")
        self.precision = precision
        if precision == "bfloat16":
            say_without_pairs()

    gated, gated_backward, rotate = map(staticmethod, (gated, gated_backward, rotate))

    def __getattr__(self, name: str):
        return getattr(importlib.import_module(__package__), name)

    def linear(self, x, weight, bias=None):
        """x W + b. x: [..., in]; weight: [in, out]; bias: [out] -> [..., out]."""
        if not (isinstance(weight, np.ndarray) and x.dtype == weight.dtype == np.float32):
            return linear(x, weight, bias)
        y = product(x.reshape(-1, x.shape[-1]), weight, bias, self.precision)
        return y.reshape(*x.shape[:-1], -1)

    def linear_backward(self, dy, x, weight):
        """Of linear: dy [..., out] -> dx [..., in], {"weight": [in, out], "bias": [out]}."""
        return self.linear_layer_backward(dy, x, {"weight": weight, "bias": None})

    def linear_layer_backward(self, dy, x, layer, onto=None):
        """The same for linear(x, **layer): a gradient for each array of the layer; dx is added to
        `onto`, that of another map of x, in place."""
        rows, d_rows = (working(a).reshape(-1, a.shape[-1]) for a in (x, dy))
        onto = onto if onto is None else onto.reshape(rows.shape)
        if isinstance(layer["weight"], np.ndarray):
            gradients = {"weight": self.transposed_product(rows, d_rows)}
            dx = self.product(d_rows, layer["weight"].T, onto)
        else:
            dx, gradients = layer["weight"].backward(d_rows, rows)
            dx = dx if onto is None else onto + dx
        if "bias" in layer:
            gradients["bias"] = sum_rows(d_rows)
        return dx.reshape(x.shape), gradients

    def unembed_backward(self, dy, x, table):
        """Of x table^T: dy [..., V]; x: [..., C]; table: [V,C] -> dx [..., C], [V,C]."""
        rows, d_rows = (working(a).reshape(-1, a.shape[-1]) for a in (x, dy))
        return self.product(d_rows, table).reshape(x.shape), self.transposed_product(d_rows, rows)

    def product(self, a, b, onto=None):
        """a b, for a [M,K] and b [K,N]; added to `onto` [M,N], in place."""
        if a.dtype == b.dtype == np.float32:
            return product(a, b, None, self.precision, onto)
        return a @ b if onto is None else onto + a @ b

    def transposed_product(self, a, b):
        """a^T b, for a [M,K] and b [M,N]."""
        both = a.dtype == b.dtype == np.float32
        return transposed_product(a, b, self.precision) if both else a.T @ b
