"""What a look into an engine costs, and how its times agree with those that the engine itself
counts: the same tokens with and without a clock, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median, quantiles
from time import perf_counter_ns
from typing import Any

from ..clock import Clock
from ..errors import count, whole_number
from .engine import Engine


@dataclass(frozen=True)
class Price:
    """ns of each token `without` and with a clock (`looking`), measured in turn.

    stamps: how many there are a token. same: whether all logits were the same to the bit. inside:
    ms from the beginning of a token to its logits, the mean, and within: those of them that the
    engine's functions took; own: what the engine itself counts for that; both None where it does
    not. unknown: nodes of which no step is known, and how many.
    """

    engine: str
    versions: dict[str, str]
    threads: int
    stored: str
    unknown: dict[str, int]
    without: tuple[int, ...]
    looking: tuple[int, ...]
    stamps: int
    same: bool
    inside: float
    own: float | None
    within: float | None

    @property
    def shares(self) -> list[float]:
        """By how much looking makes a token longer: the three quartiles of the differences / the
        median of the times without. Where they are far apart, others were at work."""
        more = quantiles(b - a for a, b in zip(self.without, self.looking))
        return [ns / median(self.without) for ns in more]

    def to_dict(self) -> dict:
        """As JSON-able values."""
        return asdict(self) | {"shares": self.shares}

    def summary(self) -> list[str]:
        """Sentences, for below a clock's table."""
        a, b = (median(times) / 1e6 for times in (self.without, self.looking))
        logits = "the same" if self.same else "NOT THE SAME"
        low, middle, high = self.shares
        lines = [
            f"{self.engine}, {count(self.threads, 'thread')}, matrices in {self.stored}",
            f"looking costs {middle:+.1%} (quartiles {low:+.1%}, {high:+.1%}): {a:,.3f} ms a token"
            f" without, {b:,.3f} with {count(self.stamps, 'stamp')}",
            f"of {len(self.without)} tokens, each read with and without, in turn; logits {logits}",
        ]
        if self.own and self.within:
            lines += [
                f"with stamps, {self.inside:,.3f} ms in the mean from the call to the logits:"
                f" {self.within:,.3f} in the functions of {self.engine},",
                f"and {self.inside - self.within:,.3f} in the call from Python and a copy of the"
                " logits, which the phases embed and unembed hold",
                f"{self.engine} itself counts {self.own:,.3f} ms for its functions"
                f" (the stamps {self.within / self.own - 1:+.1%}); the table has medians of another"
                " run",
            ]
        if self.unknown:
            nodes = ", ".join(f"{n} x {node}" for node, n in self.unknown.items())
            lines.append(f"not known, timed with the step that ends next: {nodes}")
        return lines


def price(engine: Engine, ids: Sequence[int], n: int = 32, every_step: bool = False) -> Price:
    """Let the engine continue ids by n tokens, the likeliest, and read each of them twice, with a
    clock and without, now one first and now the other."""
    P = engine.config.sizes.P
    n = whole_number("n", n)
    n, ids = min(n, P - 1), ids[: P - min(n, P - 1)]
    cache, clock = engine.new_cache(capacity=len(ids) + n), Clock(every_step)
    times: dict[bool, list[int]] = {False: [], True: []}
    logits, same = engine(ids, cache, last=True), True
    cache.truncate(0)
    engine(ids, cache, last=True, step=Clock(every_step))  # now both have read the prompt
    engine.own_count()  # from here on
    for i in range(n):
        token, found = int(logits[-1].argmax()), {}
        for looking in (i % 2 == 1, i % 2 == 0):
            cache.truncate(len(ids) + i)
            clock.begin("decode", 1, 1, len(ids) + i)
            step: dict[str, Any] = {"step": clock} if looking else {}
            start = perf_counter_ns()
            found[looking] = engine([token], cache, last=True, **step)
            times[looking].append(perf_counter_ns() - start)
        logits = found[False]
        same &= bool((found[True] == logits).all())
    cycles = clock.cycles()
    own, within = engine.own_count() or (None, None)
    return Price(
        engine.title,
        engine.versions,
        engine.threads,
        engine.stored,
        engine.unknown,
        tuple(times[False]),
        tuple(times[True]),
        len(cycles[-1].names),
        same,
        mean(cycle.end - cycle.start for cycle in cycles) / 1e6,
        own,
        within,
    )
