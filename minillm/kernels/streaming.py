"""Attention that streams over the keys: softmax in pieces, so that no [T,S] array of scores is ever formed.

Source: Milakov, Gimelshein, "Online normalizer calculation for softmax" (2018); Dao et al., "FlashAttention" (2022).
"""

from __future__ import annotations

import numpy as np

from .compile import helper, jit
from .products import float_matmul
from .rows import exponentials, maximum
from .threads import in_parallel
from .vectors import number

KEYS, QUERIES = 256, 64  # of one tile: its scores are 64 KiB, which stay in the second-level cache


@helper
def attend(q, keys, values, scale, scores, context):
    """One query: context = softmax(q keys^T * scale) values. q, context: [D]; keys, values: [S,D], of float16
    as int16 too; scores: room for S."""
    for s in range(keys.shape[0]):
        key, total = keys[s], q.dtype.type(0)
        for d in range(q.shape[0]):
            total += q[d] * number(key[d])
        scores[s] = total * scale
    total = exponentials(scores, maximum(scores), scores)
    for d in range(context.shape[0]):
        context[d] = 0
    for s in range(keys.shape[0]):
        value, weight = values[s], scores[s] / total
        for d in range(context.shape[0]):
            context[d] += weight * number(value[d])


@jit
def one_by_one(q, keys, values, positions, scale, out):
    """Every query by itself: for a single one, and for float64. q, out: [T,D]; keys, values: [S,D]; positions: [T]."""
    scores = np.empty(keys.shape[0], q.dtype)
    for t in range(q.shape[0]):
        seen = min(positions[t] + 1, keys.shape[0])
        if seen > 0:
            attend(q[t], keys[:seen], values[:seen], q.dtype.type(scale), scores[:seen], out[t])
        else:
            out[t] = np.nan  # softmax of nothing


@jit
def in_tiles(q, keys, values, positions, scale, out, m, total, sums, key_panels, value_room, room, tile_sums, nothing):
    """Tiles of queries by tiles of keys, each a small matrix product, softmax done a tile at a time.

    For every query are kept m, the largest score so far; total, the sum of exp(score - m); and the sum of the values
    weighted by these [T, D rounded up]. A tile with a larger score makes the latter two smaller by exp(old m - new m).
    """
    T, S, D, width = q.shape[0], keys.shape[0], q.shape[1], sums.shape[1]
    for t in range(T):
        m[t], total[t] = -np.inf, 0
        for d in range(width):
            sums[t, d] = 0
    for start in range(0, S, KEYS):
        n = min(KEYS, S - start)
        n16 = (n + 15) // 16 * 16
        value_panels = value_room[: width * n16].reshape(width // 16, 16 * n16)
        pack_keys(keys[start : start + n], key_panels)
        pack_values(values[start : start + n], value_panels)
        for first in range(0, T, QUERIES):
            rows = min(QUERIES, T - first)
            last_seen = positions[first]
            for t in range(rows):
                last_seen = max(last_seen, positions[first + t])
            if last_seen < start:  # the whole tile lies in the future
                continue
            scores = room[: rows * n16].reshape(rows, n16)
            float_matmul(key_panels[: n16 // 16], q[first : first + rows], nothing, scores, 0)
            for t in range(rows):
                row, seen = scores[t], min(n, positions[first + t] + 1 - start)
                if seen > 0:
                    for s in range(seen):
                        row[s] *= np.float32(scale)
                    new_m = max(m[first + t], maximum(row[:seen]))
                    shrink = np.exp(m[first + t] - new_m)  # 0 at the first tile, where m is -inf
                    m[first + t] = new_m
                    total[first + t] = total[first + t] * shrink + exponentials(row[:seen], new_m, row[:seen])
                    for d in range(width):
                        sums[first + t, d] *= shrink
                for s in range(max(seen, 0), n16):
                    row[s] = 0
            float_matmul(value_panels, scores, nothing, tile_sums, 0)
            for t in range(rows):
                for d in range(width):
                    sums[first + t, d] += tile_sums[t, d]
    for t in range(T):
        for d in range(D):
            out[t, d] = sums[t, d] / total[t]


@helper
def pack_keys(keys, panels):
    """[n,D] -> [n / 16, 16 D]: sixteen keys side by side, as products.py wants the outputs of a weight."""
    for s in range(keys.shape[0]):
        panel = panels[s // 16]
        for d in range(keys.shape[1]):
            panel[16 * d + s % 16] = keys[s, d]


@helper
def pack_values(values, panels):
    """[n,D] -> [D / 16, 16 n], both rounded up with zeros: sixteen columns of the values side by side."""
    n, D = values.shape
    for c in range(panels.shape[0]):
        panel, columns = panels[c], min(16, D - 16 * c)
        for s in range(panel.shape[0] // 16):
            for d in range(16):
                panel[16 * s + d] = values[s, 16 * c + d] if s < n and d < columns else 0


def attention(q, k, v, positions, scale):
    """Causal attention, softmax(q k^T * scale) v where key s is visible from position p when s <= p.

    q: [B,H,T,D]; k, v: [B,H,S,D]; positions: [B,T]; all of float32 or all of float64 -> [B,H,T,D]. Memory grows with
    T + S, not with T * S.
    """
    (B, H, T, D), S = q.shape, k.shape[2]
    out = np.empty((B, T, H, D), q.dtype).swapaxes(1, 2)  # in memory as merge_heads wants it
    positions = np.ascontiguousarray(positions, np.int64)
    width = -(-D // 16) * 16
    shapes = [T, T, (T, width), (KEYS // 16, 16 * D), width * KEYS, QUERIES * KEYS, (QUERIES, width)]
    tiles = q.dtype == np.float32 and T > 1 and T * S >= 4096  # less is done before in_tiles would be compiled
    kernel = in_tiles if tiles else one_by_one

    def work(part):
        room = [np.empty(shape, np.float32) for shape in shapes] + [np.zeros(max(KEYS, width), np.float32)]
        for head in range(part.start, part.stop):
            b, h = divmod(head, H)
            queries, keys, values = (np.ascontiguousarray(a[b, h], q.dtype) for a in (q, k, v))
            context = np.empty_like(queries)
            kernel(queries, keys, values, positions[b], float(scale), context, *(room if kernel is in_tiles else ()))
            out[b, h] = context

    in_parallel(work, B * H, cost=B * H * T * S * D)
    return out
