"""Activations, gates and rotations: one pass over the numbers, no array in between. Twins of those
in ops.py, and of what layers/ forms number by number."""

from __future__ import annotations

import math

import numpy as np

from .checks import require, working
from .compile import jit
from .mathematics import GELU_CUBIC, GELU_SLOPE, gelu_new_of, silu_of
from .threads import in_parallel


def in_shares(kernel, *arrays, cost):
    """Call kernel on shares of these arrays, which are contiguous and of one size, flattened; cost:
    in multiplications, for each number."""
    flat, n = [a.reshape(-1) for a in arrays], arrays[0].size
    in_parallel(lambda part: kernel(*(a[part] for a in flat)), n, unit=16, cost=cost * n)


def on_every_number(kernel, x, cost):
    """Return y, of x's shape, which kernel(x, y) fills."""
    shape, x = np.shape(x), working(x)
    y = np.empty_like(x)
    in_shares(kernel, x, y, cost=cost)
    return y.reshape(shape)


@jit
def _gelu_new(x, y):
    one, nan = x.dtype.type(1), x.dtype.type(np.nan)
    slope, cubic = x.dtype.type(GELU_SLOPE), x.dtype.type(GELU_CUBIC)
    for i in range(x.shape[0]):
        y[i] = gelu_new_of(x[i], one, slope, cubic, nan)


@jit
def _gelu(x, y):
    half, one, root = x.dtype.type(0.5), x.dtype.type(1.0), x.dtype.type(math.sqrt(0.5))
    for i in range(x.shape[0]):
        y[i] = half * x[i] * (one + math.erf(x[i] * root))


@jit
def _silu(x, y):
    one, nan = x.dtype.type(1), x.dtype.type(np.nan)
    for i in range(x.shape[0]):
        y[i] = silu_of(x[i], one, nan)


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


@jit
def _gated(gate, up, y):
    one, nan = gate.dtype.type(1), gate.dtype.type(np.nan)
    for i in range(gate.shape[0]):
        y[i] = up[i] * silu_of(gate[i], one, nan)


def gated(gate, up):
    """silu(gate) * up, as in layers/feed_forward.py. Both [...] -> [...]."""
    gate = working(gate)
    require(up=(up, gate.shape))
    y = np.empty_like(gate)
    in_shares(_gated, gate, np.ascontiguousarray(up, gate.dtype), y, cost=20)
    return y


@jit
def _rotate(x, cos, sin, y):
    half = cos.shape[1]
    for row in range(x.shape[0]):
        c, s = cos[row], sin[row]
        for h in range(x.shape[1]):
            a, b, low, high = x[row, h, :half], x[row, h, half:], y[row, h, :half], y[row, h, half:]
            for i in range(half):
                low[i] = a[i] * c[i] - b[i] * s[i]
                high[i] = b[i] * c[i] + a[i] * s[i]


def rotate(x, cos, sin):
    """Turn pairs of numbers, as in layers/rope.py. x: [B,H,T,D]; cos, sin: [B,T,D/2] -> [B,H,T,D],
    in memory as merge_heads wants it."""
    B, H, T, D = x.shape
    require(cos=(cos, (B, T, D // 2)), sin=(sin, (B, T, D // 2)))
    rows = working(x.swapaxes(1, 2)).reshape(B * T, H, D)
    cos, sin = (np.ascontiguousarray(a, rows.dtype).reshape(B * T, D // 2) for a in (cos, sin))
    y = np.empty_like(rows)
    in_parallel(
        lambda part: _rotate(rows[part], cos[part], sin[part], y[part]), B * T, cost=4 * x.size
    )
    return y.reshape(B, T, H, D).swapaxes(1, 2)
