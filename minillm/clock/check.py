"""Measured beside predicted, fairly: the memory's speed drifts by a factor of two within seconds on
shared machines, so that it is measured anew before and after every few cycles, and the ratio is
taken round by round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ..decoding.cycle import run_cycle
from ..errors import InputError
from ..machine.progress import Update
from ..twins.twin import abilities
from .clock import Clock
from .limits import Limits
from .prediction import predict, predicted_seconds

READ, CYCLES = 2**27, 3  # bytes for one look at the memory; cycles between two looks


@dataclass(frozen=True)
class Check:
    """Decode cycles behind `past` positions: seconds measured and predicted, [rounds] each."""

    past: int
    measured: np.ndarray
    predicted: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """Quartiles of measured / predicted: 25 %, 50 %, 75 %."""
        return np.percentile(self.measured / self.predicted, [25, 50, 75])


def check_predictions(
    model,
    limits: Limits,
    contexts: Sequence[int],
    kind: str = "float32",
    rounds: int = 20,
    update: Update = lambda what, done, total: None,
) -> list[Check]:
    """Measure decode cycles at several contexts, and the memory in turn with them, on Numba's twin.

    limits: the rest of them, measured by `measure`. InputError where a context does not fit the
    model.
    """
    if (read_everything := abilities(model.ops).read_everything) is None:
        raise InputError("predictions are checked for the Numba kernels: choose --kernels numba")
    if wrong := [past for past in contexts if not 1 <= past < model.config.sizes.P]:
        raise InputError(
            f"context {wrong[0]} must be from 1 to {model.config.sizes.P - 1}, one less than"
            " the positions"
        )
    rng, look, checks = np.random.default_rng(0), _Memory(read_everything), []
    for past in contexts:
        cache = model.new_cache()
        model(rng.integers(0, model.config.sizes.V, past), cache, last=True)
        times = []
        for turn in range(rounds + 1):
            update(f"context {past}", turn, rounds)
            before, clock = look(), Clock()
            for _ in range(CYCLES):
                cache.truncate(past)
                run_cycle(model, [[0]], cache, clock)
            now = limits.at((before + look()) / 2)
            cycles = clock.cycles()
            seconds = float(np.mean([cycle.net.sum() for cycle in cycles])) / 1e9
            times.append(
                (
                    seconds,
                    predicted_seconds(
                        predict(model.config, now, cycles[0].names, 1, past, kind=kind)
                    ),
                )
            )
        checks.append(Check(past, *np.array(times[1:]).T))  # the first round warms up
    return checks


class _Memory:
    """A look at the memory: bytes/s of one large array."""

    def __init__(self, read_everything: Callable):
        self.read_everything = read_everything
        self.array = np.ones((READ // 4096, 1024), np.float32)

    def __call__(self) -> float:
        start = perf_counter()
        self.read_everything(self.array)
        return READ / (perf_counter() - start)
