"""Low-rank adaptation: a frozen matrix plus a small product that learns in its place."""

from __future__ import annotations

import numpy as np

from .implicit import Implicit


class LoRA(Implicit):
    """W + scale A B, with W [in,out] frozen (an array or a stored Weight), A [in,rank] and B
    [rank,out] trained.

    x (W + scale A B) = x W + scale (x A) B. B starts at zero, so that the model starts as it was.
    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021).
    """

    parts = ("weight", "lora_a", "lora_b")

    def __init__(self, weight, lora_a: np.ndarray, lora_b: np.ndarray, scale: float):
        self.weight, self.lora_a, self.lora_b, self.scale = weight, lora_a, lora_b, scale
        self.shape, self.dtype = weight.shape, lora_a.dtype
        self.size, self.nbytes = weight.size, weight.nbytes + lora_a.nbytes + lora_b.nbytes

    @classmethod
    def fresh(cls, weight, rank: int, scale: float, rng: np.random.Generator) -> LoRA:
        """Adapters that change nothing yet: A is drawn, N(0, 1/in), and B is zero."""
        n_in, n_out = weight.shape
        a = (rng.standard_normal((n_in, rank)) * n_in**-0.5).astype(weight.dtype)
        return cls(weight, a, np.zeros((rank, n_out), weight.dtype), scale)

    def copy(self) -> LoRA:
        """The same on adapters of its own, which can be trained."""
        return LoRA(self.weight, self.lora_a.copy(), self.lora_b.copy(), self.scale)

    @property
    def trained(self) -> dict[str, np.ndarray]:
        """The arrays that learn."""
        return {"lora_a": self.lora_a, "lora_b": self.lora_b}

    def dense(self) -> np.ndarray:
        return np.asarray(self.weight) + self.lora_a @ self.lora_b * self.scale

    def astype(self, dtype, copy=True) -> LoRA:
        weight, a, b = (p.astype(dtype, copy=copy) for p in (self.weight, self.lora_a, self.lora_b))
        return LoRA(weight, a, b, self.scale)

    def __rmatmul__(self, x):
        return x @ self.weight + (x @ self.lora_a) @ self.lora_b * self.scale

    def backward(self, dy, x):
        """Of y = x W + scale (x A) B: with h = scale dy B^T, dx = dy W^T + h A^T, dA = x^T h, dB =
        scale (x A)^T dy.

        dy: [rows,out]; x: [rows,in] -> dx [rows,in], {"lora_a", "lora_b"}. W has no gradient.
        """
        h = dy @ self.lora_b.T * self.scale
        dx = dy @ np.asarray(self.weight).T + h @ self.lora_a.T
        return dx, {"lora_a": x.T @ h, "lora_b": (x @ self.lora_a).T @ dy * self.scale}
