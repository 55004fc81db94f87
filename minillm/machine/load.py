"""How busy the machine is with other work than ours."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STAT = "/proc/stat"
CROWDED = 0.1  # the share of others from which what was measured is in doubt
LEAST = 0.2  # seconds below which the system's counters, in steps of 10 ms, say too little

log = logging.getLogger(__name__)


class Load:
    """Counts from its making on how much of the processors' time others took: neither this process
    nor those that it has started."""

    def __init__(self) -> None:
        self.before: tuple[float, ...] | None = _counted()

    def share(self) -> float | None:
        """The share of all processors' time that others took since then, 0 to 1; None where the
        system does not say, or too little time has passed."""
        if self.before is None or (now := _counted()) is None:
            return None
        whole, busy, own = (b - a for a, b in zip(self.before, now))
        if whole < LEAST * (os.cpu_count() or 1):
            return None
        return min(1.0, max(0.0, (busy - own) / whole))

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Count nothing of what happens in the block."""
        begin = _counted()
        yield
        end, before = _counted(), self.before
        if begin and end and before:
            self.before = tuple(b + e - s for b, s, e in zip(before, begin, end))


@contextmanager
def undisturbed(what: str, others: Load | None = None) -> Iterator[None]:
    """Say afterwards, where others took much of the processors' time in the block, that `what` was
    measured there is in doubt; others: what counts it, where some of the block is not to count."""
    others = others or Load()
    yield
    if (share := others.share() or 0.0) >= CROWDED:
        log.warning(
            "others took %.0f %% of the processors while %s: measure again when they are idle",
            100 * share,
            what,
        )


def _counted() -> tuple[float, float, float] | None:
    """Seconds so far of all processors, idle or not; of those the busy ones; of these our own.
    Linux's first line is user, nice, system, idle, iowait, irq, softirq, steal, and what these hold
    already."""
    try:
        with open(STAT, encoding="ascii") as lines:
            ticks = [int(word) for word in next(lines).split()[1:9]]
        whole, idle = sum(ticks), ticks[3] + ticks[4]
        second, children = os.sysconf("SC_CLK_TCK"), _of_children()
    except (OSError, ValueError, IndexError, StopIteration, AttributeError):
        return None
    own = sum(os.times()[:4]) + children / second
    return whole / second, (whole - idle) / second, own


def _of_children() -> int:
    """Ticks of the processes that this one has started and not yet waited for, which os.times()
    leaves out: user, system, and those of the processes that they waited for themselves."""
    ticks, parent = 0, str(os.getpid())
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{process}/stat", "rb") as line:  # else it has gone
            fields = line.read().decode(errors="replace").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15])) if fields[1] == parent else 0
    return ticks
