"""Answers that are right, and written in another way than the package's own."""

import math

import numpy as np


def norm_by_var(x, weight, bias, eps=1e-5):
    return (
        weight * ((x - np.mean(x, -1, keepdims=True)) / (np.var(x, -1, keepdims=True) + eps) ** 0.5)
        + bias
    )


def attention_by_einsum(q, k, v, positions, scale):
    scores = np.einsum("bhtd,bhsd->bhts", q * scale, k)
    hidden = np.arange(k.shape[2])[None, None, None] > positions[:, None, :, None]
    scores = scores + np.where(hidden, -np.inf, 0).astype(q.dtype)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhts,bhsd->bhtd", e / e.sum(-1, keepdims=True), v)


def top_p_from_above(logits, p):
    probs = np.exp(logits.astype(np.float64) - logits.max())
    probs /= probs.sum()
    order = np.argsort(-probs)
    before = np.cumsum(probs[order]) - probs[order]
    kept = np.full_like(logits, -np.inf)
    kept[order[(before < p) | (np.arange(len(order)) == 0)]] = logits[
        order[(before < p) | (np.arange(len(order)) == 0)]
    ]
    return kept


def cross_entropy_by_index(logits, targets):
    z = logits - logits.max(-1, keepdims=True)
    logprobs = z - np.log(np.exp(z).sum(-1, keepdims=True))
    rows = logprobs.reshape(-1, logits.shape[-1])
    return -rows[np.arange(len(rows)), np.ravel(targets)].reshape(np.shape(targets))


def quantize_by_factor(w):
    blocks = w.reshape(w.shape[0], w.shape[1] // 32, 32)
    largest = np.max(np.abs(blocks), axis=2)
    factor = np.divide(127, largest, out=np.zeros_like(largest), where=largest > 0)
    return np.round(blocks * factor[:, :, None]).astype("int8"), largest / np.float32(127)


def adamw_by_the_book(
    parameter, gradient, mean, square, *, lr, step, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0
):
    mean[:] = betas[0] * mean + (1 - betas[0]) * gradient
    square[:] = betas[1] * square + (1 - betas[1]) * gradient**2
    parameter -= lr * weight_decay * parameter
    parameter -= (
        lr * (mean / (1 - betas[0] ** step)) / (np.sqrt(square / (1 - betas[1] ** step)) + eps)
    )


def central_difference_in_place(f, x, h):
    gradient = np.empty(x.shape)
    for i in np.ndindex(*x.shape):
        old = x[i]
        x[i] = old + h
        up = f(x)
        x[i] = old - h
        gradient[i] = (up - f(x)) / h / 2
        x[i] = old
    return gradient


def linear_backward_by_einsum(dy, x, weight):
    return np.einsum("bto,io->bti", dy, weight), {
        "weight": np.einsum("bti,bto->io", x, dy),
        "bias": dy.sum((0, 1)),
    }


def accept_by_loop(p, q, drafted, u, v):
    if q[drafted] == 0 or u < p[drafted] / q[drafted]:
        return drafted
    left = np.clip(p - q, 0, None)
    left, total = left / left.sum(), 0.0
    for i, share in enumerate(left):
        total += share
        if total > v:
            return i
    return i


def argmax_by_enumerate(scores):
    best, largest = 0, -math.inf
    for i, score in enumerate(scores.tolist()):
        if score > largest:
            best, largest = i, score
    return best


def matmul_by_numbers(x, w):
    y = np.zeros((x.shape[0], w.shape[1]), dtype=x.dtype)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            for k in range(x.shape[1]):
                y[i, j] += x[i, k] * w[k, j]
    return y


def clip_in_float64(gradients, limit):
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
    for g in gradients.values():
        g *= min(1.0, limit / max(norm, 1e-30))
    return norm


def gelu_new_by_numpy_root(x):
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention_by_added_mask(q, k, v, positions, scale):
    visible = np.arange(k.shape[2]) <= positions[:, None, :, None]
    scores = q @ k.transpose(0, 1, 3, 2) * np.float64(scale) + np.where(visible, 0.0, -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


WIDE = {  # right, and in float64 where float32 came in
    "softmax": lambda x: (
        np.exp(x - x.max(-1, keepdims=True))
        / np.float64(1)
        / np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)
    ),
    "gelu_new": gelu_new_by_numpy_root,
    "attention": attention_by_added_mask,
    "top_k": lambda logits, k: np.array(
        [x if (logits > x).sum() < k else -math.inf for x in logits.tolist()]
    ),
}
OTHER_WAYS = {
    "argmax": argmax_by_enumerate,
    "softmax": lambda x: (lambda e: e / np.sum(e, -1)[..., None])(
        np.exp(x - np.max(x, -1)[..., None])
    ),
    "log_softmax": lambda x: (
        x
        - x.max(-1, keepdims=True)
        - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
    ),
    "cross_entropy": cross_entropy_by_index,
    "causal_mask": lambda positions, n_keys: positions[:, :, None] >= np.arange(n_keys)[None, None],
    "split_heads": lambda x, n_head: np.stack(np.split(x, n_head, axis=-1), axis=1),
    "merge_heads": lambda x: np.concatenate([x[:, h] for h in range(x.shape[1])], axis=-1),
    "attention": attention_by_einsum,
    "layer_norm": norm_by_var,
    "gelu_new": lambda x: x * 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "embed": lambda ids, past, wte, wpe: wte[ids] + wpe[None, past : past + ids.shape[1]],
    "top_p": top_p_from_above,
    "quantize": quantize_by_factor,
    "dequantize": (
        lambda q, scales: (q.astype(np.float32) * scales[:, :, None]).reshape(
            q.shape[0], q.shape[1] * 32
        )
    ),
    "matmul": matmul_by_numbers,
    "clip_by_global_norm": clip_in_float64,
    "central_difference": central_difference_in_place,
    "linear_backward": linear_backward_by_einsum,
    "adamw_update": adamw_by_the_book,
    "accept": accept_by_loop,
    "ablate_heads": lambda context, heads: (
        context * np.isin(np.arange(context.shape[1]), heads, invert=True)[:, None, None]
    ),
}
