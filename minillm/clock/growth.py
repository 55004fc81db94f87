"""How the cost of a pass grows with its length, measured and fitted: where O(n) bends into O(n^2),
and n^2 into n^3.

A pass of T tokens costs, in each layer, 12 T C^2 multiply-adds in the matrices and 2 T^2 C in
attention (dense T x T): equal at T = 6C. Generating n tokens without a cache is a pass of 1, 2,
..., n tokens, summed

    sum over t of 12 t C^2 + 2 t^2 C  =  6 n^2 C^2 + (2/3) n^3 C  + lower powers,

equal at n = 9C; with a cache each token costs 12 C^2 + 2 n C, and all n of them 12 n C^2 + n^2 C.
At C = 768 the bends lie at 4,608 and 6,912 tokens, beyond GPT-2's 1,024 positions: there generation
without a cache looks quadratic and never shows its cube. At C = 32 they lie at 192 and 288.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import ops
from ..errors import InputError
from ..families.family import MATRIX
from ..families.gpt2.config import GPT2Config
from ..machine.progress import Update
from ..model import GPT2
from .limits import Limits, measure
from .prediction import predict, predicted_seconds

NARROW = GPT2Config(vocab_size=64, n_positions=1024, n_embd=32, n_layer=2, n_head=1)
LENGTHS = (16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512, 576, 640)
ROUNDS = 5


@dataclass(frozen=True)
class PowerFit:
    """seconds = sum of coefficients * n^powers: least squares of relative errors, with standard
    errors.

    Where two terms contribute equally is `bend`. scatter: how far the times lie from the fit, the
    root of the mean square of their relative distances.
    """

    powers: tuple[int, ...]
    coefficients: np.ndarray
    errors: np.ndarray
    r2: float  # share of the variance of log(seconds) that is explained
    scatter: float

    def __call__(self, n):
        """Seconds at n."""
        return sum(c * np.asarray(n, float) ** p for c, p in zip(self.coefficients, self.powers))

    def term(self, power: int) -> tuple[float, float]:
        """The coefficient of one power, and half the width of its 95 % interval (2 standard
        errors)."""
        i = self.powers.index(power)
        return float(self.coefficients[i]), float(2 * self.errors[i])

    def tells(self, *powers: int) -> bool:
        """Whether the terms of these powers are there: above 0 with their whole 95 % interval."""
        return all(coefficient > width for coefficient, width in map(self.term, powers))

    def bend(self, low: int, high: int) -> tuple[float, float]:
        """Where the terms of two neighbouring powers are equal, and half the width of its 95 %
        interval; both NaN where the times are too noisy to tell the terms apart."""
        (a, da), (b, db) = self.term(low), self.term(high)
        if not self.tells(low, high):
            return float("nan"), float("nan")
        n = (a / b) ** (1 / (high - low))
        return n, n / (high - low) * float(np.hypot(da / a, db / b))

    def to_dict(self) -> dict:
        """JSON-able values."""
        return {
            "powers": self.powers,
            "coefficients": self.coefficients.tolist(),
            "errors": self.errors.tolist(),
            "r2": self.r2,
            "scatter": self.scatter,
        }


def fit_powers(n: ArrayLike, seconds: ArrayLike, powers: Sequence[int]) -> PowerFit:
    """Fit seconds = sum of c_p n^p, every point counting by its relative error: long runs do not
    drown short ones.

    InputError where there are fewer points than terms + 1, or a time is not above 0.
    """
    n, seconds, powers = np.asarray(n, float), np.asarray(seconds, float), tuple(powers)
    if len(n) != len(seconds) or len(n) <= len(powers):
        raise InputError(
            f"{len(n)} lengths and {len(seconds)} times cannot fit {len(powers)} terms: one more is"
            " needed"
        )
    if not (seconds > 0).all():
        raise InputError(f"a time of {seconds.min()} s cannot be fitted: it must be above 0")
    scale = n.max() ** np.array(powers)  # powers of 1,000 would leave no digits
    design = n[:, None] ** np.array(powers) / scale / seconds[:, None]
    coefficients, *_ = np.linalg.lstsq(design, np.ones(len(n)), rcond=None)
    residuals = design @ coefficients - 1
    variance = residuals @ residuals / (len(n) - len(powers))
    errors = np.sqrt(np.diag(variance * np.linalg.inv(design.T @ design)))
    logs = np.log(seconds)
    fitted = np.log(np.maximum((design @ coefficients) * seconds, 1e-300))
    r2 = 1 - float(((logs - fitted) ** 2).sum() / max(((logs - logs.mean()) ** 2).sum(), 1e-300))
    scatter = float(np.sqrt((residuals**2).mean()))
    return PowerFit(powers, coefficients / scale, errors / scale, r2, scatter)


def terms(config) -> tuple[int, int]:
    """The FLOPs of a block's products for T tokens are a T + b T^2: return a, twice a block's
    weights, which is 24 C^2, and b = 4 H D. They are equal at T = a / b, which is 6 C."""
    s = config.sizes
    matrices = [p for p in config.layout.values() if p.role == MATRIX]
    return 2 * sum(prod(p.shape(s)) for p in matrices) // s.L, 4 * s.H * s.D


@dataclass(frozen=True)
class Growth:
    """Seconds of one pass over `lengths` tokens without a cache (`passes`) and of one more token
    behind them with one (`tokens`), predicted too; fits of both, and of generating n tokens without
    (n^2, n^3) and with a cache (n, n^2)."""

    config: Any
    lengths: np.ndarray
    passes: np.ndarray
    tokens: np.ndarray
    predicted_passes: np.ndarray
    predicted_tokens: np.ndarray
    pass_fit: PowerFit
    token_fit: PowerFit

    @property
    def without_cache(self) -> np.ndarray:
        """Seconds to generate n tokens, every time reading all again: the passes summed."""
        return cumulative(self.lengths, self.passes)

    @property
    def with_cache(self) -> np.ndarray:
        """Seconds to generate n tokens, each one cycle."""
        return cumulative(self.lengths, self.tokens)

    @property
    def generation_bend(self) -> tuple[float, float]:
        """Where generating without a cache bends from n^2 to n^3, and half the width of its 95 %
        interval: the terms a n^2 / 2 and b n^3 / 3 of the summed passes are equal at 1.5 a / b."""
        bend, width = self.pass_fit.bend(1, 2)
        return 1.5 * bend, 1.5 * width

    @property
    def bends(self) -> dict[str, float]:
        """Where the two terms are equal by counting multiply-adds: of a pass 6C, of generating
        without a cache 9C."""
        a, b = terms(self.config)
        return {"pass": a / b, "generate": 1.5 * a / b}

    def summary(self) -> list[str]:
        """Return what the fits say, or that the times are too noisy for one."""
        if not self.pass_fit.tells(1, 2):
            return [
                f"growth, a pass of T tokens of a narrow model (C = {self.config.sizes.C}): too"
                f" noisy to fit: the times scatter by {100 * self.pass_fit.scatter:.0f} % about any"
                " curve a T + b T^2; repeat it while nothing else runs on this machine"
            ]
        (linear, dl), (square, ds) = self.pass_fit.term(1), self.pass_fit.term(2)
        (bend, width), (cube, cube_width) = self.pass_fit.bend(1, 2), self.generation_bend
        C, L, (a, b) = self.config.sizes.C, self.config.sizes.L, terms(self.config)
        count = "by counting multiply-adds"
        return [
            (
                f"growth, a pass of T tokens of a narrow model (C = {C}):"
                f" ({linear * 1e6:.3g} ± {dl * 1e6:.1g}) us T +"
                f" ({square * 1e9:.3g} ± {ds * 1e9:.1g}) ns T^2"
            ),
            (
                f"  R^2 {self.pass_fit.r2:.4f}; {a * L / linear / 1e9:.2g} GFLOP/s in the"
                f" first term, {b * L / square / 1e9:.2g} in the second, where softmax takes as"
                " long as the products"
            ),
            f"  equal at T = {bend:,.0f} ± {width:,.0f} ({count} at 6C = {6 * C})",
            (
                f"n tokens without a cache: n^2 bends into n^3 at n = {cube:,.0f} ±"
                f" {cube_width:,.0f} ({count} at 9C = {9 * C})"
            ),
        ]

    def to_dict(self) -> dict:
        """JSON-able values."""
        bend = self.pass_fit.bend(1, 2) if self.pass_fit.tells(1, 2) else (None, None)
        names = (
            "lengths",
            "passes",
            "tokens",
            "predicted_passes",
            "predicted_tokens",
            "without_cache",
            "with_cache",
        )
        return {
            "config": self.config.to_dict(),
            **{name: getattr(self, name).tolist() for name in names},
            "pass_fit": self.pass_fit.to_dict(),
            "token_fit": self.token_fit.to_dict(),
            "bend": dict(zip(("measured", "half_width"), bend)) | self.bends,
        }


def cumulative(n: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Sum a time known at some lengths over all lengths from 1 on, a straight line between
    neighbours -> at `n`."""
    every = np.arange(1, int(n[-1]) + 1)
    return np.cumsum(np.interp(every, n, seconds))[np.asarray(n, int) - 1]


def measure_growth(
    config: GPT2Config = NARROW,
    lengths: Sequence[int] = LENGTHS,
    rounds: int = ROUNDS,
    limits: Limits | None = None,
    update: Update = lambda what, done, total: None,
) -> Growth:
    """Time passes of several lengths on a random model of the textbook's functions, which form all
    T x T scores.

    On one thread, since so narrow a model has no work for two. The rounds go through all lengths in
    turn, and the shortest time of each counts: whatever else runs on the machine only adds.
    """
    from threadpoolctl import threadpool_limits

    lengths = [n for n in lengths if n <= config.sizes.P]
    model = GPT2.random(config)
    ids = np.random.default_rng(0).integers(0, config.sizes.V, max(lengths))
    passes, tokens = np.empty((2, rounds, len(lengths)))
    with threadpool_limits(1, user_api="blas"):
        limits = limits or measure(ops, ["float32"], update)
        for turn in range(rounds):
            update("measuring growth", turn, rounds)
            cache = model.new_cache()
            for i, n in enumerate(lengths):
                start = perf_counter()
                model(ids[:n], last=True)
                passes[turn, i] = perf_counter() - start
                if n - 1 > cache.lengths[0]:
                    model(ids[cache.lengths[0] : n - 1], cache)
                start = perf_counter()
                model(ids[n - 1 : n], cache)
                tokens[turn, i] = perf_counter() - start
    update("measuring growth", rounds, rounds)
    passes, tokens, n = passes.min(axis=0), tokens.min(axis=0), np.array(lengths)
    names = model.step_names
    whole, one = (
        np.array([predicted_seconds(predict(config, limits, names, *shape)) for shape in shapes])
        for shapes in ([(t, 0) for t in lengths], [(1, t - 1) for t in lengths])
    )
    return Growth(
        config,
        n,
        passes,
        tokens,
        whole,
        one,
        fit_powers(n, passes, (0, 1, 2)),
        fit_powers(n, tokens, (0, 1)),
    )
