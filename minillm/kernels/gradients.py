"""Gradients: twins of those functions in ops_backward.py that BLAS does not do, and the
optimisers' updates."""

from __future__ import annotations

import math

import numpy as np

from .checks import require, require_in_place, row_numbers, working
from .compile import helper, jit
from .elementwise import in_shares
from .mathematics import exp
from .rows import exponentials, exponentiate, maximum
from .streaming import checked_positions, key_heads
from .threads import in_parallel
from .vectors import PANELS, TILE, element, fma, load_row, row_of, spread, store_row

# Of one tile, whole tiles of products: its scores over 1,024 keys are 192 KiB, which stay in the
# second-level cache.
QUERIES = 48


# ---- elementwise and by row


@jit
def _gelu_new(dy, x, dx):
    # With s = 1 / (1 + exp(-2u)) the activation is x s, and ds/dx = 2 s (1 - s) du/dx
    one, two, slope, cubic = (
        x.dtype.type(1),
        x.dtype.type(2),
        x.dtype.type(math.sqrt(2.0 / math.pi)),
        x.dtype.type(0.044715),
    )
    three = x.dtype.type(3)
    for i in range(x.shape[0]):
        square = x[i] * x[i]
        s = one / (one + exp(-two * slope * (x[i] + cubic * square * x[i])))
        slope_here = s + x[i] * two * s * (one - s) * slope * (one + three * cubic * square)
        dx[i] = dy[i] * (slope_here if x[i] != -np.inf else x.dtype.type(np.nan))


@jit
def _silu(dy, x, dx):
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        s = one / (one + exp(-x[i]))
        slope = s * (one + x[i] * (one - s))
        dx[i] = dy[i] * (slope if x[i] != -np.inf else x.dtype.type(np.nan))


def on_every_slope(kernel, dy, x):
    """Call kernel(dy, x, dx) on shares of flattened arrays; the result dx has the shape of x."""
    x = working(x)
    require(dy=(dy, x.shape))
    dy, dx = np.ascontiguousarray(dy, x.dtype), np.empty_like(x)
    in_shares(kernel, dy, x, dx, cost=30)
    return dx


def gelu_new_backward(dy, x):
    """Of the tanh form of GELU: dx = dy times its slope at x. dy, x: [...] -> [...]."""
    return on_every_slope(_gelu_new, dy, x)


def silu_backward(dy, x):
    """Of silu: dx = dy times its slope at x. dy, x: [...] -> [...]."""
    return on_every_slope(_silu, dy, x)


@jit
def _gated(dy, gate, up, d_gate, d_up):
    one = gate.dtype.type(1)
    for i in range(gate.shape[0]):
        s = one / (one + exp(-gate[i]))
        slope = s * (one + gate[i] * (one - s))
        finite = gate[i] != -np.inf
        d_gate[i] = dy[i] * up[i] * (slope if finite else gate.dtype.type(np.nan))
        d_up[i] = dy[i] * (gate[i] * s if finite else gate.dtype.type(np.nan))


def gated_backward(dy, gate, up):
    """Of silu(gate) * up. All [...] -> d_gate, d_up."""
    gate = working(gate)
    require(dy=(dy, gate.shape), up=(up, gate.shape))
    dy, up = (np.ascontiguousarray(a, gate.dtype) for a in (dy, up))
    d_gate, d_up = np.empty_like(gate), np.empty_like(gate)
    in_shares(_gated, dy, gate, up, d_gate, d_up, cost=40)
    return d_gate, d_up


@jit
def _sum_rows(x, sums, first, last):
    part = sums[first:last]
    for row in range(x.shape[0]):
        numbers = x[row, first:last]
        for i in range(part.shape[0]):
            part[i] += numbers[i]


def sum_rows(x):
    """The sum of all rows of x [M,N], from the first to the last -> [N]."""
    sums = np.zeros(x.shape[1], x.dtype)
    in_parallel(
        lambda part: _sum_rows(x, sums, part.start, part.stop), x.shape[1], unit=16, cost=x.size
    )
    return sums


@jit
def _layer_norm(dy, x, weight, eps, dx, d_weight, d_bias):
    n = x.dtype.type(x.shape[1])
    for row in range(x.shape[0]):
        g, y, out = dy[row], x[row], dx[row]
        total = x.dtype.type(0)
        for i in range(y.shape[0]):
            total += y[i]
        mean = total / n
        total = x.dtype.type(0)
        for i in range(y.shape[0]):
            total += (y[i] - mean) * (y[i] - mean)
        inverse = x.dtype.type(1) / np.sqrt(total / n + x.dtype.type(eps))
        plain, along = x.dtype.type(0), x.dtype.type(0)  # the sums of g w, and of g w n
        for i in range(y.shape[0]):
            normed = (y[i] - mean) * inverse
            plain += g[i] * weight[i]
            along += g[i] * weight[i] * normed
            d_weight[i] += g[i] * normed
            d_bias[i] += g[i]
        plain, along = plain / n, along / n
        for i in range(y.shape[0]):
            out[i] = (g[i] * weight[i] - plain - (y[i] - mean) * inverse * along) * inverse


@jit
def _rms_norm(dy, x, weight, eps, dx, d_weight):
    n = x.dtype.type(x.shape[1])
    for row in range(x.shape[0]):
        g, y, out = dy[row], x[row], dx[row]
        total = x.dtype.type(0)
        for i in range(y.shape[0]):
            total += y[i] * y[i]
        inverse = x.dtype.type(1) / np.sqrt(total / n + x.dtype.type(eps))
        along = x.dtype.type(0)  # the sum of g w n
        for i in range(y.shape[0]):
            normed = y[i] * inverse
            along += g[i] * weight[i] * normed
            d_weight[i] += g[i] * normed
        along /= n
        for i in range(y.shape[0]):
            out[i] = (g[i] * weight[i] - y[i] * inverse * along) * inverse


def norm_backward(kernel, dy, x, weight, eps, names):
    """Call kernel(dy, x, weight, eps, dx, *gradients) on shares of the rows; return dx and the
    parameters' gradients by `names`, each [C]."""
    x = working(x)
    require(dy=(dy, x.shape), weight=(weight, x.shape[-1:]))
    dy, weight = (np.ascontiguousarray(a, x.dtype) for a in (dy, weight))
    C, dx, parts = x.shape[-1], np.empty_like(x), {}
    rows = [a.reshape(-1, C) for a in (dy, x, dx)]

    def work(part):
        parts[part.start] = np.zeros((len(names), C), x.dtype)
        d, y, out = (a[part] for a in rows)
        kernel(d, y, weight, float(eps), out, *parts[part.start])

    in_parallel(work, len(rows[0]), cost=10 * x.size)
    gradients = sum(parts[start] for start in sorted(parts))  # in one order, whoever was first
    return dx, dict(zip(names, gradients))


def layer_norm_backward(dy, x, weight, eps=1e-5):
    """Of layer_norm: dy, x: [..., C]; weight: [C] -> dx [..., C], {"weight": [C], "bias": [C]}."""
    return norm_backward(_layer_norm, dy, x, weight, eps, ("weight", "bias"))


def rms_norm_backward(dy, x, weight, eps=1e-6):
    """Of rms_norm: dy, x: [..., C]; weight: [C] -> dx [..., C], {"weight": [C]}."""
    return norm_backward(_rms_norm, dy, x, weight, eps, ("weight",))


@jit
def _cross_entropy(dy, logits, targets, d_logits):
    for row in range(logits.shape[0]):
        out, size = d_logits[row], dy[row]
        share = size / exponentials(logits[row], maximum(logits[row]), out)
        for i in range(out.shape[0]):
            out[i] *= share
        out[targets[row]] -= size


def cross_entropy_backward(dy, logits, targets):
    """Of cross_entropy: d_logits = dy (softmax(logits) - onehot(target)). dy, targets: [...];
    logits: [..., V] -> [..., V]."""
    logits = working(logits)
    d_logits, (*several, V) = np.empty_like(logits), logits.shape
    require(dy=(dy, several), targets=(targets, several))
    sizes = np.ascontiguousarray(dy, logits.dtype).reshape(-1)
    ids = np.ravel(row_numbers(targets, V, "targets", "logits"))
    rows, out = logits.reshape(-1, V), d_logits.reshape(-1, V)
    in_parallel(
        lambda part: _cross_entropy(sizes[part], rows[part], ids[part], out[part]),
        len(rows),
        cost=20 * logits.size,
    )
    return d_logits


@jit
def _embedding(dy, ids, table):
    for row in range(dy.shape[0]):
        out, d = table[ids[row]], dy[row]
        for i in range(d.shape[0]):
            out[i] += d[i]


def embedding_backward(dy, ids, d_table):
    """Of table[ids]: adds dy wherever a row was looked up. dy: [..., C]; ids: [...]; d_table:
    [rows, C] -> d_table."""
    require_in_place(dy, d_table=d_table)
    n, C = d_table.shape
    require(dy=(dy, (*np.shape(ids), C)))
    ids = row_numbers(ids, n, "ids", "rows")
    _embedding(working(dy).reshape(-1, C), np.ravel(ids), d_table)
    return d_table


# ---- attention


@helper
def add_product(a, b, c):
    """c += a b. a: [M,K], which may be a transpose; b: [K,N] and c: [M,N], N a multiple of 16.

    Tiles as in products.float_matmul; rows and columns that run out are done again instead of a
    special case (every sum begins with what c held before any of them was stored).
    """
    last, last_column = a.shape[0] - 1, c.shape[1] - 16
    for left in range(0, c.shape[1], 16 * PANELS):
        right = min(left + 16, last_column)
        for m in range(0, a.shape[0], len(TILE)):
            rows = row_of(m, TILE, last)
            p, q = load_row(c, rows, left), load_row(c, rows, right)
            for k in range(b.shape[0]):
                s = spread(element(a, rows, k))
                p = fma(load_row(b, k, left), s, p)
                if PANELS == 2:
                    q = fma(load_row(b, k, right), s, q)
            store_row(c, rows, left, p)
            if PANELS == 2:
                store_row(c, rows, right, q)


@helper
def head_backward(d_context, q, k, v, context, positions, scale, scores, d_scores, dq, dk, dv):
    """One head, a tile of queries at a time, against all the keys that the tile sees. q, d_context,
    context, dq: [T,W]; k, v, dk, dv: [S,W], W and S rounded up to 16 with zeros; scores, d_scores:
    room for [QUERIES,S]."""
    S, W = k.shape
    scale, nothing, hidden = np.float32(scale), np.float32(0), np.float32(-np.inf)
    k_columns, v_columns = np.empty((W, S), np.float32), np.empty((W, S), np.float32)
    for s in range(S):
        for d in range(W):
            k_columns[d, s], v_columns[d, s] = k[s, d], v[s, d]
    for first in range(0, q.shape[0], QUERIES):
        n = min(QUERIES, q.shape[0] - first)
        seen = 0
        for t in range(n):
            seen = max(seen, min(positions[first + t] + 1, S))
        seen = (seen + 15) // 16 * 16
        weights, slopes = scores[: n * seen].reshape(n, seen), d_scores[: n * seen].reshape(n, seen)
        weights[:], slopes[:] = 0, 0
        add_product(q[first : first + n], k_columns[:, :seen], weights)
        add_product(d_context[first : first + n], v_columns[:, :seen], slopes)
        for t in range(n):
            row, slope, visible = weights[t], slopes[t], min(positions[first + t] + 1, S)
            for s in range(seen):
                row[s] = row[s] * scale if s < visible else hidden
            inverse = np.float32(1) / exponentiate(row, maximum(row))
            total = np.float32(0)  # sum_s d_weights weights = d_context . context
            for d in range(W):
                total += d_context[first + t, d] * context[first + t, d]
            for s in range(seen):
                row[s] *= inverse
                slope[s] = row[s] * (slope[s] - total) * scale if s < visible else nothing
        add_product(weights.T, d_context[first : first + n], dv[:seen])
        add_product(slopes.T, q[first : first + n], dk[:seen])
        add_product(slopes, k[:seen], dq[first : first + n])


@jit(makes_arrays=True, any_order=4)
def heads_backward(d_context, q, k, v, context, positions, scale, dq, dk, dv, first, last):
    """Key-value heads first to last of all B * K, with the heads of queries that share them, each
    copied to where its rows lie side by side, padded to 16 with zeros."""
    H, (T, D), (K, S) = q.shape[1], q.shape[2:], k.shape[1:3]
    W, S16 = (D + 15) // 16 * 16, (S + 15) // 16 * 16
    d, queries = np.zeros((T, W), q.dtype), np.zeros((T, W), q.dtype)
    out, d_q = np.zeros((T, W), q.dtype), np.empty((T, W), q.dtype)
    keys, values = np.zeros((S16, W), q.dtype), np.zeros((S16, W), q.dtype)
    d_k, d_v = np.empty((S16, W), q.dtype), np.empty((S16, W), q.dtype)
    scores, d_scores = (
        np.empty(min(QUERIES, T) * S16, q.dtype),
        np.empty(min(QUERIES, T) * S16, q.dtype),
    )
    for head in range(first, last):
        b, shared = head // K, head % K
        keys[:S, :D], values[:S, :D] = k[b, shared], v[b, shared]
        d_k[:], d_v[:] = 0, 0
        for h in range(shared * (H // K), (shared + 1) * (H // K)):
            d[:, :D], queries[:, :D], out[:, :D] = d_context[b, h], q[b, h], context[b, h]
            d_q[:] = 0
            head_backward(
                d, queries, keys, values, out, positions[b], scale, scores, d_scores, d_q, d_k, d_v
            )
            dq[b, h] = d_q[:, :D]
        dk[b, shared], dv[b, shared] = d_k[:S, :D], d_v[:S, :D]


def attention_backward(d_context, q, k, v, context, positions, scale):
    """Of `attention`, whose scores are formed again, tile by tile: memory grows with T, not with T
    * T.

    d_context, q, context: [B,H,T,D]; k, v: [B,K,S,D]; positions: [B,T] -> dq, dk, dv, of the shapes
    of q, k, v: keys and values sum up what comes from all heads of queries that share them.
    """
    (B, H, T, D), K, S = q.shape, key_heads(q, k), k.shape[2]
    queries, keys = (B, H, T, D), (B, K, S, D)
    require(d_context=(d_context, queries, q.dtype), context=(context, queries, q.dtype))
    require(k=(k, keys, q.dtype), v=(v, keys, q.dtype))
    positions = checked_positions(positions, q, S)
    if T and positions.min() < 0:
        raise ValueError("a position before the first key sees nothing, and has no gradient")
    if q.dtype != np.float32:
        return by_the_book(d_context, q, k, v, positions, scale)
    arrays = (d_context, q, k, v, context, positions, float(scale))
    # in memory as merge_heads wants it
    results = [
        np.empty((B, n, heads, D), np.float32).swapaxes(1, 2)
        for n, heads in ((T, H), (S, K), (S, K))
    ]
    in_parallel(
        lambda part: heads_backward(*arrays, *results, part.start, part.stop),
        B * K,
        cost=5 * B * H * T * S * D,
    )
    return tuple(results)


def by_the_book(d_context, q, k, v, positions, scale):
    """attention_backward in NumPy, for float64."""
    (B, H, *_), (_, K, *keys) = q.shape, k.shape
    k, v = (np.repeat(a, H // K, axis=1) for a in (k, v))
    scores = np.where(
        np.arange(k.shape[2]) <= positions[:, None, :, None],
        q @ k.swapaxes(-1, -2) * scale,
        -np.inf,
    )
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    d_weights = d_context @ v.swapaxes(-1, -2)
    d_scores = weights * (d_weights - (d_weights * weights).sum(axis=-1, keepdims=True)) * scale
    dk, dv = d_scores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ d_context
    return d_scores @ k, *(
        d.reshape(B, K, H // K, *keys).sum(axis=2, initial=-0.0) for d in (dk, dv)
    )


# ---- the optimiser


@jit
def _adamw(p, g, mean, square, keep, size, b1, b2, root, eps):
    one = p.dtype.type(1)
    for i in range(p.shape[0]):
        mean[i] = b1 * mean[i] + (one - b1) * g[i]
        square[i] = b2 * square[i] + (one - b2) * g[i] * g[i]
        p[i] = keep * p[i] - size * mean[i] / (np.sqrt(square[i]) * root + eps)


def adamw_update(
    parameter, gradient, mean, square, *, lr, step, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0
):
    """One step of AdamW, in place, in one pass over the four arrays. See training/optimizers.py."""
    require_in_place(gradient, contiguous=True, parameter=parameter, mean=mean, square=square)
    shape = parameter.shape
    require(gradient=(gradient, shape), mean=(mean, shape), square=(square, shape))
    if step < 1:
        raise ValueError(f"step is {step}; steps count from 1")
    b1, b2 = betas
    numbers = (1 - lr * weight_decay, lr / (1 - b1**step), b1, b2, 1 / math.sqrt(1 - b2**step), eps)
    numbers = [parameter.dtype.type(number) for number in numbers]
    gradient = np.ascontiguousarray(gradient, parameter.dtype)
    in_shares(lambda *parts: _adamw(*parts, *numbers), parameter, gradient, mean, square, cost=10)
