"""Causal self-attention: the only part of a Transformer in which one position sees another.

GPT-2's has one map for queries, keys and values; Llama's and Qwen's have three, share keys and
values in groups, and turn queries and keys by their positions. Each forward has its backward under
it. Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2. The letters are those
of sizes.py.
"""

from __future__ import annotations

import numpy as np

from .. import ops as numpy_ops
from ..ops import causal_mask, merge_heads, split_heads  # noqa: F401 (also to be found here)
from ..steps import Trace, identity, times_only
from ..twins.backward import backward_of, linear_layer_backward
from ..twins.twin import abilities
from .rope import rotate, rotate_backward


def repeat_heads(x, n_head):
    """[B,K,S,D] -> [B,H,S,D]: each key-value head in turn as often as heads of queries share it; x
    itself, looked at anew, where each has its own."""
    B, K, S, D = x.shape
    return np.broadcast_to(x[:, :, None], (B, K, n_head // K, S, D)).reshape(B, n_head, S, D)


def sum_heads(dx, n_head):
    """[B,H,S,D] -> [B,K,S,D], the backward of repeat_heads: a head that several share has the sum
    of their gradients."""
    B, H, S, D = dx.shape
    shared = dx.reshape(B, n_head, H // n_head, S, D)
    return shared.sum(axis=2, initial=-0.0)  # the sum of one number is that number, -0.0 as well


def scaled_dot_product_attention(q, k, v, positions, scale, step=identity, ops=numpy_ops):
    """Average the values, each weighted by how well its key fits the query: softmax(q k^T * scale +
    mask) v.

    q: [B,H,T,D]; k, v: [B,K,S,D], each head shared by H / K heads of q; positions: [B,T] ->
    [B,H,T,D]. A twin with an `attention` of its own, which forms no scores, is asked when nobody
    looks at them.
    """
    # The same in one, where a twin has it and nobody looks: to read, go on below.
    if times_only(step) and (own := abilities(ops).attention) is not None:
        return step("context", own(q, k, v, positions, scale))
    k, v = (repeat_heads(a, q.shape[1]) for a in (k, v))  # [B,K,S,D] -> [B,H,S,D]
    scores = step("scores", q @ k.swapaxes(-1, -2) * scale)  # [B,H,T,D] @ [B,H,D,S] -> [B,H,T,S]
    scores = np.where(
        ops.causal_mask(positions, k.shape[2])[:, None], scores, -np.inf
    )  # [B,1,T,S], over all heads
    weights = step("weights", ops.softmax(scores))  # rows sum to 1
    return step("context", weights @ v)  # [B,H,T,S] @ [B,H,S,D] -> [B,H,T,D]


def scaled_dot_product_attention_backward(
    d_context, kept, positions, scale, step=identity, ops=numpy_ops
):
    """Walk back from the context to queries, keys and values: dq, dk, dv, of the shapes of q, k, v.

    kept: q, k, v and weights as the forward formed them; where it formed no weights (a twin that
    streams over the keys), they are formed again, by that twin if it can. d_context: [B,H,T,D].
    The mask needs no line: where a weight is 0, so is the gradient of its score.
    """
    q, k, v = kept["q"], kept["k"], kept["v"]
    if "weights" not in kept:
        if (own := abilities(ops).backward("attention")) is not None:
            return own(d_context, q, k, v, kept["context"], positions, scale)
        scaled_dot_product_attention(q, k, v, positions, scale, kept := Trace(), ops)
    weights, K = kept["weights"], k.shape[1]
    k, v = (repeat_heads(a, q.shape[1]) for a in (k, v))  # [B,K,T,D] -> [B,H,T,D]
    # forward was context = weights @ v: [B,H,S,T] @ [B,H,T,D] -> [B,H,S,D]
    dv = weights.swapaxes(-1, -2) @ d_context
    d_weights = step("weights", d_context @ v.swapaxes(-1, -2))
    # forward was weights = softmax(scores)
    d_scores = step("scores", backward_of("softmax", ops)(d_weights, weights))
    # forward was scores = q @ k^T * scale
    dk = d_scores.swapaxes(-1, -2) @ q * scale
    return d_scores @ k * scale, sum_heads(dk, K), sum_heads(dv, K)


def turned_attention_backward(
    d_context, kept, positions, scale, turn, step=identity, ops=numpy_ops
):
    """The same where the forward turned queries and keys (q_rotated, k_rotated) by `turn` before:
    dq, dk as they were before, and dv."""
    formed = {"q": kept["q_rotated"], "k": kept["k_rotated"], "v": kept["v"]}
    formed |= {name: kept[name] for name in ("weights", "context") if name in kept}
    dq, dk, dv = scaled_dot_product_attention_backward(
        d_context, formed, positions, scale, step, ops
    )
    # forward was q_rotated = rotate(q), k_rotated = rotate(k)
    dq = rotate_backward(step("q_rotated", dq), *turn, ops)
    return dq, rotate_backward(step("k_rotated", dk), *turn, ops), dv


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


def causal_self_attention_backward(
    d_out, x, kept, c_attn, c_proj, *, n_head, scale, positions, step=identity, ops=numpy_ops
):
    """Walk back from the output to x and the parameters.

    d_out, x: [B,T,C]; kept: what the forward formed -> dx [B,T,C], {"c_attn": gradients, "c_proj":
    gradients}.
    """
    # forward was out = linear(merge_heads(context), **c_proj)
    merged = ops.merge_heads(kept["context"])
    d_merged, d_proj = linear_layer_backward(d_out, merged, c_proj, ops)
    d_context = step("context", ops.split_heads(d_merged, n_head))
    d_qkv = scaled_dot_product_attention_backward(d_context, kept, positions, scale, step, ops)
    d_qkv = [ops.merge_heads(step(name, d)) for name, d in zip("qkv", d_qkv)]
    # forward was q | k | v = linear(x, **c_attn): 3 x [B,T,C] -> [B,T,3C]
    d_joined = step("c_attn", np.concatenate(d_qkv, axis=-1))
    dx, d_attn = linear_layer_backward(d_joined, x, c_attn, ops)
    return dx, {"c_attn": d_attn, "c_proj": d_proj}


def grouped_query_attention(
    x,
    q_proj,
    k_proj,
    v_proj,
    o_proj,
    q_norm=None,
    k_norm=None,
    *,
    n_head,
    n_kv_head,
    scale,
    eps,
    positions,
    turn,
    past=None,
    step=identity,
    ops=numpy_ops,
):
    """Let each of n_kv_head heads of keys and values serve n_head / n_kv_head heads of queries;
    both queries and keys are turned by their positions, so that their product depends on the
    distance alone.

    x: [B,T,C]; q_proj: weight [C,HD]; k_proj, v_proj: weight [C,KD]; o_proj: weight [HD,C]; each
    may have a bias. q_norm, k_norm: weight [D] of the RMS norm of each query and key before it is
    turned, with eps; None without. positions: [B,T]; turn: their `rotation`; past: one layer of a
    KVCache, which keeps turned keys -> [B,T,C]. Source: Ainslie et al., "GQA: Training Generalized
    Multi-Query Transformer Models" (2023); Henry et al., "Query-Key Normalization" (2020).
    """
    q = step("q", ops.split_heads(ops.linear(x, **q_proj), n_head))  # [B,T,C] -> [B,H,T,D]
    k = step("k", ops.split_heads(ops.linear(x, **k_proj), n_kv_head))  # [B,T,C] -> [B,K,T,D]
    v = step("v", ops.split_heads(ops.linear(x, **v_proj), n_kv_head))
    if q_norm:
        q = step("q_normed", ops.rms_norm(q, **q_norm, eps=eps))
        k = step("k_normed", ops.rms_norm(k, **k_norm, eps=eps))
    q, k = step("q_rotated", rotate(q, *turn, ops)), step("k_rotated", rotate(k, *turn, ops))
    k, v = past.append(k, v) if past else (k, v)  # [B,K,T,D] -> [B,K,S,D]
    context = scaled_dot_product_attention(q, k, v, positions, scale, step, ops)  # [B,H,T,D]
    return step("out", ops.linear(ops.merge_heads(context), **o_proj))  # -> [B,T,C]


def grouped_query_attention_backward(
    d_out,
    x,
    kept,
    q_proj,
    k_proj,
    v_proj,
    o_proj,
    q_norm=None,
    k_norm=None,
    *,
    n_head,
    scale,
    eps,
    positions,
    turn,
    step=identity,
    ops=numpy_ops,
):
    """Walk back from the output to x, which went into three maps, and the parameters.

    d_out, x: [B,T,C]; kept: what the forward formed -> dx [B,T,C], {"q_proj": gradients, ...}.
    """
    # forward was out = linear(merge_heads(context), **o_proj)
    d_merged, d_o = linear_layer_backward(d_out, ops.merge_heads(kept["context"]), o_proj, ops)
    d_context = step("context", ops.split_heads(d_merged, n_head))
    # forward was context = attention(q_rotated, k_rotated, v)
    dq, dk, dv = turned_attention_backward(d_context, kept, positions, scale, turn, step, ops)
    gradients = {"o_proj": d_o}
    if q_norm:
        # forward was q_normed = rms_norm(q, **q_norm), k_normed = rms_norm(k, **k_norm)
        norm_backward = backward_of("rms_norm", ops)
        dq, gradients["q_norm"] = norm_backward(
            step("q_normed", dq), kept["q"], q_norm["weight"], eps
        )
        dk, gradients["k_norm"] = norm_backward(
            step("k_normed", dk), kept["k"], k_norm["weight"], eps
        )
    # forward was q, k, v = linear(x, **q_proj), linear(x, **k_proj), linear(x, **v_proj)
    dx = None
    for name, d, weights in zip("qkv", (dq, dk, dv), (q_proj, k_proj, v_proj)):
        dx, gradients[f"{name}_proj"] = linear_layer_backward(
            ops.merge_heads(step(name, d)), x, weights, ops, dx
        )
    return dx, gradients
