"""What the functions are tried on: seeded numbers with every letter different, and the reference's
own at that spot."""

from __future__ import annotations

from functools import cache

import numpy as np

from ...checkpoints import find_folder
from ...loading import load_model
from ...model import Model
from ...reference import Reference

B, T, H, D, F, V = 2, 5, 3, 7, 11, 13  # all different, so that no axis can be taken for another
C = H * D
MODEL = "tales"


@cache
def reference() -> Reference:
    """The stored reference of the bundled model."""
    return Reference.load(find_folder(MODEL))


@cache
def model() -> Model:
    """The bundled model, on the textbook."""
    return load_model(MODEL, kernels="numpy")


class Given:
    """A source of inputs: `given(2, 3)` draws normal float32 numbers; `step` and `weights` are the
    bundled model's own."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape: int, scale: float = 1.0, dtype=np.float32) -> np.ndarray:
        return (self.rng.standard_normal(shape) * scale).astype(dtype)

    def ids(self, high: int, *shape: int) -> np.ndarray:
        """Integers from 0 to high - 1, int64."""
        return self.rng.integers(0, high, shape)

    def probs(self, *shape: int) -> np.ndarray:
        """Rows of positive float32 numbers that sum to 1."""
        e = np.exp(self(*shape))
        return e / e.sum(axis=-1, keepdims=True)

    @property
    def reference_ids(self) -> np.ndarray:
        """The ids [1,5] that the reference was recorded on."""
        return reference().ids

    def step(self, name: str) -> np.ndarray:
        """What transformers computed at a step, as float32."""
        return reference().steps[name].astype(np.float32)

    def weights(self, prefix: str) -> dict[str, np.ndarray]:
        """A layer's parameters, {"weight": ..., "bias": ...}."""
        return {
            n.removeprefix(f"{prefix}."): p
            for n, p in model().parameters.items()
            if n.startswith(f"{prefix}.")
        }
