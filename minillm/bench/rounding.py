"""The rule by which a step of two models differs beyond rounding; whoever compares two judges so.

Every step of both is formed from the same inputs, those of the one that leads (steps.Relay), so
that a step differs for what it does itself and not for what came before. Its rounding is measured:
each side's value against the same step as the textbook computes it in float64 from the same inputs
and that side's weights. It counts as half a unit in the last place of the dtype at least, and as
MOST of these at most, of the largest number at a position. A step differs where, at any position,
max |a - b| exceeds the rounding of both together. Two that compute the same function cannot exceed
it (the triangle inequality), two whose exact values are more than twice that apart always do; and
what rounds by more than MOST is wrong, or rounds on purpose, as to 8 bits. NaN, or an infinity on
one side alone, differs whatever the rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import ops
from ..differences import apart, sizes
from ..engines import Engine
from ..errors import InputError
from ..layers.cache import KVCache
from ..loading import load_model
from ..model import Model, model_of
from ..steps import Relay, Step, Trace

# In half units of the last place: worst measured in float32 is 27 (q of SmolLM2, the textbook). A
# number that was turned may have two more for each position, its angle being position times
# frequency in float32 (layers/rope.py): measured are 0.7.
MOST = 256


@dataclass(frozen=True)
class Compared:
    """One step of two models, a and b, at the position where it differs first beyond rounding, or
    where it comes nearest to it.

    largest: max |a - b| there, that of value_a and value_b at `index` of the array; rounding: of
    both together. position: in the text.
    """

    name: str
    position: int
    largest: float
    rounding: float
    index: tuple[int, ...]
    value_a: float
    value_b: float

    @property
    def times(self) -> float:
        """How many times the rounding of both it is apart."""
        return self.largest / self.rounding if self.rounding else np.inf if self.largest else 0.0

    @property
    def differs(self) -> bool:
        """Whether it does so beyond rounding."""
        return self.largest > self.rounding

    def __str__(self) -> str:
        how = "not finite"
        if np.isfinite(self.largest):
            how = f"apart by {self.largest:.2g}, {self.times:,.1f} times the rounding of both"
        return (
            f"{self.name}, position {self.position}: {how}, at {list(self.index)}:"
            f" {self.value_a:.9g} and {self.value_b:.9g}"
        )


class Side:
    """One of two that are compared: a model, or an engine of others with one."""

    def __init__(self, model: Any):  # a Model or an Engine, which are called alike
        self.model = model

    @cached_property
    def exact(self) -> Model:
        """The textbook in float64 with the same weights."""
        if isinstance(self.model, Engine):
            return load_model(self.model.checkpoint, "float64", "numpy")
        return model_of(self.model.config, self.model.astype(np.float64).parameters, ops)


class Judge:
    """Two sides along one text, pass by pass. An engine of others leads, from whose inputs every
    step of ours is formed; else a does."""

    def __init__(self, a: Side, b: Side, capacity: int):
        self.sides, self.lead = (a, b), int(isinstance(b.model, Engine))
        if isinstance(self.sides[1 - self.lead].model, Engine):
            raise InputError("two engines of others: compare each of them with minillm")
        self.caches = [side.model.new_cache(capacity=capacity) for side in (a, b)]

    def read(
        self,
        ids: Sequence[int],
        last: bool = True,
        choose: Sequence[Callable[[np.ndarray, Any], np.ndarray]] = (),
    ) -> list[Compared]:
        """Compare every step of a pass over the ids that are new in a text, in order.

        last: logits of the last one alone. choose: for each side, what makes probabilities [V] of
        logits [V] with a twin, a step as well.
        """
        past = int(self.caches[0].lengths[0])
        # llama.cpp leaves out the other positions in the last layer already
        last = last and not isinstance(self.sides[self.lead].model, Engine)

        def run(number: int, model: Any, cache: Any, step: Step) -> None:
            logits = model(ids[past:], cache, last=last, step=step)
            if choose:
                step("probs", choose[number](logits[-1], model.ops))

        def relayed(number: int, model: Any, cache: Any) -> Trace:
            relay = Relay(lead)
            run(number, model, cache, lambda name, value: relay(name, value))
            return relay.trace

        lead, follows = Trace(), 1 - self.lead
        run(self.lead, self.sides[self.lead].model, self.caches[self.lead], lead)
        values = [lead, relayed(follows, self.sides[follows].model, self.caches[follows])]
        names = [name for name in lead if name in values[1]]
        if any(not np.array_equal(lead[name], values[1][name]) for name in names):
            ours = next(cache for cache in self.caches if isinstance(cache, KVCache))
            exact = [
                relayed(number, self.sides[number].exact, widened(ours, past))
                for number in (self.lead, follows)
            ]
        else:
            exact = values
        if self.lead == 1:
            values, exact = values[::-1], exact[::-1]
        return [compared(name, len(ids), *(t[name] for t in (*values, *exact))) for name in names]


def widened(cache: KVCache, length: int) -> KVCache:
    """The first `length` positions of a cache in float64."""
    wide = cache.take([0])
    wide.keys, wide.values = (a.astype(np.float64) for a in (cache.keys, cache.values))
    wide.lengths[:] = length
    return wide


def compared(name: str, end: int, a: Any, b: Any, exact_a: Any, exact_b: Any) -> Compared:
    """One step [..., T, width] of both and in float64; end: how many ids the text has by then."""
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    distance = apart(a, b)
    largest, scale = by_position(distance), by_position(sizes(a))
    rounding = MOST * np.finfo(np.float64).eps / 2 * scale  # of the yardstick itself
    most = np.full(len(scale), MOST)
    if name.endswith("_rotated"):
        most += 2 * np.arange(end - len(scale), end)
    for value, wide in ((a, exact_a), (b, exact_b)):
        unit = np.finfo(value.dtype).eps / 2 * scale
        rounding += np.clip(by_position(apart(value, wide)), unit, most * unit)
    differs = largest > rounding
    row = int(differs.argmax() if differs.any() else (largest / (rounding + 1e-300)).argmax())
    at = distance[..., row, :]
    *before, column = map(int, np.unravel_index(at.argmax(), at.shape))
    index = (*before, row, column)
    return Compared(
        name,
        end - len(largest) + row,
        float(largest[row]),
        float(rounding[row]),
        index,
        float(a[index]),
        float(b[index]),
    )


def by_position(x: np.ndarray) -> np.ndarray:
    """The largest number at each position: [..., T, width] -> [T]."""
    return np.moveaxis(x, -2, 0).reshape(x.shape[-2], -1).max(axis=1)
