"""How long each operation must take, from its cost and the machine's limits alone: the roofline as
arithmetic.

Time = max(bytes / bandwidth, FLOPs / rate) + waiting: reading and computing overlap, beginning and
ending do not. Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance
model" (2009).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..costs import FLOAT, Work
from ..moved import names_of
from ..steps import local_name as local
from ..steps import phase_of
from .costs import Cost, covered, folded, step_costs, steps_of, total
from .limits import Limits

LARGE = 600_000  # FLOPs: less stays on one thread (kernels/threads.py)


@dataclass(frozen=True)
class Prediction:
    """Seconds for one operation: reading and writing, arithmetic, and waiting for calls and
    threads."""

    cost: Cost
    memory: float
    arithmetic: float
    waiting: float

    @property
    def seconds(self) -> float:
        """The least time that it can take."""
        return max(self.memory, self.arithmetic) + self.waiting

    @property
    def binds(self) -> str:
        """Which limit binds: memory, arithmetic or waiting."""
        return max(("memory", "arithmetic", "waiting"), key=lambda what: getattr(self, what))


def predict(
    config,
    limits: Limits,
    names: Iterable[str],
    T: int,
    past: int = 0,
    batch: int = 1,
    kind: str = "float32",
    kept: int = 1,
    cached: int = FLOAT,
) -> dict[str, Prediction]:
    """Return {name formed: Prediction} of one pass; the arguments are those of costs.step_costs.

    names: those that were formed: with the first of all among them it is the readable forward,
    where each call of the twin's functions takes a while and large work is shared out between
    threads; without it the fused step, where all threads run from the beginning, still awake from
    the last token, and meet after some steps. Weights and cache come round once a pass, so they are
    read at the bandwidth of all of them together; activations, used at once, at that of themselves.
    Scores that are never formed as a whole, since the context comes in the same step, are not read.
    """
    names, steps = list(names), steps_of(config)
    fused = next(iter(steps)) not in names
    costs = step_costs(config, T, past, batch, kind, kept, "next" in names, cached)
    everything = total(costs.values())
    once_a_pass = everything.weights + everything.cache
    parts, scores = covered(names, config), 4 * FLOAT * Work(config.sizes, T, past, batch).pairs
    predictions = {}
    for name, cost in folded(costs, names).items():
        infos, values = [steps[part] for part in parts[name]], cost.values
        if {"attn.scores", "attn.context"} <= {local(part) for part in parts[name]}:
            values -= scores  # written and read, before and after softmax
        inside = phase_of(parts[name][0]) in ("attend", "feed forward")
        rows = batch * (T if inside else kept)
        stored = (
            "float32"
            if any("attn.context" in p or "attn.scores" in p for p in parts[name])
            else kind
        )
        rate = (limits.row if rows == 1 else limits.rows)[stored]
        if fused:  # whose product with a few rows is that with one row, for each
            rate = max(rate, limits.row[stored])
        if fused:
            waiting = limits.meet * sum(info.meets for info in infos)
        else:
            waiting = limits.call * sum(info.calls for info in infos) + limits.launch * (
                cost.flops > LARGE
            )
        predictions[name] = Prediction(
            cost,
            (cost.weights + cost.cache) / limits.bandwidth_at(once_a_pass)
            + values / limits.bandwidth_at(values),
            cost.products / rate + cost.elements / limits.elements,
            waiting,
        )
    return predictions


def predicted_seconds(predictions: dict[str, Prediction]) -> float:
    """The time of the whole pass."""
    return sum(p.seconds for p in predictions.values())


__getattr__ = names_of("clock.prediction")
