"""The gradient of every operation of ops.py, in its order: what a small change of each number does
to the loss.

Each `f_backward` takes dy, the gradient of the loss L with respect to what f returned (dy = dL/dy,
of y's shape), and what f was given, and returns the gradients of these: the chain rule, dL/dx =
dL/dy dy/dx, one link at a time. Here they are for reading, and the oracle for the faster twins of
some of them in kernels, which are used where a model computes with kernels. The backward of a
layer stands beside its forward in layers/, that of a block and of a model in the family's folder.
Sources: the forward's own, and Rumelhart, Hinton, Williams, "Learning representations by
back-propagating errors" (1986).
"""

from __future__ import annotations

import math

import numpy as np


def linear_backward(dy, x, weight):
    """Forward was y = x W + b: dx = dy W^T, dW = x^T dy, db = the sum of dy's rows.

    dy: [..., out]; x: [..., in]; weight: [in, out] -> dx [..., in], {"weight": [in, out], "bias":
    [out]}. The rows add up, since row r of y is x_r W + b. A weight that is no plain matrix (LoRA)
    answers for itself: weight.backward(dy, x).
    """
    rows, d_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    if hasattr(weight, "backward"):
        dx, gradients = weight.backward(d_rows, rows)
        return dx.reshape(x.shape), gradients
    return (d_rows @ weight.T).reshape(x.shape), {
        "weight": rows.T @ d_rows,
        "bias": d_rows.sum(axis=0),
    }


def unembed_backward(dy, x, table):
    """Forward was y = x table^T: dx = dy table, d_table = dy^T x.

    dy: [..., V]; x: [..., C]; table: [V,C] -> dx [..., C], [V,C].
    """
    rows, d_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return (d_rows @ table).reshape(x.shape), d_rows.T @ rows


def layer_norm_backward(dy, x, weight, eps=1e-5):
    """Forward was y = n w + b with n = (x - mean) / s and s = sqrt(variance + eps).

    dw = the sum of dy n over the rows, db = that of dy. x moves n directly, through the mean and
    through s; with g = dy w the three come to dx = (g - mean(g) - n mean(g n)) / s. Means are along
    the last axis.

    dy, x: [..., C]; weight: [C] -> dx [..., C], {"weight": [C], "bias": [C]}.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    s = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    n, g = centred / s, dy * weight
    dx = (g - g.mean(axis=-1, keepdims=True) - n * (g * n).mean(axis=-1, keepdims=True)) / s
    over_rows = tuple(range(dy.ndim - 1))
    return dx, {"weight": (dy * n).sum(axis=over_rows), "bias": dy.sum(axis=over_rows)}


def rms_norm_backward(dy, x, weight, eps=1e-6):
    """Forward was y = n w with n = x / s and s = sqrt(mean(x^2) + eps).

    dw = the sum of dy n over the rows. x moves n directly and through s; with g = dy w the two come
    to dx = (g - n mean(g n)) / s, the mean along the last axis.

    dy, x: [..., C]; weight: [C] -> dx [..., C], {"weight": [C]}.
    """
    s = np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    n, g = x / s, dy * weight
    dx = (g - n * (g * n).mean(axis=-1, keepdims=True)) / s
    return dx, {"weight": (dy * n).sum(axis=tuple(range(dy.ndim - 1)))}


def softmax_backward(dy, y):
    """Forward was y = softmax(x), and y is given: dx = y (dy - sum_j dy_j y_j).

    For dy_i/dx_j = y_i ((i = j) - y_j). dy, y: [..., N] -> [..., N]. Where y is 0, as under a mask,
    so is dx.
    """
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def gelu_new_backward(dy, x):
    """Forward was y = 0.5 x (1 + tanh u) with u = c (x + a x^3).

    dx = dy (0.5 (1 + tanh u) + 0.5 x (1 - tanh^2 u) c (1 + 3 a x^2)), c = sqrt(2/pi), a = 0.044715.
    dy, x: [...] -> [...].
    """
    c, a = math.sqrt(2.0 / math.pi), 0.044715
    t = np.tanh(c * (x + a * (x * x * x)))
    return dy * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (c * (1.0 + 3.0 * a * (x * x))))


def gelu_backward(dy, x):
    """Forward was y = x P(x), P the normal distribution function with density p.

    dx = dy (P(x) + x p(x)). dy, x: [...] -> [...].
    """
    below = 0.5 * (1.0 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2.0)))
    return dy * (below + x * np.exp(-0.5 * (x * x)) / math.sqrt(2.0 * math.pi))


def relu_backward(dy, x):
    """Forward was y = max(x, 0): dx = dy where x > 0, else 0. dy, x: [...] -> [...]."""
    return dy * (x > 0)


def silu_backward(dy, x):
    """Forward was y = x s with s = 1 / (1 + exp(-x)), whose slope is s (1 - s).

    dx = dy s (1 + x (1 - s)). dy, x: [...] -> [...].
    """
    with np.errstate(over="ignore"):  # 1 / infinity is the 0 that is due
        s = 1.0 / (1.0 + np.exp(-x))
    return dy * s * (1.0 + x * (1.0 - s))


def cross_entropy_backward(dy, logits, targets):
    """Forward was loss = -log softmax(logits)[target] for each target.

    d_logits = dy (softmax(logits) - onehot(target)). dy: [...], the weight of each loss in the
    whole, 0 for padding; logits: [..., V]; targets: [...] -> [..., V].
    """
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    d_logits = e * (dy[..., None] / e.sum(axis=-1, keepdims=True))
    rows = d_logits.reshape(-1, logits.shape[-1])
    rows[np.arange(len(rows)), np.ravel(targets)] -= np.ravel(dy)
    return d_logits


def embedding_backward(dy, ids, d_table):
    """Forward was y = table[ids]: a row of the table gets the sum of dy wherever it was looked up.

    It is added to d_table in place. dy: [..., C]; ids: [...]; d_table: [rows, C], which may hold
    another gradient already (a tied head's) -> d_table.
    """
    np.add.at(d_table, np.ravel(ids), dy.reshape(-1, dy.shape[-1]))
    return d_table
