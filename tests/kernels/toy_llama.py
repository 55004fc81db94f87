"""A model of Llama's shape, as a program and in plain NumPy: fewer key-value heads than heads, RMS
norm, no biases, rotation, a gate, and in its first layer a norm of each query and key, as Qwen3
has; the two share nothing but the weights."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from minillm.kernels.program import Instruction, Norm, Program
from minillm.weights import store

EPS = 1e-4
# Nothing is a multiple of 16 or 32; H D is not C
SIZES = SimpleNamespace(V=131, P=70, L=2, C=36, H=6, K=2, D=10, F=45)


def resized(**letters):
    return SimpleNamespace(**{**vars(SIZES), **letters})


def cache_config(sizes):
    """What a KVCache asks of a config."""
    shape = {"n_layer": sizes.L, "n_head": sizes.K, "head_dim": sizes.D, "n_positions": sizes.P}
    return SimpleNamespace(**shape, sizes=sizes, layout={})


def parameters(sizes, kinds, seed=0, allocate=np.empty) -> dict:
    """Weights, of `kinds` in turn, and arrays; every number of a norm counts."""
    r, kinds = np.random.default_rng(seed), list(kinds)
    C, F, HD, KD = sizes.C, sizes.F, sizes.H * sizes.D, sizes.K * sizes.D
    matrices = {"q": (C, HD), "k": (C, KD), "v": (C, KD), "o": (HD, C)}
    matrices |= {"gate": (C, F), "up": (C, F), "down": (F, C)}

    def stored(shape, table=False):
        numbers = r.normal(0, 2 / np.sqrt(shape[0]), shape).astype(np.float32)
        kinds.append(kinds.pop(0))
        return store(numbers, kinds[-1], table=table, allocate=allocate)

    def norm(n):
        array = allocate(n, np.float32)
        array[:] = r.normal(1, 0.3, n)
        return array

    found = {"embed": stored((sizes.V, C), table=True), "norm": norm(C)}
    for i in range(sizes.L):
        found |= {f"{i}.{name}": stored(shape) for name, shape in matrices.items()}
        found |= {f"{i}.{name}": norm(C) for name in ("attn_norm", "mlp_norm")}
    return found | {f"0.{name}": norm(sizes.D) for name in ("q_norm", "k_norm")}


def angles(sizes, positions):
    """[n,D/2], in float64."""
    return positions[:, None] * 100.0 ** (-np.arange(0, sizes.D, 2) / sizes.D)


def program(p, sizes, activation="silu") -> Program:
    steps = []
    for i in range(sizes.L):
        first, second = (
            Norm(f"{i}.{n}", "rms_norm", p[f"{i}.{n}"], eps=EPS) for n in ("attn_norm", "mlp_norm")
        )
        steps += [
            Instruction(f"{i}.q", p[f"{i}.q"], norm=first, target="q", meet=False),
            Instruction(f"{i}.k", p[f"{i}.k"], target="k", meet=False),
            Instruction(f"{i}.v", p[f"{i}.v"], target="v"),
            Instruction(
                f"{i}.context",
                source=("q", "k", "v"),
                then="attend",
                target="context",
                head_norms=[
                    Norm(name, "rms_norm", p[name], eps=EPS)
                    for name in (f"{i}.q_norm", f"{i}.k_norm")
                    if name in p
                ],
            ),
            Instruction(f"{i}.attn", p[f"{i}.o"], source="context", then="residual"),
            Instruction(f"{i}.gate", p[f"{i}.gate"], norm=second, target="gate", meet=False),
            Instruction(f"{i}.act", p[f"{i}.up"], then=activation, gate="gate", target="act"),
            Instruction(f"{i}.mlp", p[f"{i}.down"], source="act", then="residual"),
        ]
    last = Norm("norm", "rms_norm", p["norm"], eps=EPS)
    steps.append(Instruction("logits", p["embed"].T, norm=last, target="logits"))

    def turned(positions):
        angle = angles(sizes, positions)
        return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    scales = [sizes.D**-0.5 / (i + 1) for i in range(sizes.L)]
    return Program(sizes, p["embed"], None, steps, scales, turned)


ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
}


def in_8_bits(x):
    """x [T,n], of which 32 neighbours share the step that 127 of make the largest."""
    T, n = x.shape
    blocks = np.pad(x, ((0, 0), (0, -n % 32))).reshape(T, -1, 32)
    step = np.abs(blocks).max(-1, keepdims=True) / 127
    return (np.rint(blocks / step) * step).reshape(T, -1)[:, :n]


def in_bfloat16(x):
    """x with 8 binary digits, the nearest or else the even ones."""
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.rint(256 * fraction) / 256, exponent)


ENTERS = {"bfloat16_rounded": in_bfloat16, **dict.fromkeys(("int8", "int4", "int4_min"), in_8_bits)}


def forward(p, sizes, ids, activation="silu", window=None):
    """Logits [T,V] of ids [T] in float64, and the keys of all layers [L,K,T,D]. Before a product
    with blocks x is rounded to 8 bits, and to bfloat16 where that is said, as the step does it."""
    enters = {name: ENTERS.get(getattr(weight, "kind", "")) for name, weight in p.items()}
    p = {name: np.asarray(array, np.float64) for name, array in p.items()}

    def product(x, name):
        matrix = p[name].T if name == "embed" else p[name]
        return (enters[name](x) if enters[name] else x) @ matrix

    H, K, D, T = sizes.H, sizes.K, sizes.D, len(ids)
    distance = np.arange(T)[:, None] - np.arange(T)
    seen = (distance >= 0) & (distance < (window or T))
    angle = angles(sizes, np.arange(T))  # [T,D/2]

    def norm(x, weight):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * weight

    def rotate(x):  # complex numbers of which the halves are the parts
        turned = (x[..., : D // 2] + 1j * x[..., D // 2 :]) * np.exp(1j * angle)
        return np.concatenate([turned.real, turned.imag], axis=-1)

    def heads(x, n, weight=None):
        x = x.reshape(T, n, D).swapaxes(0, 1)  # [n,T,D]
        return x if weight is None else norm(x, p[weight])

    x, all_keys = p["embed"][ids], []
    for i in range(sizes.L):
        h = norm(x, p[f"{i}.attn_norm"])
        norms = [name if name in p else None for name in (f"{i}.q_norm", f"{i}.k_norm")]
        q = rotate(heads(product(h, f"{i}.q"), H, norms[0]))
        k = rotate(heads(product(h, f"{i}.k"), K, norms[1]))
        v = heads(product(h, f"{i}.v"), K)
        context = np.empty((H, T, D))
        for head in range(H):
            key, value = k[head // (H // K)], v[head // (H // K)]
            scores = np.where(seen, q[head] @ key.T * (D**-0.5 / (i + 1)), -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            context[head] = weights / weights.sum(-1, keepdims=True) @ value
        x = x + product(context.swapaxes(0, 1).reshape(T, H * D), f"{i}.o")
        h = norm(x, p[f"{i}.mlp_norm"])
        gate, up = product(h, f"{i}.gate"), product(h, f"{i}.up")
        x = x + product(ACTIVATIONS[activation](gate) * up, f"{i}.down")
        all_keys.append(k)
    return product(norm(x, p["norm"]), "embed"), np.array(all_keys)
