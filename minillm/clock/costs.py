"""What every step of a pass costs, under its name, as the model's family declares it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .. import families
from ..costs import Cost, Work, total
from ..families.family import CHOOSE, StepInfo

__all__ = ["Cost", "covered", "folded", "step_costs", "steps_of", "total"]


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
) -> dict[str, Cost]:
    """Return {step name: Cost} of one pass over T new positions in each of `batch` rows after
    `past` others.

    kind: how matrices are stored. kept: positions whose logits are formed (1 while generating, T
    while scoring). choose: whether a token is chosen from each row (`probs`, `next`). How a cost is
    counted: costs.Work.
    """
    work = Work(config.sizes, T, past, batch, kind, kept)
    return {
        name: step.cost(work) if step.cost else Cost()
        for name, step in steps_of(config).items()
        if choose or name not in CHOOSE
    }


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
