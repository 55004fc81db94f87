"""The table of the fused step: its columns, and those of what its instructions share.

A column is a number of 8 bytes: a count, or the address of a kernel or an array. Arrays of rows
have their width beside them.
"""

from __future__ import annotations

from enum import IntEnum


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
    LANES = 10  # into how many stretches contexts are cut, however many threads there are now
    STATE = 11  # the team's, for meetings
    PARTS = 12  # room for what is found in stretches of the context
    MERGE = 13  # the kernel that merges what was found there
    PREPARE = 14  # the kernel that norms and turns queries and keys, if it does
    TABLE = 15
    INSTRUCTIONS = 16  # how many rows the table has
    PLACES = 17  # of the new positions, see Place
    STAMPS = 18  # the ticks at which each step was finished
    TAKEN = 19  # of each instruction, how many shares of its product have been taken
    ROWS = 20  # R, new positions
    KEPT = 21  # of these the ones whose logits are wanted
    ATTEND = 22  # the kernel of attention for the cache's type
    CAPACITY = 23  # places in a row of the cache
    LAYER_BYTES = 24  # from one layer's keys to the next layer's
    HEAD_BYTES = 25  # from one head's keys to the next head's
    TILES = 26  # room for the keys and values of one layer in tiles, where attention uses them
    NOT_FINITE = 27  # 1: numbers that are not finite were to be put into blocks


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
    Q = 1  # a product's rows in blocks of 8 bits, or rounded to bfloat16
    Q_SCALES = 2
    Q_SUMS = 3
    SCORES = 4  # of one query
    READY = 5  # one query, or one key, normed and turned
    THREAD = 6  # its number
    ROUNDED = 7  # which rows are there, see instructions.rounded
    QUERIES = 8  # one head's of a few positions, normed and turned
    TILE_ROOM = 9  # see streaming.in_tiles
    PANEL = 10  # see products.int4_matmul and pair_matmul


ROW, JOB, PLACE, ROOM = (len(columns) for columns in (Row, Job, Place, Room))
FEW = 32  # positions up to which a pass is a matter of microseconds, and waiting, too
