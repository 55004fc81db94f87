"""What every operation of a pass costs, in closed form: arithmetic and bytes under the step's name.

The letters are those of config.py. One multiply-add is 2 FLOPs; every other operation on a number,
exp and tanh too, is 1. Summed over a block, the products are the formula that every text on
Transformers quotes: c_attn 3 T C^2 + c_proj T C^2 + c_fc 4 T C^2 + mlp.c_proj 4 T C^2 = 12 T C^2
multiply-adds, and q k^T and weights v T S C each, which are 2 T^2 C without a past. Source: Kaplan
et al., "Scaling Laws for Neural Language Models" (2020), table 1; the split into arithmetic and
bytes is that of Williams, Waterman, Patterson, "Roofline" (2009).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from ..families.gpt2.config import GPT2Config
from ..steps import step_names
from ..weights import KINDS

FLOAT = 4  # bytes of a number in float32, which activations and cache are
ACTIVATION_FLOPS = {
    "gelu_new": 9,
    "gelu": 5,
    "relu": 1,
}  # operations in the equation of each, as ops.py writes it


@dataclass(frozen=True)
class Cost:
    """One operation, or several together (cost + cost).

    products: FLOPs of matrix products; elements: FLOPs of all else. weights: bytes of stored
    weights that are read; cache: bytes of keys and values read and written; values: bytes of
    activations read and written, each array once.
    """

    products: float = 0.0
    elements: float = 0.0
    weights: float = 0.0
    cache: float = 0.0
    values: float = 0.0

    @property
    def flops(self) -> float:
        """All arithmetic."""
        return self.products + self.elements

    @property
    def bytes(self) -> float:
        """All bytes read and written."""
        return self.weights + self.cache + self.values

    @property
    def intensity(self) -> float:
        """FLOPs for each byte: the horizontal axis of a roofline."""
        return self.flops / self.bytes if self.bytes else 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)))


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum of several costs."""
    return sum(costs, Cost())


def stored_bytes(n_in: int, n_out: int, kind: str) -> int:
    """Return the bytes of a matrix [in,out] stored as `kind`: 4 a number in float32, 2 in the
    halves, in blocks of 32 34/32 (int8), 18/32 (int4) and 20/32 (int4_min); rows are filled up to
    16, inputs to whole blocks. "float64" is 8."""
    if kind == "float64":
        return 8 * n_in * n_out
    return sum(
        math.prod(shape) * np.dtype(dtype).itemsize
        for shape, dtype in KINDS[kind].shapes(n_out, n_in).values()
    )


def step_costs(
    config: GPT2Config,
    T: int,
    past: int = 0,
    batch: int = 1,
    kind: str = "float32",
    kept: int = 1,
    choose: bool = True,
) -> dict[str, Cost]:
    """Return {step name: Cost} of one pass over T new positions in each of `batch` rows behind
    `past` others.

    kind: how matrices are stored. kept: positions whose logits are formed (1 while generating, T
    while scoring). choose: whether a token is chosen from each row (`probs`, `next`).

    With N = B T rows and S = past + T: a product [N,K] x [K,M] is 2 N K M FLOPs, N M for the bias,
    and reads each weight once however many rows there are; that is the whole secret of prefill and
    batches. Scores are dense, T S for each head, as the textbook computes them: half of them lie in
    the future and a kernel may skip them.
    """
    C, A, F, V = config.n_embd, config.attention_dim, config.hidden_dim, config.vocab_size
    N, S, K = batch * T, past + T, batch * kept
    pairs = batch * config.n_head * T * S  # scores

    def linear(rows, n_in, n_out, bias=True):
        weights = stored_bytes(n_in, n_out, kind) + FLOAT * n_out * bias
        return Cost(
            2.0 * rows * n_in * n_out, rows * n_out, weights, 0, FLOAT * rows * (n_in + n_out)
        )

    def norm(
        rows,
        # mean, centre, square, mean, divide, scale, shift: 7 a number; two divisions, eps, root: 4
        # a row
    ):
        return Cost(0, rows * (7 * C + 4), 2 * FLOAT * C, 0, 2 * FLOAT * rows * C)

    def elementwise(flops, n, arrays):
        return Cost(0, flops * n, 0, 0, FLOAT * arrays * n)

    row_bytes = stored_bytes(C, V, kind) / V
    half_cache = FLOAT * batch * S * A  # all keys, or all values
    block = {
        "ln_1": norm(N),
        "attn.c_attn": linear(N, C, 3 * A),
        "attn.q": Cost(),  # views of c_attn's result
        "attn.k": Cost(),
        "attn.v": Cost(),
        "attn.scores": Cost(
            2.0 * pairs * config.head_dim,
            pairs,
            0,
            half_cache + 2 * FLOAT * N * A,
            FLOAT * (N * A + pairs),
        ),
        "attn.weights": elementwise(5, pairs, 2),  # largest, subtract, exp, sum, divide
        "attn.context": Cost(
            2.0 * pairs * config.head_dim, 0, 0, half_cache, FLOAT * (N * A + pairs)
        ),
        "attn.out": linear(N, A, C),
        "attn.residual": elementwise(1, N * C, 3),
        "ln_2": norm(N),
        "mlp.c_fc": linear(N, C, F),
        "mlp.act": elementwise(ACTIVATION_FLOPS[config.activation_function], N * F, 2),
        "mlp.out": linear(N, F, C),
        "mlp.residual": elementwise(1, N * C, 3),
    }
    chosen = {
        "probs": elementwise(5, batch * V, 2),  # softmax
        "next": Cost(
            0, batch * (6 * V + 1), 0, 0, FLOAT * batch * 2 * V
        ),  # log_softmax, and the largest of probs
    }
    return {
        "wte": Cost(0, 0, N * row_bytes, 0, FLOAT * N * C),
        "wpe": Cost(0, 0, FLOAT * N * C, 0, FLOAT * N * C),
        "embed": elementwise(1, N * C, 3),
        **{f"h.{i}.{name}": cost for i in range(config.n_layer) for name, cost in block.items()},
        "ln_f": norm(K),
        "logits": linear(K, C, V, bias=False),
        **(chosen if choose else {}),
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


def covered(names: Iterable[str], n_layer: int) -> dict[str, tuple[str, ...]]:
    """Return for each name formed the names whose work it ends: `h.0.attn.context` is scores,
    weights and context where a kernel does all three at once."""
    names, result, waiting = set(names), {}, []
    for name in [*step_names(n_layer), "probs", "next"]:
        waiting.append(name)
        if name in names:
            result[name], waiting = tuple(waiting), []
    return result
