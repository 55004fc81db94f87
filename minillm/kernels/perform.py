"""The kernel that all threads of the fused step run side by side, from the embedded tokens to the
logits, and all that it calls by an address."""

from __future__ import annotations

import numpy as np

from . import rows
from .attending import ATTENTION, IN_TILES, attention, merge, prepare
from .compile import entry, helper
from .instructions import ACTIVATIONS, NORMS, PRODUCTS, activate, residual
from .meetings import atomic_add, atomic_load, called_again, meet, share, tired
from .memory import call, row_at, ticks
from .table import FEW, JOB, ROOM, ROW, Job, Room, Row
from .threads import ROUND, STATE

SHARES = 4  # of a product for each thread, where there are many positions


@entry
def perform(at_job, at_room):
    """Carry out the table; at_room: this thread's own (table.py).

    Where there are many rows, a thread that is free takes the next share of a product, so that the
    others need not wait for one that the system has put aside. Then all meet after each. With few
    rows, once they have waited for long the first thread does the rest of the pass alone.
    """
    job, room = row_at(at_job, JOB, np.int64), row_at(at_room, ROOM, np.int64)
    thread, team = room[Room.THREAD], job[Job.THREADS]
    state = row_at(job[Job.STATE], STATE, np.int64)
    taken = row_at(job[Job.TAKEN], job[Job.INSTRUCTIONS], np.int64)
    at_places = job[Job.PLACES]
    calls, again = 0, True
    while again:
        threads, began, few = team, atomic_load(state, ROUND), job[Job.ROWS] <= FEW
        n = stamp(job, 0, thread)
        room[Room.ROUNDED] = 0
        for i in range(job[Job.INSTRUCTIONS]):
            at_row = job[Job.TABLE] + 8 * ROW * i
            row = row_at(at_row, ROW, np.int64)
            R = job[Job.KEPT] if row[Row.LOGITS] else job[Job.ROWS]
            in_turn = R > FEW and row[Row.PRODUCT] != 0
            part, parts = thread, threads
            if row[Row.NORM]:
                call(row[Row.NORM], (at_row, 0, 0, R, at_job, at_places, at_room))
                n = stamp(job, n, thread)
            if in_turn:
                parts = SHARES * threads
                part = atomic_add(taken, i, 1)
            while part < parts:
                first, end = share(row[Row.PANELS], part, parts)
                if row[Row.PRODUCT]:
                    call(row[Row.PRODUCT], (at_row, first, end, R, at_job, at_places, at_room))
                if row[Row.THEN]:
                    call(row[Row.THEN], (at_row, first, end, R, at_job, at_places, at_room))
                part = atomic_add(taken, i, 1) if in_turn else parts
            if in_turn or row[Row.MEET]:
                meet(state, threads)
                if few and threads > 1 and tired(state, began):
                    if thread > 0:
                        break
                    threads = job[Job.THREADS] = 1
            if row[Row.MEET]:
                n = stamp(job, n, thread)
        if thread == 0:
            job[Job.THREADS] = team
        again = thread > 0 and called_again(state, calls)  # the first thread takes the logits home
        calls += 1


@helper
def stamp(job, n, thread):
    """Write down when step n was finished (the first thread keeps the book); returns the next
    step's number."""
    if thread == 0:
        row_at(job[Job.STAMPS], n + 1, np.int64)[n] = ticks()
    return n + 1


KERNELS = {  # what they do -> name -> kernel
    "norm": NORMS,
    "product": PRODUCTS,
    "then": {"attend": attention, "residual": residual, "activate": activate},
    "heads": {"prepare": prepare, "merge": merge},
    "activation": ACTIVATIONS,
    "attention": ATTENTION,
    "tiles": IN_TILES,
    "pass": {"perform": perform},
    **rows.KERNELS,
}
