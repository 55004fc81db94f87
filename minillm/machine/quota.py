"""What a hub or a container allows: its share of the processor and of the memory, from Linux's
control groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ..errors import InputError
from .memory import free_bytes

SMALL = 1 << 20
GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int | None:
    """Return how many cores the quota is worth, rounded up; None where there is none."""
    shares = [
        int(quota) / int(period)
        for quota, period in _values("cpu", "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
    ]
    return math.ceil(min(shares)) if shares else None


def memory() -> int | None:
    """Return how many bytes may be used; None where there is no limit."""
    limits = [int(limit) for (limit,) in _values("memory", "memory.max", "memory.limit_in_bytes")]
    return min(limits) if limits else None


def _values(controller: str, file: str, *older: str) -> Iterator[list[str]]:
    """Yield the limits of our group and of those it lies in: from `file`, or from the files of the
    older version, one each."""
    with suppress(OSError, ValueError):
        for line in OWN.read_text().splitlines():
            _, names, path = line.split(":", 2)
            if names and controller not in names.split(","):
                continue
            root, files = (GROUPS / controller, older) if names else (GROUPS, (file,))
            inner = PurePosixPath(path.lstrip("/"))
            for group in dict.fromkeys((inner, *inner.parents)):
                with suppress(OSError):
                    words = [
                        word for name in files for word in (root / group / name).read_text().split()
                    ]
                    if all(
                        word.isdigit() and len(word) < 18 for word in words
                    ):  # "max", -1 or nearly 2^63: no limit
                        yield words


def require_memory(what: str, needed: int, instead: str) -> None:
    """Raise InputError where `what` takes more bytes than are free; instead: what to ask for.

    Less than SMALL is not looked at: to ask the system takes longer than a small model's token.
    """
    if needed < SMALL:
        return
    free = min((n for n in (free_bytes(), memory()) if n is not None), default=None)
    if free is not None and needed > free:
        raise InputError(
            f"{what} would take about {_size(needed)}, and {_size(free)} are free: {instead}"
        )


def _size(n_bytes: int) -> str:
    if n_bytes >= 10**15:  # perhaps more than a float can hold
        return "more than a million GB"
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.1f} MB"
