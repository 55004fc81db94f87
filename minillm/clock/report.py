"""What a clock's times say: a row for every phase and part, measured beside predicted; latencies;
the cost of measuring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy as np

from ..costs import FLOAT
from ..errors import InputError, count
from ..families.family import StepInfo
from ..steps import phase_of
from .clock import Clock, CycleTimes
from .costs import Cost, covered, step_costs, steps_of, total
from .limits import Limits
from .phases import PHASES
from .prediction import Prediction, predict
from .verdict import Evidence, Verdict, size, verdict

TENTH = 0.1  # of the measured time: where the limits say less, none of them binds
LEAST = 1000  # ns of an interval: what is shorter, neither the clock nor the limits can tell


@dataclass(frozen=True)
class Row:
    """One phase (part "") or part of it, over all layers: ns of the prefill, and of a decode cycle
    (median).

    ticks: reference cycles of the latter. cost, predicted, binds: of the decode cycle in the
    middle, its seconds and the binding limit by the machine's limits (None without); prefill_cost:
    what the prefill has to do. intervals: of that cycle, whose sum it is.
    """

    phase: str
    part: str
    prefill: float
    decode: float
    ticks: float
    cost: Cost
    prefill_cost: Cost
    predicted: float | None = None
    binds: str = ""
    intervals: int = 1

    @property
    def share(self) -> float | None:
        """How much of the limit is reached: predicted / measured time of a decode cycle."""
        return self.predicted / (self.decode / 1e9) if self.predicted and self.decode else None


class ClockReport:
    """Everything that the views show. kind: how the model's matrices are stored; texts: what each
    cycle emitted; engine: whose times they are, where not minillm's; cached: bytes of a number in
    its cache; busy: the share of the machine that others took meanwhile, where somebody looked.
    """

    busy: float | None = None

    def __init__(
        self,
        clock: Clock,
        config,
        kind: str = "float32",
        limits: Limits | None = None,
        texts: Sequence[str] = (),
        engine: str = "",
        cached: int = FLOAT,
    ):
        self.engine, self.cached = engine, cached
        self.config, self.kind, self.limits, self.texts = config, kind, limits, list(texts)
        self.source, self.ticks_per_second = clock.source, clock.ticks_per_second
        self.cost, self.n_stamps = clock.cost, clock.n_stamps
        self.cycles = clock.cycles()
        if not self.cycles:
            raise InputError("the clock has seen no cycle that came to an end")

    @property
    def verdict(self) -> Verdict:
        """What the times say, in words."""
        return verdict(Evidence.of_report(self))

    @property
    def prefill(self) -> CycleTimes:
        """The first cycle: the prompt."""
        return self.cycles[0]

    @property
    def decode(self) -> list[CycleTimes]:
        """The decode cycles."""
        return [cycle for cycle in self.cycles if cycle.kind == "decode"]

    @property
    def wall(self) -> float:
        """ns from the beginning of the first cycle to the last token."""
        return self.cycles[-1].end - self.cycles[0].start

    @property
    def inside(self) -> float:
        """The sum of all intervals / the wall time; the rest passes between cycles: handing the
        token over."""
        return sum(float(cycle.gross.sum()) for cycle in self.cycles) / self.wall

    @property
    def measuring(self) -> float:
        """What the time stamps cost / the wall time; subtracted from every figure but the wall
        time."""
        return self.cost * self.n_stamps / self.wall

    @property
    def first_token(self) -> float:
        """ns from the beginning to the first token."""
        return (self.token_times[0] if self.token_times else self.prefill.end) - self.prefill.start

    @property
    def token_times(self) -> list[float]:
        """When each token was known, ns: when `next` passed."""
        cycles = [cycle for cycle in self.cycles if cycle.moments]
        return [
            end
            for cycle in cycles
            for name, end in zip(cycle.names, cycle.ends.tolist())
            if name == "next"
        ]

    def between_tokens(self, percent: float) -> float | None:
        """The percentile of the times between two tokens, ns; None with one token."""
        gaps = np.diff(self.token_times)
        return float(np.percentile(gaps, percent)) if gaps.size else None

    def costs(self, cycle: CycleTimes | None) -> dict[str, Cost]:
        """What one cycle has to do, by step name; nothing for no cycle."""
        if cycle is None:
            return {}
        shape = cycle.positions, cycle.past, cycle.rows, self.kind
        return step_costs(self.config, *shape, cached=self.cached)

    def predictions(self, cycle: CycleTimes) -> dict[str, Prediction]:
        """What the limits say of one cycle; needs limits."""
        shape = cycle.positions, cycle.past, cycle.rows, self.kind
        return predict(self.config, self.limits, cycle.names, *shape, cached=self.cached)

    @property
    def far_bandwidth(self) -> float:
        """Bytes/s from memory, beyond all caches."""
        return self.limits.bandwidth[max(self.limits.bandwidth)]

    @property
    def typical(self) -> CycleTimes | None:
        """The decode cycle in the middle: its past is the median one."""
        return self.decode[len(self.decode) // 2] if self.decode else None

    @cached_property
    def rows(self) -> list[Row]:
        """All phases in order, each followed by its parts; last the whole cycle, under the phase
        "cycle".

        Parts are as fine as the coarsest cycle: what the fused step does at once is one part of the
        prefill, too.
        """
        predicted = self.predictions(self.typical) if self.limits and self.typical else {}
        everywhere = set.intersection(*(set(cycle.names) for cycle in [self.prefill, *self.decode]))
        groups: dict[tuple[str, str], set[str]] = {}
        steps = steps_of(self.config)
        for phase in PHASES:
            groups[phase, ""] = set()
            for name, parts in covered(everywhere, self.config).items():
                if phase_of(name) == phase:
                    groups[phase, ""].update(parts)
                    groups.setdefault((phase, label(parts, steps)), set()).update(parts)
        groups["cycle", ""] = set().union(*groups.values())
        return [self._row(phase, part, names, predicted) for (phase, part), names in groups.items()]

    def _row(self, phase: str, part: str, names: set[str], predicted: dict[str, Prediction]) -> Row:
        def ns(cycle):
            return float(sum(t for name, t in zip(cycle.names, cycle.net) if name in names))

        decode = float(np.median([ns(cycle) for cycle in self.decode])) if self.decode else 0.0
        mine = [p for name, p in predicted.items() if name in names]
        by_limit: dict[str, float] = {}
        for p in mine:
            by_limit[p.binds] = by_limit.get(p.binds, 0.0) + p.seconds
        binds = max(by_limit, key=by_limit.get, default="")
        costs = [
            total(cost for name, cost in self.costs(c).items() if name in names)
            for c in (self.typical, self.prefill)
        ]
        ticks, seconds = decode * self.ticks_per_second / 1e9, sum(p.seconds for p in mine)
        times = ns(self.prefill), decode, ticks
        predicted_s = seconds if mine else None
        return Row(phase, part, *times, *costs, predicted_s, binds, len(mine))

    def to_dict(self) -> dict:
        """All of it as JSON-able values, times in ns."""
        cycles = [
            {
                **c.about,
                "text": text,
                "phases": c.sums(),
                "steps": [
                    {"name": n, "end": e, "ns": t}
                    for n, e, t in zip(c.names, c.ends.tolist(), c.net.tolist())
                ],
            }
            for c, text in zip(self.cycles, [*self.texts, *[""] * len(self.cycles)])
        ]
        rows = [
            {
                "phase": r.phase,
                "part": r.part,
                "prefill_ns": r.prefill,
                "decode_ns": r.decode,
                "reference_cycles": r.ticks,
                "flops": r.cost.flops,
                "bytes": r.cost.bytes,
                "predicted_s": r.predicted,
                "share": r.share,
                "binds": r.binds,
            }
            for r in self.rows
        ]
        return {
            "clock": {
                "source": self.source,
                "ticks_per_second": self.ticks_per_second,
                "stamp_ns": self.cost,
                "stamps": self.n_stamps,
                "share": self.measuring,
            },
            "first_token_ns": self.first_token,
            "between_tokens_ns": {"p50": self.between_tokens(50), "p99": self.between_tokens(99)},
            "wall_ns": self.wall,
            "inside": self.inside,
            "kind": self.kind,
            "busy": self.busy,
            "verdict": self.verdict.to_dict(),
            "limits": vars(self.limits) if self.limits else None,
            "table": rows,
            "cycles": cycles,
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and rows as a person reads them: ms, millions of reference cycles, shares
        of the limits."""
        headings = ["phase", "prefill ms"]
        headings += ["decode ms", "share", "Mcycles"] if self.decode else []
        headings += (
            ["MFLOP", "MB", "predicted ms", "of limit", "bound by"]
            if self.limits and self.decode
            else []
        )
        whole = self.rows[-1]
        lines, parts = [], Counter(row.phase for row in self.rows if row.part)
        for row in self.rows:
            if row.part and parts[row.phase] == 1:  # which is the whole phase
                continue
            line = [f"  {row.part}" if row.part else row.phase, f"{row.prefill / 1e6:,.3f}"]
            if self.decode:
                line += [
                    f"{row.decode / 1e6:,.3f}",
                    f"{row.decode / whole.decode:.1%}",
                    f"{row.ticks / 1e6:,.3f}",
                ]
            if self.decode and self.limits:
                line += [f"{row.cost.flops / 1e6:,.2f}", f"{row.cost.bytes / 1e6:,.2f}"]
                share = (row.decode >= LEAST * row.intervals and row.share) or 0.0
                line += [
                    f"{1e3 * row.predicted:,.3f}" if row.predicted else "",
                    f"{share:.0%}" if share else "",
                    row.binds if share >= TENTH else "",
                ]
            lines.append(line)
        return headings, lines

    def summary(self) -> list[str]:
        """Return the sentences below the table."""
        lines = [
            f"first token after {self.first_token / 1e6:,.2f} ms (prefill of"
            f" {self.prefill.positions})"
        ]
        if len(self.token_times) > 1:
            p50, p99 = (self.between_tokens(p) / 1e6 for p in (50, 99))
            lines[0] += f"; between tokens p50 {p50:,.2f} ms, p99 {p99:,.2f} ms"
        lines += self._speculation()
        lines.append(
            f"phases are {self.inside:.1%} of {self.wall / 1e6:,.1f} ms; the rest is handing tokens"
            " over; embed begins with the cycle, the call included"
        )
        rate = (
            f" at {self.ticks_per_second / 1e9:.3f} GHz"
            if self.source == "time-stamp counter"
            else ""
        )
        lines.append(
            f"clock: {self.source}{rate}; {self.n_stamps:,} stamps of {self.cost:.0f} ns"
            f" subtracted, {self.measuring:.2%}"
        )
        if self.limits:
            row, rows = (1e-9 * of[self.kind] for of in (self.limits.row, self.limits.rows))
            rates = (
                f"{self.kind} products {row:,.0f} GFLOP/s (one row, in the cache), {rows:,.0f}"
                " (many)"
            )
            lines.append(
                f"limits, {count(self.limits.threads, 'thread')}: {self._reading()}; {rates}"
            )
        if self.limits and self.decode:
            waiting = "" if self.engine else ", and waiting: calls, and threads that meet"
            lines += [
                "predicted: reading or arithmetic, whichever takes longer at these limits"
                + waiting,
                "of limit: predicted / measured; above 100% is faster than the limits, as from a"
                " nearer cache",
                "bound by: what the prediction spends longest on; blank where it is less than a"
                " tenth of the time measured",
                "both are blank where steps take less than 1 us each, too little to be told",
            ]
        return lines

    def _reading(self) -> str:
        """How fast numbers are read: those of a decode cycle, and where these lie in the caches,
        those in memory."""
        memory = f"memory {size(self.far_bandwidth)}/s"
        if not self.decode:
            return memory
        cost = total(self.costs(self.typical).values())
        once = cost.weights + cost.cache
        rate = f"{size(once)} of a token are read at {size(self.limits.bandwidth_at(once))}/s"
        return rate + (f", from the caches ({memory})" if self.limits.in_caches(once) else "")

    def _speculation(self) -> list[str]:
        """What drafts and their checks took, and what came of it; nothing where there are none."""
        lines = []
        for kind, what in (("draft", "guessed"), ("verify", "known")):
            cycles = [cycle for cycle in self.cycles if cycle.kind == kind]
            if cycles:
                ms = sum(c.end - c.start for c in cycles) / 1e6
                tokens = sum(c.names.count("next") for c in cycles)
                each = f"{kind} cycles: {len(cycles):,} of {ms / len(cycles):,.2f} ms"
                lines.append(
                    f"{each}, {ms * 1e6 / self.wall:.0%} of the time; tokens {what}: {tokens:,}"
                )
        return lines

    def _repr_html_(self) -> str:
        from .diagram import diagram

        headings, lines = self.table()
        head = "".join(f"<th>{escape(h)}</th>" for h in headings)
        rows = (
            "".join(
                f"<td style='text-align:{align};white-space:pre'>{escape(cell)}</td>"
                for align, cell in zip(("left", *["right"] * len(line)), line)
            )
            for line in lines
        )
        drawn, notes = (
            escape(diagram(self)),
            "<br>".join(map(escape, [*self.summary(), str(self.verdict)])),
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return (
            f"<pre style='line-height:1.1'>{drawn}</pre>"
            f"<table><tr>{head}</tr>{body}</table><p>{notes}</p>"
        )


def label(parts: Sequence[str], steps: Mapping[str, StepInfo]) -> str:
    """What an interval holds: (h.0.attn.scores, h.0.attn.weights) -> "scores + softmax". Where
    nothing is computed, as for views, is named only where it is timed apart; of many, the ends."""
    working = [part for part in parts if steps[part].cost] or parts
    labels = [steps[part].label for part in working]
    if len(labels) > 4:
        return f"{labels[0]} to {labels[-1]} ({len(labels)} steps)"
    return " + ".join(labels)
