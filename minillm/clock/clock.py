"""The clock: a step that writes down when each intermediate was finished, and what the times say.

An interval belongs to the name that ends it, and a name that is never formed gives its time to the
next one. So the intervals of a cycle leave no gap, and their sum is the cycle's wall time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter_ns

import numpy as np

from .. import kernels
from ..errors import InputError
from ..steps import phase_of, under
from ..twins.choose import compiles


def counter() -> tuple[Callable[[], int], str]:
    """Return the function that the clock reads, and its name: the counter of the fused step's
    stamps where Numba is."""
    if not kernels.available():
        return perf_counter_ns, "time.perf_counter_ns"
    return kernels.now, "time-stamp counter" if compiles() else "time.perf_counter_ns"


@dataclass(frozen=True)
class CycleTimes:
    """One cycle in time: its intervals in ns since the clock's first cycle, each under the name
    that ends it.

    kind, rows, positions as in decoding.Cycle; past: positions that the cache held before. ends:
    float64 [n]. gross: ns of each interval [n]; net: without what the measuring itself took.
    """

    kind: str
    rows: int
    positions: int
    past: int
    start: float
    names: tuple[str, ...]
    ends: np.ndarray
    net: np.ndarray

    @property
    def end(self) -> float:
        """When the last name was finished: the token is known."""
        return float(self.ends[-1])

    @property
    def about(self) -> dict:
        """What it was and when, as JSON-able values; start and end in ns."""
        names = ("kind", "rows", "positions", "past", "start", "end")
        return {name: getattr(self, name) for name in names}

    @property
    def moments(self) -> int:
        """How many tokens came from it: none from a chunk of a prompt or a draft, several from a
        verify cycle."""
        return 0 if self.kind == "draft" else self.names.count("next")

    @property
    def gross(self) -> np.ndarray:
        """What passed between the names, ns [n]; sums to end - start."""
        return np.diff(self.ends, prepend=self.start)

    def sums(self, key: Callable[[str], str] = phase_of) -> dict[str, float]:
        """Return the net time in ns of each group of names: of each phase, unless `key` groups
        otherwise."""
        sums: dict[str, float] = {}
        for name, ns in zip(self.names, self.net.tolist()):
            sums[key(name)] = sums.get(key(name), 0.0) + ns
        return sums


class Clock:
    """A step that times: pass it as `step` to generate, or to a model after `begin`.

    It looks at no value, so that the model computes as it does without (fused decode step,
    streaming attention); every_step=True asks for the readable forward, in which every name is
    formed and timed.
    """

    def __init__(self, every_step: bool = False):
        self.times_only = not every_step
        self.every_step = every_step
        self._now, self.source = counter()
        self._names: list[str] = []
        self._ticks: list[int] = []
        self._begun: list[tuple] = []  # (kind, rows, positions, past, ticks, how many names before)
        self._anchor: tuple[int, int] | None = None  # (ticks, ns) of the first beginning
        self._told: list[slice] = []  # which of the ticks were stamped inside the fused step
        self._now()  # compile, if need be, before anything is timed

    def __call__(self, name: str, value):
        self._names.append(name)
        self._ticks.append(self._now())
        return value

    def begin(self, kind: str, rows: int, positions: int, past: int = 0) -> None:
        """A cycle begins; the one before ended with its last name. The decoding loop calls this."""
        if self._anchor is None:
            self._anchor = self._now(), perf_counter_ns()
        self._begun.append((kind, rows, positions, past, len(self._names), self._now()))

    def stamps(self, names: list[str], ticks: list[int]) -> None:
        """What the fused decode step has finished, and when."""
        self._told.append(slice(len(self._names), len(self._names) + len(names)))
        self._names += names
        self._ticks += ticks

    @cached_property
    def cost(self) -> float:
        """What one time stamp costs, in ns: measured on another clock, with a block's prefixes
        before the name."""
        other = Clock(self.every_step)
        step, n, best = under("attn.", under("h.0.", other)), 200, np.inf
        for _ in range(20):
            start = perf_counter_ns()
            for _ in range(n):
                step("context", None)
            best = min(best, (perf_counter_ns() - start) / n)
            other._names.clear()
            other._ticks.clear()
        return best

    @property
    def ticks_per_second(self) -> float:
        """The rate of the counter, against time.perf_counter_ns over all that has passed since the
        first cycle."""
        if self._anchor is None:
            raise InputError(
                "the clock has seen no cycle: give it as `step` to generate, or call begin(...)"
                " before the model"
            )
        return 1e9 * (self._now() - self._anchor[0]) / max(1, perf_counter_ns() - self._anchor[1])

    def cycles(self) -> list[CycleTimes]:
        """Return all cycles so far."""
        ns_per_tick = 1e9 / self.ticks_per_second
        called = np.ones(len(self._names))
        for part in self._told:
            called[part] = 0  # stamped inside a kernel, clock or not, in some 20 cycles each
        anchor = self._anchor[0] if self._anchor else 0  # without it, nothing has begun
        cycles, ends = [], [entry[4] for entry in self._begun[1:]] + [len(self._names)]
        for (kind, rows, positions, past, first, start), last in zip(self._begun, ends):
            if last == first:  # begun, and then interrupted
                continue
            names = tuple(self._names[first:last])
            ticks = np.array([start, *self._ticks[first:last]], np.float64)
            times = (ticks - anchor) * ns_per_tick
            gross = np.diff(times)
            net = np.maximum(gross - self.cost * called[first:last], 0.0)
            cycles.append(
                CycleTimes(kind, rows, positions, past, float(times[0]), names, times[1:], net)
            )
        return cycles

    @property
    def n_stamps(self) -> int:
        """How many time stamps were taken by calls; those of the fused step are there without a
        clock, too."""
        return len(self._ticks) - sum(part.stop - part.start for part in self._told)


def groups(
    cycles: Iterable[CycleTimes], key: Callable[[str], str] = phase_of
) -> dict[str, np.ndarray]:
    """Return net ns of each group of names in each cycle: {group: [cycles]}, 0 where a cycle lacks
    it."""
    sums = [cycle.sums(key) for cycle in cycles]
    return {
        group: np.array([s.get(group, 0.0) for s in sums])
        for group in dict.fromkeys(g for s in sums for g in s)
    }
