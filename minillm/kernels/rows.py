"""Operations on the rows of the last axis: the norms, softmax and its relatives. Twins of those in
ops.py."""

from __future__ import annotations

import numpy as np

from .checks import require, row_numbers, working
from .compile import entry, helper, jit
from .mathematics import exp
from .memory import array_at
from .threads import in_parallel
from .vectors import larger


@helper
def maximum(x):
    """The largest number of a row; -inf where all are."""
    m = x[0]
    for i in range(x.shape[0]):
        m = larger(m, x[i])
    return m


@helper
def normalize_row(x, weight, bias, eps, y):
    """One row of layer_norm: mean, variance of the centred row (no cancellation), result."""
    n = x.dtype.type(x.shape[0])
    total = x.dtype.type(0)
    for i in range(x.shape[0]):
        total += x[i]
    mean = total / n
    total = x.dtype.type(0)
    for i in range(x.shape[0]):
        total += (x[i] - mean) * (x[i] - mean)
    inverse = x.dtype.type(1) / np.sqrt(total / n + x.dtype.type(eps))
    for i in range(x.shape[0]):
        y[i] = (x[i] - mean) * inverse * weight[i] + bias[i]


@helper
def rms_normalize_row(x, weight, eps, y):
    """One row of rms_norm: the mean of the squares, result."""
    total = x.dtype.type(0)
    for i in range(x.shape[0]):
        total += x[i] * x[i]
    inverse = x.dtype.type(1) / np.sqrt(total / x.dtype.type(x.shape[0]) + x.dtype.type(eps))
    for i in range(x.shape[0]):
        y[i] = x[i] * inverse * weight[i]


@helper
def exponentials(x, m, y):
    """y = exp(x - m); returns their sum."""
    total = x.dtype.type(0)
    for i in range(x.shape[0]):
        y[i] = exp(x[i] - m)
        total += y[i]
    return total


@helper
def exponentiate(x, m):
    """x = exp(x - m) in place; returns their sum. (exponentials(x, m, x) would be ten times slower:
    LLVM must then take care that x and y might overlap.)"""
    total = x.dtype.type(0)
    for i in range(x.shape[0]):
        x[i] = exp(x[i] - m)
        total += x[i]
    return total


@helper
def sum_of_exponentials(x, m):
    """The sum of exp(x - m)."""
    total = x.dtype.type(0)
    for i in range(x.shape[0]):
        total += exp(x[i] - m)
    return total


@jit
def _layer_norm(x, weight, bias, eps, y):
    for row in range(x.shape[0]):
        normalize_row(x[row], weight, bias, eps, y[row])


@jit
def _rms_norm(x, weight, eps, y):
    for row in range(x.shape[0]):
        rms_normalize_row(x[row], weight, eps, y[row])


@jit(inline="always")
def _softmax(x, y):
    for row in range(x.shape[0]):
        inverse = x.dtype.type(1) / exponentials(x[row], maximum(x[row]), y[row])
        for i in range(x.shape[1]):
            y[row, i] *= inverse


@jit(inline="always")
def _log_softmax(x, y):
    for row in range(x.shape[0]):
        m = maximum(x[row])
        shift = np.log(sum_of_exponentials(x[row], m))
        for i in range(x.shape[1]):
            y[row, i] = (x[row, i] - m) - shift


@jit
def _cross_entropy(logits, targets, losses):
    for row in range(logits.shape[0]):
        m = maximum(logits[row])
        losses[row] = np.log(sum_of_exponentials(logits[row], m)) - (logits[row, targets[row]] - m)


def on_every_row(kernel, x, *parameters, cost):
    """Call kernel(rows, *parameters, out) on shares of x's rows along the last axis; the result has
    the shape of x."""
    if np.ndim(x) == 0:
        raise ValueError("x is a single number; it must have rows along its last axis")
    x = working(x)
    y = np.empty_like(x)
    rows, out = x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1])
    in_parallel(
        lambda part: kernel(rows[part], *parameters, out[part]), len(rows), cost=cost * x.size
    )
    return y


def layer_norm(x, weight, bias, eps=1e-5):
    """Give every row mean 0 and variance 1, then scale and shift: (x - mean) / sqrt(variance + eps)
    * w + b.

    x: [..., C]; weight, bias: [C] -> [..., C]. Adds in another order than the textbook: where a
    row's sum comes near the largest float32, 3e38, one of the two may overflow, to NaN, alone.
    """
    x = working(x)
    require(weight=(weight, x.shape[-1:]), bias=(bias, x.shape[-1:]))
    weight, bias = (np.array(p, x.dtype) for p in (weight, bias))  # never read-only: one kernel
    return on_every_row(_layer_norm, x, weight, bias, float(eps), cost=5)


def rms_norm(x, weight, eps=1e-6):
    """Give every row a root mean square of 1, then scale: x / sqrt(mean(x^2) + eps) * w.

    x: [..., C]; weight: [C] -> [..., C].
    """
    x = working(x)
    require(weight=(weight, x.shape[-1:]))
    weight = np.array(weight, x.dtype)  # never read-only: one kernel
    return on_every_row(_rms_norm, x, weight, float(eps), cost=3)


def cross_entropy(logits, targets):
    """Return the loss of every target: -log softmax(logits)[target], in nats. No array of logits'
    size is formed.

    logits: [..., V]; targets: [...] ids in [-V, V), checked -> [...].
    """
    logits = working(logits)
    V = logits.shape[-1]
    targets = row_numbers(np.broadcast_to(targets, logits.shape[:-1]), V, "targets", "logits")
    rows, ids, losses = (
        logits.reshape(-1, V),
        np.ravel(targets),
        np.empty(targets.size, logits.dtype),
    )
    in_parallel(
        lambda part: _cross_entropy(rows[part], ids[part], losses[part]),
        len(rows),
        cost=20 * logits.size,
    )
    return losses.reshape(targets.shape)


def by_address(kernel, dtype):
    """kernel(x, y) for rows [n, width] of a dtype, to be called by its address."""

    @entry
    def on_rows(x_at, y_at, n, width):
        kernel(array_at(x_at, n, width, dtype), array_at(y_at, n, width, dtype))

    return on_rows


KERNELS = {  # name -> dtype -> kernel, see distributions.py
    name: {"float32": by_address(kernel, np.float32), "float64": by_address(kernel, np.float64)}
    for name, kernel in (("softmax", _softmax), ("log_softmax", _log_softmax))
}
