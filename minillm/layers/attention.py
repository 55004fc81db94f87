"""Causal self-attention: the only part of a Transformer in which one position sees another.

Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2. The letters are those of
sizes.py.
"""

from __future__ import annotations

import numpy as np

from .. import ops as numpy_ops
from ..ops import causal_mask, merge_heads, split_heads  # noqa: F401 (also to be found here)
from ..steps import identity, times_only
from ..twins.twin import abilities


def scaled_dot_product_attention(q, k, v, positions, scale, step=identity, ops=numpy_ops):
    """Average the values, each weighted by how well its key fits the query: softmax(q k^T * scale +
    mask) v.

    q: [B,H,T,D]; k, v: [B,H,S,D]; positions: [B,T] -> [B,H,T,D]. A twin with an `attention` of its
    own, which forms no scores, is asked when nobody looks at them.
    """
    if times_only(step) and (own := abilities(ops).attention) is not None:
        return step("context", own(q, k, v, positions, scale))
    scores = step("scores", q @ k.swapaxes(-1, -2) * scale)  # [B,H,T,D] @ [B,H,D,S] -> [B,H,T,S]
    scores = np.where(
        ops.causal_mask(positions, k.shape[2])[:, None], scores, -np.inf
    )  # [B,1,T,S], over all heads
    weights = step("weights", ops.softmax(scores))  # rows sum to 1
    return step("context", weights @ v)  # [B,H,T,S] @ [B,H,S,D] -> [B,H,T,D]


def causal_self_attention(
    x, c_attn, c_proj, *, n_head, scale, positions, past=None, step=identity, ops=numpy_ops
):
    """Let every position gather from itself and the ones before it, in n_head ways at once.

    x: [B,T,C]; c_attn: weight [C,3C] and bias, q | k | v side by side; c_proj: weight [C,C] and
    bias; positions: [B,T]; past: one layer of a KVCache, which keeps the new keys and values and
    returns all -> [B,T,C].
    """
    qkv = np.split(step("c_attn", ops.linear(x, **c_attn)), 3, axis=-1)  # [B,T,C] -> 3 x [B,T,C]
    # each [B,H,T,D]
    q, k, v = (step(name, ops.split_heads(part, n_head)) for name, part in zip("qkv", qkv))
    k, v = past.append(k, v) if past else (k, v)  # [B,H,T,D] -> [B,H,S,D]
    context = scaled_dot_product_attention(q, k, v, positions, scale, step, ops)  # [B,H,T,D]
    return step("out", ops.linear(ops.merge_heads(context), **c_proj))  # [B,T,C] -> [B,T,C]
