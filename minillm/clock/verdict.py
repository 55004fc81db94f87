"""What a clock's times say, in words: the answer, what binds it, what to change and by how much,
and what is uncertain. It works from the times alone, whichever engine was timed.

A decode cycle's time is divided by the machine's limits (prediction.py): reading and arithmetic
take what they must, whichever is longer, and the rest is overhead: what the engine takes longer, in
its kernels, its calls, and where its threads wait for one another. What would be faster is
predicted by the same limits, of minillm alone; what they do not explain stays as it is. Where
others were at work to such an extent that the overhead may be theirs, nothing is said of causes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import dropwhile
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import families
from ..costs import FLOAT
from ..errors import count
from ..layers.cache import position_bytes
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
NARROWER |= {"bfloat16_rounded": "int8", "int8": "int4"}
TEXTS = 8  # at once, in what is said of batches
BUSY, SPREAD, FEW = 0.05, 0.2, 8  # from which, or below which, a verdict is uncertain
TOO_BUSY, UNEXPLAINED = 0.25, 0.3  # from which nothing is said of causes; the latter where BUSY
LITTLE = 1.1  # times as fast: below, a change hardly helps


@dataclass(frozen=True)
class Evidence:
    """What a verdict is made of. kind: how the model's matrices are stored; busy: the share of the
    machine that others took meanwhile, None where nobody looked; cached: bytes of a number in the
    cache; engine: whose times they are, where not minillm's; verb: what a token does, "would cost"
    where it is predicted."""

    config: Any
    kind: str
    cycles: Sequence[CycleTimes]
    limits: Limits | None = None
    busy: float | None = None
    cached: int = FLOAT
    engine: str = ""
    verb: str = "costs"

    @classmethod
    def of_report(cls, report: ClockReport) -> Evidence:
        """What a clock's report holds."""
        about = report.config, report.kind, report.cycles, report.limits, report.busy
        return cls(*about, report.cached, report.engine)

    @classmethod
    def of_recording(cls, recording: Recording) -> Evidence:
        """What a recording holds; InputError for a config or limits that cannot be."""
        header, arrays = recording.header, recording.arrays
        model, machine, limits = header["model"], header["machine"], header["limits"]
        config = families.parse_config(model["config"], "the recording's config")
        cycles, cached = [], FLOAT
        for number, c in enumerate(header["cycles"]):
            part = recording.intervals(number)
            ends, net = (arrays[f"times.{what}"][part].astype(float) for what in ("ends", "net"))
            form = c["kind"], c["rows"], c["positions"], c["past"], c["start"]
            cycles.append(
                CycleTimes(*form, tuple(header["names"][c["names"]]), c["start"] + ends, net)
            )
            numbers = c["rows"] * (c["past"] + c["positions"]) * position_bytes(config, "int8")
            if c["kind"] == "decode" and numbers:
                cached = min(c["kept"] // numbers, 8) or FLOAT
        busy = machine.get("busy")
        return cls(
            config,
            model["stored"],
            [cycle for cycle in cycles if cycle.names],
            limits and Limits.from_dict({**limits, "machine": machine}, "the recording's limits"),
            busy if isinstance(busy, float) and 0 <= busy <= 1 else None,
            cached,
            model["twin"].rpartition(" ")[0],  # an engine of others has its version, too
        )


@dataclass(frozen=True)
class Verdict:
    """seconds: of a decode cycle, the median, None without one. shares: how it is divided between
    reading, arithmetic and overhead, and binds: the largest, where both can be told. levers: {what
    to change: tokens/s then}. sentences: under "answer", "binds", "change" and "uncertain", as far
    as there is anything to say."""

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
    if any(cycle.kind == "verify" for cycle in evidence.cycles):
        return Verdict(sentences=_with_guesses(evidence))
    decode = [cycle for cycle in evidence.cycles if cycle.kind == "decode"]
    if not decode:
        said = {"answer": _without_decode(evidence.cycles), "uncertain": _busy(evidence)}
        return Verdict(sentences=said)
    times = np.array([max(cycle.net.sum(), 1.0) for cycle in decode]) / 1e9
    seconds, rows = float(np.median(times)), decode[len(decode) // 2].rows
    what, together = "Each token", ""
    if rows > 1:
        what, together = f"A token in each of {rows} texts", " together"
    answer = (
        f"{what} {evidence.verb} {duration(seconds)}, which is {rate_of(rows / seconds)}{together}."
    )
    if evidence.limits is None:
        unknown = ["What binds it is unknown without limits.", _uncertain(evidence, times)]
        said = {"answer": answer, "uncertain": " ".join(filter(None, unknown))}
        return Verdict(seconds, sentences=said)
    work = OneToken(evidence, decode[len(decode) // 2], seconds)
    said = {"answer": answer, "uncertain": _uncertain(evidence, times, work)}
    if work.drowned or work.too_fast:
        return Verdict(seconds, sentences=said)
    shares = work.shares
    binds = max(shares, key=lambda what: shares[what])
    levers, change = work.change(binds)
    said = {"answer": answer, "binds": work.said(binds), "change": change} | said
    return Verdict(seconds, shares, binds, levers, said)


class OneToken:
    """What one decode cycle has to do, and how long it must take."""

    def __init__(self, evidence: Evidence, cycle: CycleTimes, seconds: float):
        assert evidence.limits
        self.config, self.kind, self.cycle = evidence.config, evidence.kind, cycle
        self.cached, self.engine, self.busy = evidence.cached, evidence.engine, evidence.busy or 0.0
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

    @property
    def drowned(self) -> bool:
        """Whether others were so busy that the overhead may be theirs."""
        unclear = self.busy >= BUSY and self.shares[OVERHEAD] > UNEXPLAINED
        return unclear or self.busy >= TOO_BUSY

    @property
    def too_fast(self) -> bool:
        """Whether the limits cannot be those of the machine that it ran on."""
        return self.predicted > 1.15 * self.seconds

    @property
    def explained(self) -> float:
        """How much of the overhead is calls and waiting threads, by the limits."""
        overhead = self.shares[OVERHEAD] * self.seconds
        return min(1.0, self.parts[OVERHEAD] / overhead) if overhead else 1.0

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
            near = self.limits.in_caches(once)
            where = "the processor's caches give" if near else "the memory gives"
            return (
                f"{share} of that is reading {self.read()} at"
                f" {size(self.limits.bandwidth_at(once))}/s, the most that {where}{self.on(' ')}."
            )
        if binds == ARITHMETIC:
            rate = self.cost.flops / self.parts[ARITHMETIC]
            return (
                f"{share} of that is arithmetic: {self.cost.flops / 1e6:,.0f} MFLOP, at"
                f" {rate / 1e9:,.1f} GFLOP/s at most{self.on(' on ')}."
            )
        longer = "takes longer than the limits of reading and arithmetic"
        if self.engine:
            return (
                f"{share} of that is what {self.engine} {longer}: in its kernels, in its calls, and"
                " where its threads wait for one another."
            )
        names = self.cycle.names
        layer = sum(name.startswith("h.0.") for name in names)
        each = self.shares[OVERHEAD] * self.seconds / len(names)
        why = "calls" if self.threads == 1 else "calls and threads that wait for one another"
        return (
            f"{share} of that is overhead, what minillm {longer}: some {duration(each)} for each"
            f" of the {count(len(names), 'step')} that were timed, {layer} a layer; {why} explain"
            f" {percent(self.explained)} of it."
        )

    def on(self, before: str) -> str:
        """How many threads, where there are any to choose."""
        return "" if self.cores is None else before + count(self.threads, "thread")

    def read(self) -> str:
        """What is read, in words: 538 MB of weights and 24.1 MB of keys and values."""
        parts = {"weights": self.cost.weights, "keys and values": self.cost.cache}
        least = sum(parts.values()) / 100
        return " and ".join(f"{size(n)} of {what}" for what, n in parts.items() if n >= least)

    def change(self, binds: str) -> tuple[dict[str, float], str]:
        """What to change: {lever: tokens/s of all texts together}, and the sentence."""
        if self.engine:
            return {}, (
                f"What {self.engine} would gain from fewer bits, more threads or several texts is"
                " not predicted."
            )
        levers, said, rows = {}, [], self.cycle.rows
        texts = TEXTS * rows
        together = texts / self.instead(_seconds(self.predictions(texts=TEXTS)))
        all_at_once = f"{texts} texts at once would give {rate_of(together)} together"
        cores = self.cores or 0  # 0: nobody said
        idle = self.threads < cores
        kind = NARROWER.get(self.kind)
        narrower = self.instead(_seconds(self.predictions(kind))) if kind else self.seconds
        helps = self.seconds / narrower >= LITTLE
        would_give = f"matrices in {kind} would give {rate_of(rows / narrower)}"
        more = f"{cores} threads instead of {self.threads}"
        if binds == READING:
            if kind and self.cost.weights > self.cost.cache / 2:
                bytes_, cost = self.cost.weights + self.cost.cache, self.costs(kind)
                levers[kind] = rows / narrower
                said.append(
                    f"{would_give}, with {percent((cost.weights + cost.cache) / bytes_)} of the"
                    f" bytes in {percent(narrower / self.seconds)} of the time"
                )
            elif self.cost.weights <= self.cost.cache / 2:
                said.append("A shorter context, or a cache of fewer bits, would be read faster")
            else:
                levers[f"batch of {texts}"] = together
                said.append(f"The weights are narrow already; {all_at_once}")
            if idle:
                said.append(
                    f"{more} help as far as they read faster together: --threads {cores} tells"
                )
            elif cores:
                said.append("more threads will not help")
        elif binds == ARITHMETIC:
            if idle:
                after = self.seconds - self.parts[ARITHMETIC] * (1 - self.threads / cores)
                levers[f"{cores} threads"] = rows / after
                said.append(f"{more} would give up to {rate_of(rows / after)}")
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
                said.append(f"{more} would give {rate} at most")
            else:
                little.append("more threads")
            if little and self.explained > 0.5:
                said.append(f"{' and '.join(little)} would hardly help")
            elif little:
                said.append(f"the limits do not tell how much {' and '.join(little)} would help")
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
    took = duration((cycles[-1].end - cycles[0].start) / 1e9)
    if not any(cycle.moments for cycle in cycles):
        return f"{count(sum(c.positions for c in cycles), 'position')} took {took}."
    return f"The first token took {took}; what the next ones cost, more tokens would tell."


def _with_guesses(evidence: Evidence) -> dict[str, str]:
    """The sentences of a run in which tokens were guessed, and the guesses checked."""
    after = [*dropwhile(lambda cycle: cycle.kind == "prefill", evidence.cycles)]
    wall = max(after[-1].end - after[0].start, 1.0)
    tokens = sum(cycle.moments for cycle in after) or 1
    checks = [cycle for cycle in after if cycle.kind == "verify"]
    guessed, known = (sum(n) for n in zip(*((c.positions - 1, c.moments) for c in checks)))
    guessing = sum(cycle.gross.sum() for cycle in after if cycle.kind == "draft")
    each = wall / 1e9 / tokens
    few = f"Only {count(tokens, 'token')} after the first were timed." if tokens < FEW else ""
    return {
        "answer": f"Each token costs {duration(each)} on average, which is {per_second(each)},"
        " guesses and their checks together.",
        "binds": f"{count(len(checks), 'check')} of {count(guessed, 'guessed token')} gave"
        f" {count(known, 'token')}, {known / len(checks):.1f} a check; guessing took"
        f" {percent(guessing / wall)} of the time.",
        "uncertain": " ".join(filter(None, [_busy(evidence), few])),
    }


def _busy(evidence: Evidence, and_so: str = "") -> str:
    """How busy others were, where that matters."""
    if (busy := evidence.busy or 0.0) < BUSY:
        return ""
    return f"Measured while the machine was {percent(busy)} busy with other work{and_so}."


def _uncertain(evidence: Evidence, times: np.ndarray, work: OneToken | None = None) -> str:
    low, high = np.percentile(times, [25, 75])
    and_so = ""
    if work and work.drowned:
        and_so = ", too busy to tell what binds it and what would help: measure it when it is idle"
    said = [_busy(evidence, and_so)]
    if len(times) < FEW:
        were = "was" if len(times) == 1 else "were"
        said.append(f"Only {count(len(times), 'token')} after the first {were} timed.")
    elif high - low > SPREAD * np.median(times):
        said.append(f"Half of the tokens took {duration(low)} to {duration(high)}.")
    if work and work.too_fast:
        said.append(
            f"It was {work.predicted / work.seconds:.1f} times as fast as the limits allow, which"
            " were slower when they were measured: measure them again."
        )
    return " ".join(filter(None, said))


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
