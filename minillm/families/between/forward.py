"""Between GPT-2 and Llama, from ids to logits: one block, in which every idea is a flag of the
config (why: see the package). Read it beside GPT-2's and Llama's, whose letters, names and
arguments it has."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops as numpy_ops
from ...layers.attention import scaled_dot_product_attention
from ...layers.feed_forward import feed_forward, swiglu
from ...layers.rope import rotate, rotation
from ...steps import identity, under


def hidden(
    ids, weights, config, positions, cache=None, step=identity, ops=numpy_ops, keep=slice(None)
):
    """All of it up to the head: ids, positions [B,T] -> the last hidden state [B,T,C]."""
    x = embed(ids, weights, config, positions, step)  # [B,T] -> [B,T,C]
    turn = turn_of(config, positions, x.dtype)
    for i, h in enumerate(weights["h"]):
        x = block(  # [B,T,C] -> [B,T,C]
            x, **h,
            config=config, layer=i, positions=positions, turn=turn, past=cache and cache.layer(i),
            step=under(f"h.{i}.", step), ops=ops,
        )  # fmt: skip
    return step("ln_f", norm(x[keep], weights["ln_f"], config, ops))


def embed(ids, weights, config, positions, step=identity):
    """What a token is, plus, without rotation, where it stands: ids, positions [B,T] -> [B,T,C]."""
    x = step("wte", weights["wte"]["weight"].take(ids, axis=0))
    if not config.rope:  # clips padding
        x = x + step("wpe", weights["wpe"]["weight"].take(positions, axis=0, mode="clip"))
    return step("embed", x)


def turn_of(config: Any, positions: Any, dtype: Any) -> Any:
    """cos and sin of the angles [B,T,D/2] by which queries and keys are turned; None without."""
    if not config.rope:
        return None
    return rotation(positions, config.sizes.D, config.rope_theta, dtype=dtype)


def norm(x, ln, config, ops):
    """Of either kind, with its weights `ln`: [B,T,C] -> [B,T,C]."""
    return (ops.rms_norm if config.rms_norm else ops.layer_norm)(x, **ln, eps=config.norm_epsilon)


def block(
    x, ln_1, attn, ln_2, mlp, *,
    config, layer, positions, turn, past=None, step=identity, ops=numpy_ops,
):  # fmt: skip
    """x + attention(norm(x)), then x + feed_forward(norm(x)): [B,T,C] -> [B,T,C]."""
    normed = step("ln_1", norm(x, ln_1, config, ops))
    attended = attention(
        normed, **attn, config=config, layer=layer, positions=positions, turn=turn,
        past=past, step=under("attn.", step), ops=ops,
    )  # fmt: skip
    x = step("attn.residual", x + attended)
    normed = step("ln_2", norm(x, ln_2, config, ops))
    change = swiglu if config.swiglu else feed_forward
    return step("mlp.residual", x + change(normed, **mlp, step=under("mlp.", step), ops=ops))


def attention(x, c_attn, c_proj, *, config, layer, positions, turn, past, step, ops):
    """H queries, K keys and values, side by side in c_attn as in GPT-2: [B,T,C] -> [B,T,C]."""
    s = config.sizes
    qkv = step("c_attn", ops.linear(x, **c_attn))  # [B,T,C] -> [B,T,(H+2K)D]
    parts = zip("qkv", np.split(qkv, [s.H * s.D, (s.H + s.K) * s.D], axis=-1), (s.H, s.K, s.K))
    q, k, v = (step(name, ops.split_heads(part, n)) for name, part, n in parts)  # [B,H or K,T,D]
    if config.rope:
        cos, sin = turn
        q, k = (step(f"{n}_rotated", rotate(x, cos, sin, ops)) for n, x in (("q", q), ("k", k)))
    k, v = past.append(k, v) if past else (k, v)  # [B,K,T,D] -> [B,K,S,D]
    scale = config.attention_scale(layer)
    context = scaled_dot_product_attention(q, k, v, positions, scale, step, ops)  # [B,H,T,D]
    return step("out", ops.linear(ops.merge_heads(context), **c_proj))  # -> [B,T,C]


def unembed(x, weights, step=identity, ops=numpy_ops):
    """How well each token would come next, x times the token table: [B,T,C] -> [B,T,V]."""
    return step("logits", ops.linear(x, weights["wte"]["weight"].T))
