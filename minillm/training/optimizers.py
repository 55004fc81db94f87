"""From gradients to smaller losses: SGD, AdamW and Muon, the schedule of the learning rate, and
clipping.

An optimiser changes parameters {name: array} in place and keeps its own arrays in `state`, so that
a checkpoint can hold them. Matrices decay, vectors (biases, norms) do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from .. import ops as numpy_ops
from ..errors import InputError
from ..twins.twin import abilities


def sgd_update(parameter, gradient, momentum, *, lr, beta=0.9, weight_decay=0.0):
    """Step down the gradient with momentum, in place: b <- beta b + g, p <- p - lr (b +
    weight_decay p).

    All arrays of one shape; momentum starts at 0.
    """
    momentum *= beta
    momentum += gradient
    parameter -= lr * (momentum + weight_decay * parameter)


def adamw_update(
    parameter, gradient, mean, square, *, lr, step, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0
):
    """One step of AdamW, in place: every number gets a step of about lr, whatever the size of its
    gradient.

    p <- (1 - lr weight_decay) p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps), with the
    running means m <- b1 m + (1 - b1) g and v <- b2 v + (1 - b2) g^2, which start at 0: hence the
    two corrections. t = step counts from 1. All arrays of one shape. Source: Loshchilov, Hutter,
    "Decoupled Weight Decay Regularization" (2019).
    """
    b1, b2 = betas
    mean *= b1
    mean += (1 - b1) * gradient
    square *= b2
    square += (1 - b2) * gradient * gradient
    parameter *= 1 - lr * weight_decay
    parameter -= (lr / (1 - b1**step)) * mean / (np.sqrt(square / (1 - b2**step)) + eps)


def orthogonal(matrix, steps=5, product=np.matmul):
    """Return nearly the orthogonal matrix closest to `matrix`: U V^T, where its singular values U S
    V^T become about 1.

    Newton-Schulz: X <- a X + (b A + c A A) X with A = X X^T maps every singular value s to a s + b
    s^3 + c s^5, which drives all of (0, 1] into [0.7, 1.2] in five steps. matrix: [in, out] -> the
    same. Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
    with its a, b, c.
    """
    x = matrix / (np.linalg.norm(matrix) + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        square = product(x, x.T)
        x = 3.4445 * x + product(-4.7750 * square + 2.0315 * product(square, square), x)
    return x.T if tall else x


def muon_update(
    parameter, gradient, momentum, *, lr, beta=0.95, weight_decay=0.0, cuts=(), product=np.matmul
):
    """One step of Muon, in place, for a matrix: the momentum, looked ahead, is made orthogonal, so
    that no direction is neglected because its gradients are small.

    b <- beta b + (1 - beta) g; p <- (1 - lr weight_decay) p - lr 0.2 sqrt(max(in, out))
    orthogonal((1 - beta) g + beta b), whose numbers are as large as AdamW's (Liu et al., "Muon is
    Scalable for LLM Training", 2025). cuts: where, along the last axis, the next of several
    matrices side by side begins (of q | k | v), each of which is made orthogonal by itself.
    """
    momentum *= beta
    momentum += (1 - beta) * gradient
    parameter *= 1 - lr * weight_decay
    ahead = (1 - beta) * gradient + beta * momentum
    for p, u in zip(np.split(parameter, cuts, axis=-1), np.split(ahead, cuts, axis=-1)):
        p -= (lr * 0.2 * math.sqrt(max(u.shape))) * orthogonal(u, product=product)


class Optimizer:
    """Base: `update(parameters, gradients, lr)` changes every parameter in place; `state` {name:
    array}; `steps` so far.

    weight_decay: for matrices only. ops: the twin that computes, None for NumPy. KINDS: what is
    kept of each parameter, an array of its shape and dtype.
    """

    KINDS: tuple[str, ...]

    def __init__(self, ops=None, weight_decay: float = 0.0):
        self.ops = numpy_ops if ops is None else ops
        self.weight_decay, self.steps = weight_decay, 0
        self.state: dict[str, np.ndarray] = {}

    def kinds(self, name: str, p: np.ndarray) -> tuple[str, ...]:
        """Which arrays are kept of one parameter."""
        return self.KINDS

    def like(self, parameters: dict) -> dict[str, np.ndarray]:
        """The names of all that `state` keeps, and the parameter that each is shaped like."""
        return {
            f"{kind}.{name}": p for name, p in parameters.items() for kind in self.kinds(name, p)
        }

    def kept(self, name: str, p: np.ndarray) -> list[np.ndarray]:
        """The arrays of one parameter."""
        return [self.state[f"{kind}.{name}"] for kind in self.kinds(name, p)]

    def step_of(
        self, name: str, p: np.ndarray, gradient: np.ndarray, lr: float, decay: float
    ) -> None:
        """Change one parameter."""
        raise NotImplementedError

    def update(self, parameters: dict, gradients: dict, lr: float) -> None:
        if not self.state:
            self.state = {name: np.zeros_like(p) for name, p in self.like(parameters).items()}
        self.steps += 1
        for name, gradient in gradients.items():
            p = parameters[name]
            self.step_of(name, p, gradient, lr, self.weight_decay if p.ndim > 1 else 0.0)


class SGD(Optimizer):
    """Plain stepping down the gradient, with momentum `beta` (0 for none)."""

    KINDS = ("momentum",)

    def __init__(self, ops=None, weight_decay: float = 0.0, beta: float = 0.9):
        super().__init__(ops, weight_decay)
        self.beta = beta

    def step_of(self, name, p, gradient, lr, decay):
        (momentum,) = self.kept(name, p)
        sgd_update(p, gradient, momentum, lr=lr, beta=self.beta, weight_decay=decay)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (see adamw_update)."""

    KINDS = ("mean", "square")

    def __init__(self, ops=None, weight_decay: float = 0.1, betas=(0.9, 0.999), eps: float = 1e-8):
        super().__init__(ops, weight_decay)
        self.betas, self.eps = betas, eps

    def step_of(self, name, p, gradient, lr, decay):
        update = abilities(self.ops).adamw_update or adamw_update
        mean, square = self.kept(name, p)
        update(
            p,
            gradient,
            mean,
            square,
            lr=lr,
            step=self.steps,
            betas=self.betas,
            eps=self.eps,
            weight_decay=decay,
        )


class Muon(AdamW):
    """Muon for `matrices` {name: cuts}, those inside the blocks; AdamW for all else: tables,
    vectors, heads."""

    matrices: Mapping[str, Sequence[int]] = MappingProxyType({})

    def kinds(self, name, p):
        return ("momentum",) if name in self.matrices else self.KINDS

    def step_of(self, name, p, gradient, lr, decay):
        if self.kinds(name, p) == self.KINDS:
            super().step_of(name, p, gradient, lr, decay)
            return
        (momentum,) = self.kept(name, p)
        product = abilities(self.ops).product or np.matmul
        muon_update(
            p,
            gradient,
            momentum,
            lr=lr,
            weight_decay=decay,
            cuts=self.matrices[name],
            product=product,
        )


OPTIMIZERS = {"sgd": SGD, "adamw": AdamW, "muon": Muon}


def learning_rate(
    step: int, steps: int, *, lr: float, warmup: int, schedule: str = "cosine", final: float = 0.1
) -> float:
    """Return the learning rate of one step of `steps`: up in a line over `warmup` steps, then by
    the schedule.

    "cosine": down along half a cosine to final * lr. "linear": level for the first third, then down
    in a line to final * lr. "constant": level. step counts from 0; before it and after `steps` the
    rate stays what it is there.
    """
    step = min(max(step, 0), steps)
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    if schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * done))
    elif schedule == "linear":
        left = min(1.0, (1 - done) * 1.5)
    elif schedule == "constant":
        left = 1.0
    else:
        raise InputError(f"schedule is {schedule!r}; it must be cosine, linear or constant")
    return lr * (final + (1 - final) * left)


def global_norm(gradients: dict) -> float:
    """The length of all gradients as one vector: sqrt of the sum of all squares."""
    return math.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))


def clip_by_global_norm(gradients: dict, limit: float) -> float:
    """Make all gradients shorter, in place, if together they are longer than `limit`; return how
    long they were."""
    norm = global_norm(gradients)
    if norm > limit:
        for gradient in gradients.values():
            gradient *= limit / norm
    return norm
