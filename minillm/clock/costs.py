"""What every step of a pass costs, under its name, as the model's family declares it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from .. import families
from ..costs import FLOAT, Cost, Work, total
from ..families.family import CHOOSE, StepInfo

__all__ = ["Cost", "covered", "folded", "formed", "step_costs", "steps_of", "total"]


def steps_of(config) -> dict[str, StepInfo]:
    """Every step of a pass and of the choice after it, in order."""
    return families.of(config).steps(config) | CHOOSE


def step_costs(
    config,
    T: int,
    past: int = 0,
    batch: int = 1,
    kind: str = "float32",
    kept: int = 1,
    choose: bool = True,
    cached: int = FLOAT,
) -> dict[str, Cost]:
    """Return {step name: Cost} of one pass over T new positions in each of `batch` rows after
    `past` others.

    kind: how matrices are stored. kept: positions whose logits are formed (1 while generating, T
    while scoring). choose: whether a token is chosen from each row (`probs`, `next`). cached: bytes
    of a number in the cache. How a cost is counted: costs.Work.
    """
    work = Work(config.sizes, T, past, batch, kind, kept, cached)
    return {
        name: step.cost(work) if step.cost else Cost()
        for name, step in steps_of(config).items()
        if choose or name not in CHOOSE
    }


def formed(config, fused: bool = True) -> list[str]:
    """The names that a clock sees end in a pass and the choice after it: those of the fused step,
    else those of the readable forward when nobody looks at scores; no weights are needed."""
    program = families.of(config).program
    if fused and program:
        nothing = dict.fromkeys(config.layout, np.empty(0))
        return [*program(config, nothing).stamps, *CHOOSE]
    hidden = (".attn.scores", ".attn.weights")
    return [name for name in steps_of(config) if not name.endswith(hidden)]


def folded(costs: Mapping[str, Cost], names: Iterable[str]) -> dict[str, Cost]:
    """Return the costs under the names that were formed: one never formed gives its cost, as its
    time, to the next."""
    names, result, waiting = set(names), {}, Cost()
    for name, cost in costs.items():
        waiting += cost
        if name in names:
            result[name], waiting = waiting, Cost()
    return result


def covered(names: Iterable[str], config) -> dict[str, tuple[str, ...]]:
    """Return for each name formed the names whose work it ends: `h.0.attn.context` is scores,
    weights and context where a kernel does all three at once."""
    names, result, waiting = set(names), {}, []
    for name in steps_of(config):
        waiting.append(name)
        if name in names:
            result[name], waiting = tuple(waiting), []
    return result
