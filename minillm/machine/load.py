"""How busy the machine is with other work than ours."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

STAT = "/proc/stat"
CROWDED = 0.1  # the share of others from which what was measured is in doubt
LEAST = 0.2  # seconds below which the system's counters, in steps of 10 ms, say too little

log = logging.getLogger(__name__)


class Load:
    """Counts from its making on how much of the processors' time others took."""

    def __init__(self):
        self.before = _counted()

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
def undisturbed(what: str) -> Iterator[None]:
    """Say afterwards, where others took much of the processors' time in the block, that `what` was
    measured there is in doubt."""
    others = Load()
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
        second = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration, AttributeError):
        return None
    return whole / second, (whole - idle) / second, sum(os.times()[:4])
