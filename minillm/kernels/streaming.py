"""Attention that streams over the keys: softmax in pieces, so that no [T,S] array of scores is ever
formed.

Source: Milakov, Gimelshein, "Online normalizer calculation for softmax" (2018); Dao et al.,
"FlashAttention" (2022).
"""

from __future__ import annotations

import numpy as np

from .checks import FLOATS, require
from .compile import helper, jit
from .forms import KEYS, QUERIES, room_for_tiles
from .memory import reshaped
from .products import float_matmul
from .rows import exponentiate, maximum
from .threads import in_parallel
from .vectors import number, prefetch


@helper
def attend(q, keys, values, scale, scores, context, ahead):
    """One query: context = softmax(q keys^T * scale) values. q, context: [D]; keys, values: [S,D],
    of float16 as int16 too; scores: room for S. Returns m, the largest score, and the sum of
    exp(score - m).

    ahead: keys that are read after these, such as another text's. Memory begins to bring them, as
    it does the values, while there is something else to compute.
    """
    for s in range(keys.shape[0]):
        key, total = keys[s], q.dtype.type(0)
        for d in range(q.shape[0]):
            total += q[d] * number(key[d])
        scores[s] = total * scale
        for d in range(0, q.shape[0], 16):
            prefetch(values[s], d)
    m = maximum(scores)
    sum_of_all = exponentiate(scores, m)
    inverse = q.dtype.type(1) / sum_of_all
    for d in range(context.shape[0]):
        context[d] = 0
    whole = keys.shape[0] // 4 * 4
    for s in range(0, whole, 4):  # four values at a time: a fourth of the traffic with context
        for n in range(s, min(s + 4, ahead.shape[0])):
            for d in range(0, q.shape[0], 16):
                prefetch(ahead[n], d)
        v0, v1, v2, v3 = values[s], values[s + 1], values[s + 2], values[s + 3]
        w0, w1, w2, w3 = (
            scores[s] * inverse,
            scores[s + 1] * inverse,
            scores[s + 2] * inverse,
            scores[s + 3] * inverse,
        )
        for d in range(context.shape[0]):
            context[d] += (
                w0 * number(v0[d]) + w1 * number(v1[d]) + w2 * number(v2[d]) + w3 * number(v3[d])
            )
    for s in range(whole, keys.shape[0]):
        value, weight = values[s], scores[s] * inverse
        for d in range(context.shape[0]):
            context[d] += weight * number(value[d])
    return m, sum_of_all


@helper
def one_by_one(q, keys, values, positions, scale, out, scores):
    """Every query by itself: for a single one, and for float64. q, out: [T,D]; keys, values: [S,D];
    scores: room for S."""
    for t in range(q.shape[0]):
        seen = min(positions[t] + 1, keys.shape[0])
        if seen > 0:
            k, v, room = keys[:seen], values[:seen], scores[:seen]
            attend(q[t], k, v, q.dtype.type(scale), room, out[t], keys[:0])
        else:
            out[t] = np.nan  # softmax of nothing


@helper
def in_tiles(q, positions, key_tiles, value_tiles, n_keys, scale, out, room):
    """At most QUERIES queries by tiles of keys, each a small matrix product and a part of softmax.

    q: [T,D]; positions: [T]; key_tiles, value_tiles: [tiles, ...] of n_keys, see pack_tile; out:
    [T,D]; room: zeros [room_for_tiles(D)]. For every query are kept m, the largest score so far;
    total, the sum of exp(score - m); and the sum of the values weighted by these. A tile with a
    larger score makes the latter two smaller by exp(old m - new m).
    """
    T, D = q.shape
    width = (D + 15) // 16 * 16
    m, total, rest = room[:QUERIES], room[QUERIES : 2 * QUERIES], room[2 * QUERIES :]
    sums, rest = reshaped(rest, (T, width)), rest[QUERIES * width :]
    tile_sums, rest = reshaped(rest, (T, width)), rest[QUERIES * width :]
    nothing = rest[QUERIES * KEYS :]
    last_seen = positions[0]
    for t in range(T):
        last_seen = max(last_seen, positions[t])
        m[t], total[t] = -np.inf, 0
        for d in range(width):
            sums[t, d] = 0
    for start in range(0, min(n_keys, last_seen + 1), KEYS):
        n = min(KEYS, n_keys - start)
        # of the keys; what comes after is not seen by any
        some = min((n + 15) // 16 * 16, (last_seen - start + 16) // 16 * 16)
        scores = reshaped(rest, (T, some))
        float_matmul(key_tiles[start // KEYS, : some // 16], q, nothing, scores, 0)
        for t in range(T):
            row, seen = scores[t], min(n, positions[t] + 1 - start)
            if seen > 0:
                for s in range(seen):
                    row[s] *= np.float32(scale)
                new_m = max(m[t], maximum(row[:seen]))
                shrink = np.exp(m[t] - new_m)  # 0 at the first tile, where m is -inf
                m[t] = new_m
                total[t] = total[t] * shrink + exponentiate(row[:seen], new_m)
                for d in range(width):
                    sums[t, d] *= shrink
            for s in range(max(seen, 0), some):
                row[s] = 0
        float_matmul(value_tiles[start // KEYS], scores, nothing, tile_sums, 0)
        for t in range(T):
            for d in range(width):
                sums[t, d] += tile_sums[t, d]
    for t in range(T):
        for d in range(D):
            out[t, d] = sums[t, d] / total[t]


@helper
def pack_tile(keys, values, key_panels, value_panels):
    """At most KEYS keys and values [n,D] as products.py wants the outputs of a weight.

    key_panels: [KEYS / 16, 16 D], sixteen keys side by side; value_panels: [D / 16 rounded up, 16
    KEYS], sixteen columns of the values; zeros where there is nothing.
    """
    n, D = keys.shape
    for s in range(n):
        panel = key_panels[s // 16]
        for d in range(D):
            panel[16 * d + s % 16] = number(keys[s, d])
    for c in range(value_panels.shape[0]):
        panel, columns = value_panels[c], min(16, D - 16 * c)
        for s in range((n + 15) // 16 * 16):
            for d in range(16):
                inside = s < n and d < columns
                panel[16 * s + d] = number(values[s, 16 * c + d]) if inside else 0


@jit(makes_arrays=True, any_order=4)
def heads_one_by_one(q, k, v, positions, scale, out, room, first, last):
    """Heads first to last of all B * H, whose rows lie side by side or not, each copied to where
    they do."""
    H, (T, D), (K, S) = q.shape[1], q.shape[2:], k.shape[1:3]
    queries, keys, values = (
        np.empty((T, D), q.dtype),
        np.empty((S, D), q.dtype),
        np.empty((S, D), q.dtype),
    )
    context = np.empty((T, D), q.dtype)
    for head in range(first, last):
        b, h = head // H, head % H
        queries[:] = q[b, h]
        keys[:], values[:] = k[b, h // (H // K)], v[b, h // (H // K)]
        one_by_one(queries, keys, values, positions[b], scale, context, room)
        out[b, h] = context


@jit(makes_arrays=True, any_order=4)
def heads_in_tiles(q, k, v, positions, scale, out, room, first, last):
    """heads_one_by_one, in tiles."""
    H, (T, D), (K, S) = q.shape[1], q.shape[2:], k.shape[1:3]
    queries, context = np.empty((T, D), q.dtype), np.empty((T, D), q.dtype)
    tiles, packed = (S + KEYS - 1) // KEYS, -1
    key_tiles = np.empty((tiles, KEYS // 16, 16 * D), q.dtype)
    value_tiles = np.empty((tiles, (D + 15) // 16, 16 * KEYS), q.dtype)
    for head in range(first, last):
        b, h, group = head // H, head % H, head // (H // K)
        if group != packed:  # H / K heads in turn have the same keys and values
            keys, values, packed = k[b, h // (H // K)], v[b, h // (H // K)], group
            for tile in range(tiles):
                these = slice(KEYS * tile, KEYS * (tile + 1))
                pack_tile(keys[these], values[these], key_tiles[tile], value_tiles[tile])
        queries[:] = q[b, h]
        for start in range(0, T, QUERIES):
            rows = slice(start, start + QUERIES)
            in_tiles(
                queries[rows],
                positions[b, rows],
                key_tiles,
                value_tiles,
                S,
                scale,
                context[rows],
                room,
            )
        out[b, h] = context


def key_heads(q, k) -> int:
    """K, the number of key-value heads, of which each serves H / K queries' heads in turn. q:
    [B,H,T,D]; k: [B,K,S,D]."""
    H, K = q.shape[1], np.shape(k)[1] if np.ndim(k) == 4 else 0
    if not K or H % K:
        raise ValueError(f"{H} heads of queries do not share {np.shape(k)} keys: [B,K,S,D]")
    return K


def checked_positions(positions, q, n_keys):
    """positions [B,T] as int64 from -1, who sees no key, to the last key: who stands behind it sees
    no more. q: [B,H,T,D]."""
    positions = np.asarray(positions)
    require(positions=(positions, q.shape[::2]))
    if positions.dtype.kind not in "iu" or q.dtype not in FLOATS:
        raise ValueError(f"positions of {positions.dtype} and q of {q.dtype}: integers and floats")
    return np.minimum(positions, n_keys).astype(np.int64).clip(-1, n_keys - 1)


def attention(q, k, v, positions, scale):
    """Causal attention, softmax(q k^T * scale) v where key s is visible from position p when s <=
    p.

    q: [B,H,T,D]; k, v: [B,K,S,D], each head for H / K heads of q in turn; positions: [B,T]; all of
    float32 or all of float64 -> [B,H,T,D]. Memory grows with T + S, not with T * S.
    """
    (B, H, T, D), K, S = q.shape, key_heads(q, k), k.shape[2]
    require(k=(k, (B, K, S, D)), v=(v, (B, K, S, D)))
    positions = checked_positions(positions, q, S)
    out = np.empty((B, T, H, D), q.dtype).swapaxes(1, 2)  # in memory as merge_heads wants it
    k, v = k.astype(q.dtype, copy=False), v.astype(q.dtype, copy=False)
    tiles = (
        q.dtype == np.float32 and T > 1 and T * S >= 4096
    )  # less is done before tiles would be compiled
    kernel = heads_in_tiles if tiles else heads_one_by_one

    def work(part):
        room = np.zeros(room_for_tiles(D) if tiles else S, q.dtype)
        kernel(q, k, v, positions, float(scale), out, room, part.start, part.stop)

    in_parallel(work, B * H, cost=B * H * T * S * D)
    return out
