"""Activations: one pass over the numbers, no array in between. Twins of those in ops.py."""

from __future__ import annotations

import math

import numpy as np

from .checks import working
from .compile import jit
from .mathematics import exp
from .threads import in_parallel


def on_every_number(kernel, x, cost):
    """Call kernel(x, y) on shares of the flattened x and a new y; cost: in multiplications, for
    each number."""
    shape, x = np.shape(x), working(x)
    y = np.empty_like(x)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    in_parallel(
        lambda part: kernel(flat_x[part], flat_y[part]), x.size, unit=16, cost=cost * x.size
    )
    return y.reshape(shape)


@jit
def _gelu_new(x, y):
    # The tanh form by one exp: 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2u))
    one, slope, cubic = (
        x.dtype.type(1.0),
        x.dtype.type(-2.0 * math.sqrt(2.0 / math.pi)),
        x.dtype.type(0.044715),
    )
    for i in range(x.shape[0]):
        y[i] = x[i] / (one + exp(slope * (x[i] + cubic * (x[i] * x[i] * x[i]))))
        y[i] = y[i] if x[i] != -np.inf else x.dtype.type(np.nan)  # as 0 times infinity


@jit
def _gelu(x, y):
    half, one, root = x.dtype.type(0.5), x.dtype.type(1.0), x.dtype.type(math.sqrt(0.5))
    for i in range(x.shape[0]):
        y[i] = half * x[i] * (one + math.erf(x[i] * root))


@jit
def _silu(x, y):
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        y[i] = x[i] / (one + exp(-x[i]))
        y[i] = y[i] if x[i] != -np.inf else x.dtype.type(np.nan)  # infinity over infinity


def gelu_new(x):
    """GPT-2's activation, the tanh form: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). x: [...]
    -> [...]."""
    return on_every_number(_gelu_new, x, cost=20)


def gelu(x):
    """x times the standard normal's distribution function: 0.5 x (1 + erf(x / sqrt(2))). x: [...]
    -> [...]."""
    return on_every_number(_gelu, x, cost=60)


def relu(x):
    """max(x, 0). x: [...] -> [...]. NumPy's own loop is as fast as memory."""
    return np.maximum(x, 0.0)


def silu(x):
    """x times the logistic function: x / (1 + exp(-x)). x: [...] -> [...]."""
    return on_every_number(_silu, x, cost=20)
