"""Where the time of a training step goes, by the twin's functions: in float32, with products of
numbers in bfloat16, and with activations formed again in the backward (--recompute)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from ..model import Model, model_of
from ..training.language import LanguageModel
from ..training.memory import step_bytes
from ..training.optimizers import AdamW
from ..training.pretrain import training_twin
from ..training.trainer import keep_memory
from .trainers import SHAPES, step_flop

WAYS = (("float32", False), ("bfloat16", False), ("float32", True))  # precision, recompute
# The part that a function belongs to, and its backward: of both a line in the table.
PARTS = {
    "linear": "products",
    "linear_layer": "products",
    "unembed": "products",
    "attention": "attention",
    "rotate": "rotations",
    "gelu_new": "activation",
    "gated": "activation",
    "layer_norm": "norms",
    "rms_norm": "norms",
    "cross_entropy": "loss",
    "embedding": "embedding",
    "adamw_update": "AdamW",
}
REST = "the rest: sums and copies in NumPy, Python"


class TimedTwin:
    """A twin that computes as another does, and adds up the seconds of each part."""

    def __init__(self, timed: Any):
        self.its = timed
        self.seconds: dict[str, float] = defaultdict(float)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.its, name)
        if (part := PARTS.get(name.removesuffix("_backward"))) is None:
            return found
        part += ", backward" if name.endswith("_backward") else ""
        setattr(self, name, self.timed(found, part))
        return getattr(self, name)

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Return `function`, timed as a part."""

        def call(*values: Any, **named: Any) -> Any:
            start = perf_counter()
            result = function(*values, **named)
            self.seconds[part] += perf_counter() - start
            return result

        return call


@dataclass(frozen=True)
class StepParts:
    """One way to compute a step: seconds of each part and of the whole, medians; FLOP/s; tokens/s;
    what it needs in bytes, by training/memory.py."""

    precision: str
    recompute: bool
    seconds: dict[str, float]
    whole: float
    flops: float
    tokens: float
    bytes: int


def step_parts(shape: str, precision: str, recompute: bool, steps: int = 3) -> StepParts:
    """Time `steps` training steps of a shape of `minillm bench --train`, after one to warm up."""
    keep_memory()
    config, (B, T) = SHAPES[shape]
    ops = TimedTwin(training_twin("numba", precision))
    model = model_of(config, Model.random(config, seed=0).parameters, ops)
    objective = LanguageModel(model, recompute)
    optimizer = AdamW(ops, betas=(0.9, 0.95))
    rows = np.random.default_rng(0).integers(0, config.sizes.V, (B, T + 1))
    taken: list[dict[str, float]] = []
    for _ in range(1 + steps):
        ops.seconds.clear()
        start = perf_counter()
        _, gradients = objective.loss_and_gradients((rows[:, :-1], rows[:, 1:]))
        optimizer.update(objective.parameters, gradients, 1e-3)
        whole = perf_counter() - start
        taken.append({**ops.seconds, REST: whole - sum(ops.seconds.values()), "whole": whole})
    seconds = {part: median(t[part] for t in taken[1:]) for part in taken[0]}
    whole = seconds.pop("whole")
    return StepParts(
        precision,
        recompute,
        seconds,
        whole,
        step_flop(config, B, T) / whole,
        B * T / whole,
        step_bytes(config, B, T, recompute),
    )
