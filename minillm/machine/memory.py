"""How much memory is free, and how much this process has: in bytes, None where the system does not
say."""

from __future__ import annotations

import os
import sys


def free_bytes() -> int | None:
    """How much memory the system can give."""
    free = _table("/proc/meminfo", "MemAvailable")
    return total_bytes() if free is None else free


def total_bytes() -> int | None:
    """How much memory the machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def address_space() -> int | None:
    """How much memory this process has asked for, used or not: what RLIMIT_AS limits (Linux)."""
    return _table("/proc/self/status", "VmSize")


def peak_bytes() -> int | None:
    """The most memory that this process has held.

    Linux: of /proc, since what getrusage says there counts the memory of the parent that it was
    started from.
    """
    if (peak := _table("/proc/self/status", "VmHWM")) is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _table(file: str, name: str) -> int | None:
    """A line "name: n kB" of one of Linux's tables, in bytes."""
    try:
        with open(file, encoding="ascii", errors="replace") as lines:
            return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(f"{name}:"))
    except (OSError, StopIteration, ValueError):
        return None
