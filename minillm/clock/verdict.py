"""What a clock's times say, in words: the answer, what binds it, what to change and by how much,
and what is uncertain. It works from the times alone, whichever engine was timed.

A decode cycle's time is divided by the machine's limits (prediction.py): reading and arithmetic
take what they must, whichever is longer, and the rest is overhead, such as calls, threads waiting
for one another, and neighbours. What would be faster is predicted by the same limits; what they do
not explain stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import families
from ..costs import FLOAT
from ..errors import count
from ..recording import Recording
from ..weights import KINDS
from .clock import CycleTimes
from .costs import Cost, step_costs, total
from .limits import Limits
from .prediction import Prediction, predict

if TYPE_CHECKING:
    from .report import ClockReport

READING, ARITHMETIC, OVERHEAD = "reading", "arithmetic", "overhead"
NARROWER = {"float64": "float32", "float32": "int8", "bfloat16": "int8", "float16": "int8"}
NARROWER |= {"int8": "int4"}
TEXTS = 8  # at once, in what is said of batches
BUSY, SPREAD, FEW = 0.05, 0.2, 8  # from which, or below which, a verdict is uncertain
LITTLE = 1.1  # times as fast: below, a change hardly helps


@dataclass(frozen=True)
class Evidence:
    """What a verdict is made of. kind: how the model's matrices are stored; busy: the share of the
    machine that others took meanwhile, None where nobody looked; cached: bytes of a number in the
    cache."""

    config: Any
    kind: str
    cycles: Sequence[CycleTimes]
    limits: Limits | None = None
    busy: float | None = None
    cached: int = FLOAT

    @classmethod
    def of_report(cls, report: ClockReport) -> Evidence:
        """What a clock's report holds."""
        return cls(report.config, report.kind, report.cycles, report.limits, report.busy)

    @classmethod
    def of_recording(cls, recording: Recording) -> Evidence:
        """What a recording holds; InputError for a config or limits that cannot be."""
        header, arrays = recording.header, recording.arrays
        model, machine, limits = header["model"], header["machine"], header["limits"]
        config = families.parse_config(model["config"], "the recording's config")
        cycles = []
        for number, c in enumerate(header["cycles"]):
            part = recording.intervals(number)
            ends, net = (arrays[f"times.{what}"][part].astype(float) for what in ("ends", "net"))
            form = c["kind"], c["rows"], c["positions"], c["past"], c["start"]
            cycles.append(
                CycleTimes(*form, tuple(header["names"][c["names"]]), c["start"] + ends, net)
            )
        busy = machine.get("busy")
        return cls(
            config,
            model["stored"],
            [cycle for cycle in cycles if cycle.names],
            limits and Limits.from_dict({**limits, "machine": machine}, "the recording's limits"),
            busy if isinstance(busy, float) and 0 <= busy <= 1 else None,
        )


@dataclass(frozen=True)
class Verdict:
    """seconds: of a decode cycle, the median, None without one. shares: how it is divided between
    reading, arithmetic and overhead; binds: the largest. levers: {what to change: tokens/s then}.
    sentences: under "answer", "binds", "change" and "uncertain", as far as there is anything to
    say."""

    seconds: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    binds: str = ""
    levers: Mapping[str, float] = field(default_factory=dict)
    sentences: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(filter(None, self.sentences.values()))

    def to_dict(self) -> dict:
        """JSON-able values."""
        return asdict(self) | {"text": str(self)}


def verdict(evidence: Evidence) -> Verdict:
    """Return what the times of some cycles say."""
    decode = [cycle for cycle in evidence.cycles if cycle.kind == "decode"]
    if not decode:
        return Verdict(sentences={"answer": _without_decode(evidence.cycles)})
    times = np.array([max(cycle.net.sum(), 1.0) for cycle in decode]) / 1e9
    seconds, rows = float(np.median(times)), decode[len(decode) // 2].rows
    answer = f"Each token costs {duration(seconds)}, which is {per_second(seconds)}."
    if rows > 1:
        answer = (
            f"A token in each of {rows} texts costs {duration(seconds)}, which is"
            f" {rate_of(rows / seconds)} together."
        )
    if evidence.limits is None:
        said = {"answer": answer, "uncertain": _uncertain(evidence, times, None)}
        said["uncertain"] = f"What binds it is unknown without limits. {said['uncertain']}".strip()
        return Verdict(seconds, sentences=said)
    work = OneToken(evidence, decode[len(decode) // 2], seconds)
    shares = work.shares
    binds = max(shares, key=lambda what: shares[what])
    levers, change = work.change(binds)
    said = {
        "answer": answer,
        "binds": work.said(binds),
        "change": change,
        "uncertain": _uncertain(evidence, times, work),
    }
    return Verdict(seconds, shares, binds, levers, said)


class OneToken:
    """What one decode cycle has to do, and how long it must take."""

    def __init__(self, evidence: Evidence, cycle: CycleTimes, seconds: float):
        assert evidence.limits
        self.config, self.kind, self.cycle = evidence.config, evidence.kind, cycle
        self.cached = evidence.cached
        self.seconds = seconds
        self.limits = evidence.limits.with_kinds([*KINDS, self.kind], self.kind)
        cores = self.limits.machine.get("cores")
        self.threads, self.cores = self.limits.threads, cores if isinstance(cores, int) else None
        self.cost = self.costs(self.kind)
        self.parts = divided(self.predictions().values())

    def costs(self, kind: str) -> Cost:
        """All of a cycle's work with matrices stored as `kind`."""
        c = self.cycle
        shape = c.positions, c.past, c.rows
        return total(step_costs(self.config, *shape, kind, cached=self.cached).values())

    def predictions(self, kind: str = "", texts: int = 1) -> dict[str, Prediction]:
        """What the limits say, also of matrices stored otherwise, and of several such cycles in
        one."""
        c = self.cycle
        shape = c.positions, c.past, c.rows * texts
        kind = kind or self.kind
        return predict(self.config, self.limits, c.names, *shape, kind, cached=self.cached)

    @property
    def predicted(self) -> float:
        """Seconds by the limits."""
        return sum(self.parts.values())

    @property
    def shares(self) -> dict[str, float]:
        """How much of the measured time is reading, arithmetic, and neither."""
        known = self.parts[READING] + self.parts[ARITHMETIC]
        whole = max(known, self.seconds)
        shares = {what: self.parts[what] / whole for what in (READING, ARITHMETIC)}
        return shares | {OVERHEAD: 1 - known / whole}

    def instead(self, predicted: float) -> float:
        """Seconds of a cycle for which the limits say `predicted`: what they do not explain of this
        one stays, and where it was faster than they allow, that one would be as well."""
        if self.predicted >= self.seconds:
            return self.seconds * predicted / self.predicted
        return self.seconds - self.predicted + predicted

    def said(self, binds: str) -> str:
        """The sentence of what binds."""
        share = percent(self.shares[binds]).replace("100 %", "All")
        if binds == READING:
            once = self.cost.weights + self.cost.cache
            rate = self.limits.bandwidth_at(once)
            near = rate > 1.5 * self.limits.bandwidth[max(self.limits.bandwidth)]
            where = "the processor's caches give" if near else "the memory gives"
            return (
                f"{share} of that is reading {size(once)} of {self.read()} at {size(rate)}/s,"
                f" the most that {where}{self.on(' ')}."
            )
        if binds == ARITHMETIC:
            rate = self.cost.flops / self.parts[ARITHMETIC]
            return (
                f"{share} of that is arithmetic: {self.cost.flops / 1e6:,.0f} MFLOP, at"
                f" {rate / 1e9:,.1f} GFLOP/s at most{self.on(' on ')}."
            )
        names, overhead = len(self.cycle.names), self.shares[OVERHEAD] * self.seconds
        waiting = percent(min(1.0, self.parts[OVERHEAD] / overhead))
        return (
            f"{share} of that is neither reading nor arithmetic, but overhead, some"
            f" {duration(overhead / names)} for each of {count(names, 'step')}; calls and"
            f" threads that wait for one another explain {waiting} of it."
        )

    def on(self, before: str) -> str:
        """How many threads, where there are any to choose."""
        return "" if self.cores is None else before + count(self.threads, "thread")

    def read(self) -> str:
        """What is read, in words."""
        weights, cache = self.cost.weights, self.cost.cache
        if min(weights, cache) > max(weights, cache) / 10:
            return "weights, keys and values"
        return "weights" if weights > cache else "keys and values"

    def change(self, binds: str) -> tuple[dict[str, float], str]:
        """What to change: {lever: tokens/s of all texts together}, and the sentence."""
        levers, said, rows = {}, [], self.cycle.rows
        texts = TEXTS * rows
        together = texts / self.instead(_seconds(self.predictions(texts=TEXTS)))
        all_at_once = f"{texts} texts at once would give {rate_of(together)} together"
        cores = self.cores or 0  # 0: nobody said
        idle = self.threads < cores
        kind = NARROWER.get(self.kind)
        narrower = self.instead(_seconds(self.predictions(kind))) if kind else self.seconds
        helps = self.seconds / narrower >= LITTLE
        would_give = f"{kind} would give {rate_of(rows / narrower)}"
        if binds == READING:
            if kind and self.cost.weights > self.cost.cache / 2:
                bytes_, cost = self.cost.weights + self.cost.cache, self.costs(kind)
                levers[kind] = rows / narrower
                said.append(
                    f"{percent((cost.weights + cost.cache) / bytes_)} of the bytes,"
                    f" {percent(narrower / self.seconds)} of the time: {would_give}"
                )
            elif self.cost.weights <= self.cost.cache / 2:
                said.append("A shorter context, or a cache of fewer bits, would be read faster")
            else:
                levers[f"batch of {texts}"] = together
                said.append(f"The weights are narrow already; {all_at_once}")
            if idle:
                said.append(f"more threads help as far as {cores} cores read faster than that")
            elif cores:
                said.append("more threads will not help")
        elif binds == ARITHMETIC:
            if idle:
                after = self.seconds - self.parts[ARITHMETIC] * (1 - self.threads / cores)
                levers[f"{cores} threads"] = rows / after
                said.append(
                    f"{cores} threads instead of {self.threads} would give up to"
                    f" {rate_of(rows / after)}"
                )
            if kind and helps:
                levers[kind] = rows / narrower
                said.append(f"{would_give}, and less arithmetic will help, as of a smaller model")
            else:
                said.append(
                    "fewer bytes will not help, less arithmetic will, as of a smaller model"
                )
        else:
            levers[f"batch of {texts}"] = together
            said.append(f"Several texts share it: {all_at_once}")
            little = []
            if kind and helps:
                levers[kind] = rows / narrower
                said.append(would_give)
            else:
                little.append("narrower matrices")
            # all cores may read and compute as much faster as there are more of them
            least = self.shares[OVERHEAD]
            least += (1 - least) * self.threads / cores if idle else 1 - least
            if least * LITTLE <= 1:
                rate = rate_of(rows / (least * self.seconds))
                said.append(f"{cores} threads instead of {self.threads} would give {rate} at most")
            else:
                little.append("more threads")
            if little:
                said.append(f"{' and '.join(little)} would hardly help")
        text = "; ".join(said)
        return levers, text[0].upper() + text[1:] + "."


def divided(predictions) -> dict[str, float]:
    """Seconds of some predictions that are reading, arithmetic (whichever of the two is longer for
    each), and waiting."""
    parts = {READING: 0.0, ARITHMETIC: 0.0, OVERHEAD: 0.0}
    for p in predictions:
        parts[READING if p.memory >= p.arithmetic else ARITHMETIC] += max(p.memory, p.arithmetic)
        parts[OVERHEAD] += p.waiting
    return parts


def _seconds(predictions: Mapping[str, Prediction]) -> float:
    return sum(p.seconds for p in predictions.values())


def _without_decode(cycles: Sequence[CycleTimes]) -> str:
    if not cycles:
        return "Nothing was timed."
    tokens = sum(cycle.moments for cycle in cycles)
    wall = (cycles[-1].end - cycles[0].start) / 1e9
    if tokens < 2:
        return (
            f"The first token took {duration(wall)}; what the next ones cost, more tokens would"
            " tell."
        )
    each = wall / tokens
    return (
        f"Each token costs {duration(each)} on average, which is {per_second(each)}, guesses and"
        " their checks together."
    )


def _uncertain(evidence: Evidence, times: np.ndarray, work: OneToken | None) -> str:
    said, busy = [], evidence.busy
    low, high = np.percentile(times, [25, 75])
    if busy is not None and busy >= BUSY:
        which = ", which may be the overhead" if work and work.shares[OVERHEAD] > 0.3 else ""
        said.append(f"Measured while the machine was {percent(busy)} busy with other work{which}.")
    if len(times) < FEW:
        were = "was" if len(times) == 1 else "were"
        said.append(f"Only {count(len(times), 'token')} after the first {were} timed.")
    elif high - low > SPREAD * np.median(times):
        said.append(f"Half of the tokens took {duration(low)} to {duration(high)}.")
    if work and work.predicted > 1.15 * work.seconds:
        said.append(
            f"It was {work.predicted / work.seconds:.1f} times as fast as the limits allow, which"
            " were slower when they were measured: measure them again."
        )
    return " ".join(said)


# ---- numbers as they are said


def percent(share: float) -> str:
    """0.934 -> "93 %"."""
    return f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    """0.0084 -> "8.4 ms"."""
    return _with_unit(seconds, ((1, "s"), (1e-3, "ms"), (1e-6, "us")))


def size(nbytes: float) -> str:
    """2.5e8 -> "250 MB"."""
    return _with_unit(nbytes, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")))


def _with_unit(value: float, units: Sequence[tuple[float, str]]) -> str:
    """In the first unit of which it is one at least, else in the last, with three digits."""
    one, unit = next((u for u in units if value >= u[0]), units[-1])
    return f"{value / one:,.0f} {unit}" if value >= 100 * one else f"{value / one:.3g} {unit}"


def rate_of(tokens: float) -> str:
    """210.3 -> "210 tokens/s"."""
    return f"{tokens:,.0f} tokens/s" if tokens >= 10 else f"{tokens:.2g} tokens/s"


def per_second(seconds: float) -> str:
    """Tokens/s of one that takes so long."""
    return rate_of(1 / seconds)
