"""Attention in the fused step, as the table calls it: one new position or a few, each thread with
its heads or its part of the context; or many positions of one text, in tiles."""

from __future__ import annotations

import numpy as np

from .compile import entry, helper
from .forms import KEYS, QUERIES, room_for_tiles
from .mathematics import exp
from .meetings import meet, share
from .memory import array_at, call, reshaped, row_at
from .rows import rms_normalize_row
from .streaming import attend, in_tiles, pack_tile
from .table import JOB, PLACE, ROOM, ROW, Job, Place, Room, Row
from .threads import STATE
from .vectors import larger, stored_like

LONG = 256  # places of a context from which heads are cut, so that all threads have as much to do


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
        contexts are cut into stretches: a lane has its part of all heads' contexts side by side,
        and writes the keys that lie there, and reads no others. There are as many lanes as threads
        at most, each with one or, while some rest, with several: that changes no sum.
        """
        row, job = row_at(at_row, ROW, np.int64), row_at(at_job, JOB, np.int64)
        room, places = row_at(at_room, ROOM, np.int64), array_at(at_places, R, PLACE, np.int64)
        H, K, D, S = job[Job.HEADS], job[Job.KEY_HEADS], job[Job.HEAD_DIM], job[Job.CAPACITY]
        lanes, group, layer = job[Job.LANES], H // K, row[Row.LAYER]
        scale = row_at(job[Job.HEAD_SCALES], layer + 1, np.float32)[layer]
        in_stretches = lanes > K
        if K % lanes:
            for r in range(R):
                if places[r, Place.FILLED] >= LONG:
                    in_stretches = True
        first_lane, end_lane = 0, 1
        if in_stretches:
            first_lane, end_lane = share(lanes, room[Room.THREAD], job[Job.THREADS])
        for lane in range(first_lane, end_lane):
            if in_stretches:
                first, end = K * lane // lanes, (K * (lane + 1) - 1) // lanes + 1
            for head in range(first, end):
                there = layer * job[Job.LAYER_BYTES] + head * job[Job.HEAD_BYTES]
                # all new keys and values first: a position may be seen by the one after it
                for r in range(R):
                    position = places[r, Place.POSITION]
                    place = position % S
                    filled = places[r, Place.FILLED]
                    start, stop = stretch(filled, head, K, lane, lanes, in_stretches)
                    if start <= place < stop:
                        key = array_at(places[r, Place.KEYS_AT] + there, S, D, dtype)[place]
                        value = array_at(places[r, Place.VALUES_AT] + there, S, D, dtype)[place]
                        new_key = at_head(row, Row.KEYS_FROM, r, head, D)
                        new_key = prepared(new_key, row[Row.KEY_NORM], position, at_job, at_room)
                        put(key, value, new_key, at_head(row, Row.VALUES_FROM, r, head, D))
                for r in range(R):
                    position = places[r, Place.POSITION]
                    filled = places[r, Place.FILLED]
                    start, stop = stretch(filled, head, K, lane, lanes, in_stretches)
                    stop = min(stop, position + 1)
                    keys = array_at(places[r, Place.KEYS_AT] + there, stop, D, dtype)[start:]
                    values = array_at(places[r, Place.VALUES_AT] + there, stop, D, dtype)[start:]
                    scores = row_at(room[Room.SCORES], max(stop - start, 0), np.float32)
                    for h in range(head * group, (head + 1) * group):
                        query = at_head(row, Row.FROM, r, h, D)
                        query = prepared(query, row[Row.QUERY_NORM], position, at_job, at_room)
                        out = at_head(row, Row.TO, r, h, D)
                        if in_stretches:
                            out = job[Job.PARTS] + 4 * (D + 2) * ((lane * R + r) * H + h)
                        m, total = np.float32(-np.inf), np.float32(0)
                        if start < stop:
                            q, context = row_at(query, D, np.float32), row_at(out, D, np.float32)
                            ahead = keys[:0]
                            if r + 1 < R and h + 1 == (head + 1) * group:  # the next text's
                                at = places[r + 1, Place.KEYS_AT] + there
                                ahead = array_at(at, stop, D, dtype)[start:]
                            m, total = attend(q, keys, values, scale, scores, context, ahead)
                        if in_stretches:
                            part = row_at(out, D + 2, np.float32)
                            part[D], part[D + 1] = m, total
        if in_stretches:
            call(job[Job.MERGE], (at_row, R, at_job, at_room))

    return attention


@helper
def stretch(filled, head, K, lane, lanes, in_stretches):
    """The places of a head's context that are the lane's: all, or its part where K heads side by
    side are cut into one part for each lane."""
    start, stop = 0, filled
    if in_stretches:
        start = filled * max(K * lane - lanes * head, 0) // lanes
        stop = filled * min(K * (lane + 1) - lanes * head, lanes) // lanes
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
        context = array_at(row[Row.TO], R, row[Row.TO_WIDTH], np.float32)
        first, end = share(R, thread, threads)
        for head in range(K):
            there = layer * job[Job.LAYER_BYTES] + head * job[Job.HEAD_BYTES]
            keys = array_at(places[0, Place.KEYS_AT] + there, filled, D, dtype)
            values = array_at(places[0, Place.VALUES_AT] + there, filled, D, dtype)
            for r in range(first, end):
                position = places[r, Place.POSITION]
                new_key = at_head(row, Row.KEYS_FROM, r, head, D)
                new_key = prepared(new_key, row[Row.KEY_NORM], position, at_job, at_room)
                new_value = at_head(row, Row.VALUES_FROM, r, head, D)
                put(keys[position], values[position], new_key, new_value)
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
                reshaped(key_tiles[i], (KEYS // 16, 16 * D)),
                reshaped(value_tiles[i], (panels, 16 * KEYS)),
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
                position, query = places[r, Place.POSITION], at_head(row, Row.FROM, r, h, D)
                query = prepared(query, row[Row.QUERY_NORM], position, at_job, at_room)
                q = row_at(query, D, np.float32)
                for d in range(D):
                    block[r - start, d] = q[d]
            these = slice(h // (H // K) * n, (h // (H // K) + 1) * n)
            in_tiles(
                block,
                places[rows, Place.POSITION],
                reshaped(key_tiles[these], (n, KEYS // 16, 16 * D)),
                reshaped(value_tiles[these], (n, panels, 16 * KEYS)),
                filled,
                scale,
                context[rows, columns],
                tile_room,
            )

    return attention


@helper
def at_head(row, column, r, head, D):
    """Where a head's numbers [D] of the r-th position are; column: of the rows, before their
    width."""
    return row[column] + 4 * (r * row[column + 1] + head * D)


@helper
def put(key, value, new_key, new_value):
    """Write a key and a value [D], from where they are, into their place of the cache, as numbers
    of its type."""
    D = key.shape[0]
    new_key, new_value = row_at(new_key, D, np.float32), row_at(new_value, D, np.float32)
    for d in range(D):
        key[d] = stored_like(new_key[d], key[d])
        value[d] = stored_like(new_value[d], value[d])


@helper
def prepared(x_at, at_norm, position, at_job, at_room):
    """Where a head's numbers [D] are, normed and turned where the model does so."""
    job, room = row_at(at_job, JOB, np.int64), row_at(at_room, ROOM, np.int64)
    if at_norm or job[Job.COSINES]:
        call(job[Job.PREPARE], (x_at, at_norm, position, at_job, at_room))
        x_at = room[Room.READY]
    return x_at


@entry
def prepare(x_at, at_norm, position, at_job, at_room):
    """Norm a head's numbers [D], turn them by the angles of their position, or both, into the
    thread's room."""
    job, room = row_at(at_job, JOB, np.int64), row_at(at_room, ROOM, np.int64)
    D = job[Job.HEAD_DIM]
    x, y = row_at(x_at, D, np.float32), row_at(room[Room.READY], D, np.float32)
    if at_norm:
        numbers = row_at(at_norm, D + 1, np.float32)
        rms_normalize_row(x, numbers[:D], numbers[D], y)
        x = y
    if job[Job.COSINES]:
        half = D // 2
        cosines = row_at(job[Job.COSINES] + 4 * half * position, half, np.float32)
        sines = row_at(job[Job.SINES] + 4 * half * position, half, np.float32)
        for i in range(half):
            a, b = x[i], x[half + i]
            y[i] = a * cosines[i] - b * sines[i]
            y[half + i] = b * cosines[i] + a * sines[i]


@entry
def merge(at_row, R, at_job, at_room):
    """The thread's share of contexts [R, H D or more], from what all found in their stretches.

    parts: [lanes * R * H, D + 2]; of a stretch its context, m, the largest score, and the sum of
    exp(score - m), which times exp(m - the largest m) is the weight of the stretch.
    """
    row, job = row_at(at_row, ROW, np.int64), row_at(at_job, JOB, np.int64)
    H, K, D = job[Job.HEADS], job[Job.KEY_HEADS], job[Job.HEAD_DIM]
    thread, threads = row_at(at_room, ROOM, np.int64)[Room.THREAD], job[Job.THREADS]
    lanes = job[Job.LANES]
    parts = array_at(job[Job.PARTS], lanes * R * H, D + 2, np.float32)
    context = array_at(row[Row.TO], R, row[Row.TO_WIDTH], np.float32)
    meet(row_at(job[Job.STATE], STATE, np.int64), threads)
    first, end = share(R * H, thread, threads)
    for i in range(first, end):
        r, h = i // H, i % H
        head, out = h // (H // K), context[r, h * D : (h + 1) * D]
        first_lane, end_lane = lanes * head // K, (lanes * (head + 1) - 1) // K + 1
        m, total = np.float32(-np.inf), np.float32(0)
        for t in range(first_lane, end_lane):
            m = larger(m, parts[(t * R + r) * H + h, D])
        for d in range(D):
            out[d] = 0
        for t in range(first_lane, end_lane):
            part = parts[(t * R + r) * H + h]
            if part[D] != -np.inf or m == -np.inf:  # else all of it weighs nothing
                weight = part[D + 1] * exp(part[D] - m)
                total += weight
                for d in range(D):
                    out[d] += weight * part[d]
        for d in range(D):
            out[d] /= total


# A cache's numbers as kernels see them: those of 16 bits are integers to Numba
SEEN_AS = {"float32": np.float32, "float16": np.int16}
ATTENTION = {name: cached_attention(seen) for name, seen in SEEN_AS.items()}
IN_TILES = {name: attention_in_tiles(seen) for name, seen in SEEN_AS.items()}
