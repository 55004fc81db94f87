"""The right answers to exercises whose subject is, in the package, a method or made for speed.

Everything else is checked against the package's own function. The letters are those of sizes.py.
"""

from __future__ import annotations

import math

import numpy as np

from ...layers.attention import causal_mask
from ...ops import layer_norm, softmax
from ...tokenizer.bpe import merge_by_hand as encode  # noqa: F401

# ---- core


def argmax(scores):
    """Return the index of the largest score, the first of equals: greedy decoding's whole choice.

    scores: [V], any numbers -> int. Write it as a loop, without np.argmax.
    """
    best = 0
    for i in range(1, len(scores)):
        if scores[i] > scores[best]:
            best = i
    return best


def likeliest(probs, n):
    """Return the n most probable tokens, the most probable first; of equals, the lower id first.

    probs: [V]; n: int -> ids [n] of int64.
    """
    return np.argsort(-probs, kind="stable")[:n]


def attention(q, k, v, positions, scale):
    """Average the values, each weighted by how well its key fits the query: softmax(q k^T * scale +
    mask) v.

    q: [B,H,T,D]; k, v: [B,H,S,D]; positions: [B,T], of the queries; scale: 1/sqrt(D) -> [B,H,T,D].
    Key s is visible from position p when s <= p; a score that is not visible is -inf. Source:
    Vaswani et al. (2017), equation 1.
    """
    scores = q @ k.swapaxes(-1, -2) * scale
    visible = causal_mask(positions, k.shape[2])[:, None]
    return softmax(np.where(visible, scores, -np.inf)) @ v


def block(x, ln_1, attend, ln_2, feed_forward):
    """One Transformer block, each part reading a normed copy of the stream and adding to it: x +
    f(norm(x)), twice.

    x: [B,T,C]; attend, feed_forward: functions [B,T,C] -> [B,T,C], in this order, each called
    once; ln_1, ln_2: {"weight": [C], "bias": [C]} of the layer norm before each -> [B,T,C]. Source:
    Radford et al. (2019), section 2.3.
    """
    x = x + attend(layer_norm(x, **ln_1))
    return x + feed_forward(layer_norm(x, **ln_2))


def embed(ids, past, wte, wpe):
    """Turn tokens into vectors: what is it (wte) plus where does it stand (wpe).

    ids: [B,T], of positions past, past + 1, ...; wte: [V,C]; wpe: [n_positions,C] -> [B,T,C].
    """
    return wte[ids] + wpe[past + np.arange(ids.shape[1])]


def forward(ids, wte, wpe, blocks, ln_f):
    """The whole of GPT-2: embed, blocks, final layer norm, unembed with the embedding's own matrix.

    ids: [B,T]; wte: [V,C]; wpe: [n_positions,C]; blocks: functions [B,T,C] -> [B,T,C], each called
    once; ln_f: {"weight": [C], "bias": [C]} -> logits [B,T,V]. Source: Radford et al. (2019),
    section 2.3.
    """
    x = wte[ids] + wpe[np.arange(ids.shape[1])]
    for block in blocks:
        x = block(x)
    return layer_norm(x, **ln_f) @ wte.T


def greedy(forward, ids, n_new):
    """Continue ids by n_new tokens, each the likeliest, with a cache: every position goes through
    the model once.

    forward(new_ids, past): logits [len(new_ids),V] of ids that come after `past` others, which it
    remembers; ids: list; n_new: at least 1 -> list of len(ids) + n_new ids.
    """
    ids, past = list(ids), 0
    for _ in range(n_new):
        logits = forward(ids[past:], past)
        past = len(ids)
        ids.append(int(logits[-1].argmax()))
    return ids


def append(keys, values, lengths, k, v):
    """Write new keys and values after what each row of a cache holds; return all that may be
    attended to.

    keys, values: [B,H,capacity,D], changed in place; lengths: [B], how many positions each row
    holds, not changed; k, v: [B,H,T,D] -> (keys, values), each [B,H,S,D] with S = the longest row +
    T, as views.
    """
    T = k.shape[2]
    for row, start in enumerate(lengths):
        keys[row, :, start : start + T] = k[row]
        values[row, :, start : start + T] = v[row]
    S = lengths.max() + T
    return keys[:, :, :S], values[:, :, :S]


# ---- time


def decode_cost(C, L, V, S, weight_bytes):
    """Count the arithmetic and the memory of one decode step: one new token, with S positions in
    the cache, its own included.

    C: n_embd; L: n_layer; V: vocab_size; weight_bytes: of one weight -> (flops, bytes), both int. A
    block's matrices are [C,3C], [C,C], [C,4C], [4C,C]; the unembedding is [C,V]; a multiply-add is
    2 FLOPs; q k^T and the average of the values count, all else does not. Bytes: every weight once,
    all keys and values once, at 4 bytes. Source: Kaplan et al. (2020).
    """
    weights = 12 * L * C * C + C * V
    flops = 2 * weights + 4 * L * S * C
    return flops, weights * weight_bytes + 2 * L * S * C * 4


def roofline(flops, n_bytes, peak, bandwidth):
    """Return the least time that an operation can take, and what binds it: the slower of arithmetic
    and memory.

    flops: FLOPs; n_bytes: bytes moved; peak: FLOP/s; bandwidth: bytes/s -> (seconds, "arithmetic"
    or "memory"; the latter if they take equally long). Source: Williams, Waterman, Patterson,
    "Roofline" (2009).
    """
    arithmetic, memory = flops / peak, n_bytes / bandwidth
    return max(arithmetic, memory), "arithmetic" if arithmetic > memory else "memory"


def matmul(x, w):
    """Multiply matrices by loops, in the order that reads memory forwards: y_i += x_ik w_k, whole
    rows of w.

    x: [M,K]; w: [K,N], of the same dtype -> [M,N] of that dtype.
    """
    y = np.zeros((len(x), w.shape[1]), x.dtype)
    for i in range(len(x)):
        for k in range(len(w)):
            y[i] += x[i, k] * w[k]
    return y


def gelu_loop(x, y):
    """Write the exact GELU of every x into y: 0.5 x (1 + erf(x / sqrt(2))), by a loop that Numba
    can compile.

    x, y: [N]; y is changed in place -> None. Plain Python with math.erf: the check compiles it with
    numba.njit, and it must then be at least twice as fast as minillm.ops.gelu, since NumPy has no
    erf.
    """
    for i in range(len(x)):
        y[i] = 0.5 * x[i] * (1.0 + math.erf(x[i] / math.sqrt(2.0)))


def quantize(w):
    """Store weights in 8 bits: in every block of 32 neighbours, the largest size becomes 127 steps
    of the grid.

    w: float32 [N,K], K a multiple of 32 -> (q int8 [N,K/32,32], scales float32 [N,K/32]), w ~ q *
    scale. Numbers between steps go to the nearest (np.rint); a block of zeros has scale 0 and q 0.
    """
    blocks = w.reshape(len(w), -1, 32)
    scales = np.abs(blocks).max(axis=-1) / 127
    steps = blocks / np.where(scales == 0, 1, scales)[..., None]
    return np.rint(steps).astype(np.int8), scales


def dequantize(q, scales):
    """Turn 8-bit weights back into float32: q * scale, each block of 32 by its own.

    q: int8 [N,K/32,32]; scales: float32 [N,K/32] -> float32 [N,K].
    """
    return (q * scales[..., None]).reshape(len(q), -1)


def accept(p, q, drafted, u, v):
    """Check one guessed token of speculative decoding, so that the result is distributed as p,
    whatever q is.

    Keep it with probability min(1, p(x) / q(x)), which is when u q(x) < p(x); else draw from max(p
    - q, 0), normalised: the first token at which its running sum passes v. p, q: [V], of the model
    and of the guesser; drafted: the token that was drawn from q; u, v: draws from [0, 1) -> int.
    Source: Leviathan, Kalman, Matias (2022), section 2.3.
    """
    if u * q[drafted] < p[drafted]:
        return drafted
    running = np.cumsum(np.maximum(p - q, 0))
    return int(np.searchsorted(running, v * running[-1], side="right"))


def verified(drafted, chosen):
    """Return the tokens that a greedy verify cycle yields: the guesses up to the first wrong one,
    and one of the model's own.

    drafted: list of k guesses; chosen: list of k + 1, the model's own choice after the text and
    after each guess -> list of 1 to k + 1 tokens.
    """
    kept = 0
    while kept < len(drafted) and drafted[kept] == chosen[kept]:
        kept += 1
    return drafted[:kept] + chosen[kept : kept + 1]


# ---- learning


def central_difference(f, x, h):
    """Return the gradient of f at x by trying: (f(x + h e_i) - f(x - h e_i)) / 2h for every number
    x_i.

    f: array -> float; x: float64 [...], not changed; h: the step -> [...], like x. Its error falls
    as h^2.
    """
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        gradient[i] = (f(up) - f(down)) / (2 * h)
    return gradient


def lstm_cell(x, h, c, w_x, w_h, bias):
    """One step of an LSTM: forget a part of the memory c, add to it, and show a part of it as h.

    i, f, g, o = the four quarters of x W_x + h W_h + b, with sigmoid on i, f, o and tanh on g; c <-
    f c + i g; h <- o tanh(c). x: [B,C]; h, c: [B,N]; w_x: [C,4N]; w_h: [N,4N]; bias: [4N] -> (h,
    c), each [B,N]. Source: Hochreiter, Schmidhuber (1997), with the forget gate of Gers,
    Schmidhuber, Cummins (2000).
    """
    i, f, g, o = np.split(x @ w_x + h @ w_h + bias, 4, axis=-1)
    i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
    c = f * c + i * np.tanh(g)
    return o * np.tanh(c), c


def last_state(states, lengths):
    """Pick each text's state at its last real token, which a classifier reads.

    states: [B,T,C], batch first; lengths: [B], the rest of each row being padding on the right ->
    [B,C].
    """
    return states[np.arange(len(states)), lengths - 1]


# ---- inside


def logit_lens(x, ln_f, wte):
    """Read the residual stream at any depth as if it were the last: logits = layer_norm(x) wte^T.

    x: [B,T,C]; ln_f: {"weight": [C], "bias": [C]}; wte: [V,C] -> [B,T,V].
    """
    return layer_norm(x, **ln_f) @ wte.T


def ablate_heads(context, heads):
    """Silence heads, to see what they were good for: their context becomes 0, all others stay.

    context: [B,H,T,D], not changed; heads: list of numbers from 0 -> [B,H,T,D].
    """
    result = context.copy()
    result[:, heads] = 0
    return result
