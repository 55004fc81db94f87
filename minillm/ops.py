"""The textbook: every operation of the model in plain NumPy, for reading, and the oracle for
whatever is faster.

A twin is any module or object with these names and signatures; the model takes one as a value.
Results have the dtype of `x`: constants are Python floats, which never widen a float32 array.
"""

from __future__ import annotations

import math

import numpy as np

name = "numpy"  # as a twin is called


def linear(x, weight, bias=0.0):
    """Multiply by a weight and add a bias: y = x W + b.

    x: [..., in]; weight: [in, out], as GPT-2's Conv1D stores it; bias: [out] -> [..., out]. The
    only place where a weight multiplies. All rows go into one product, so that a batch reads the
    weight once.
    """
    rows = x.reshape(-1, x.shape[-1]) @ weight  # [..., in] -> [N, in] @ [in, out] -> [N, out]
    return rows.reshape(*x.shape[:-1], -1) + bias  # [N, out] -> [..., out]


def layer_norm(x, weight, bias, eps=1e-5):
    """Give every row mean 0 and variance 1, then scale and shift: (x - mean) / sqrt(variance + eps)
    * w + b.

    x: [..., C]; weight, bias: [C] -> [..., C]. The variance is the biased one (divided by C), and
    eps is inside the root. Source: Ba, Kiros, Hinton, "Layer Normalization" (2016).
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps) * weight + bias


def rms_norm(x, weight, eps=1e-6):
    """Give every row a root mean square of 1, then scale: x / sqrt(mean(x^2) + eps) * w.

    x: [..., C]; weight: [C] -> [..., C]. Layer norm without its mean and bias; eps is inside the
    root. It multiplies by 1 / root before it multiplies by w, and so rounds, as Llama in Hugging
    Face transformers does. Source: Zhang, Sennrich, "Root Mean Square Layer Normalization" (2019).
    """
    return x * (1.0 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)) * weight


def causal_mask(positions, n_keys):
    """Return which keys each query may see: key s is visible from position p when s <= p.

    positions: [B,T], where each new token stands in its own row; n_keys: S -> [B,T,S] of bool.
    Counting from the row's own position makes one line serve prefill, decode with a cache, and rows
    of different lengths.
    """
    return np.arange(n_keys) <= positions[..., None]  # [S], [B,T,1] -> [B,T,S]


def split_heads(x, n_head):
    """[B,T,C] -> [B,H,T,D]: head h owns columns h*D to (h+1)*D."""
    return x.reshape(*x.shape[:2], n_head, -1).swapaxes(1, 2)


def merge_heads(x):
    """[B,H,T,D] -> [B,T,C], the inverse of split_heads."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def softmax(x):
    """Turn scores into probabilities along the last axis: exp(x_i) / sum_j exp(x_j).

    x: [..., N], where -inf means "not this one" -> [..., N], rows sum to 1. Subtracting the largest
    score changes nothing, since softmax(x + c) = softmax(x), and keeps exp from overflowing.
    """
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(x):
    """Return the logarithm of softmax(x): x_i - log(sum_j exp(x_j)), finite where a probability
    underflows.

    x: [..., N] -> [..., N], natural logarithms.
    """
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def gelu_new(x):
    """GPT-2's activation, the tanh form: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

    x: [...] -> [...]. Differs from `gelu` by up to 5e-4. Source: Hendrycks, Gimpel, "Gaussian Error
    Linear Units" (2016), section 2.
    """
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))))


def gelu(x):
    """x times the standard normal's distribution function: 0.5 x (1 + erf(x / sqrt(2))).

    x: [...] -> [...]. Source: Hendrycks, Gimpel (2016). NumPy has no erf; Python's is called
    element by element.
    """
    return 0.5 * x * (1.0 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2.0)))


def relu(x):
    """max(x, 0). x: [...] -> [...]."""
    return np.maximum(x, 0.0)


def silu(x):
    """x times the logistic function: x / (1 + exp(-x)). x: [...] -> [...].

    Also called swish. Source: Elfwing, Uchibe, Doya, "Sigmoid-Weighted Linear Units" (2017).
    """
    with np.errstate(over="ignore"):  # x / infinity is the 0 that is due
        return x / (1.0 + np.exp(-x))


def cross_entropy(logits, targets):
    """Return the loss of every target: -log softmax(logits)[target], in nats.

    logits: [..., V]; targets: [...] ids -> [...]. Its mean is the cross-entropy, exp of the mean
    the perplexity.
    """
    return -np.take_along_axis(log_softmax(logits), np.asarray(targets)[..., None], axis=-1)[..., 0]
