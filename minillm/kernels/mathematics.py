"""exp for kernels: a polynomial in float32, which LLVM turns into vector instructions, and libm's
in float64.

Numba's own exp calls libm for one number at a time, and was 6 to 7 times slower in softmax and
gelu.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from .compile import EXACT, helper, jit

F = np.float32
LOG2_E = F(1.4426950408889634)
LN2_HIGH, LN2_LOW = (
    F(0.693359375),
    F(-2.12194440e-4),
)  # their sum is ln 2; n * LN2_HIGH is exact for |n| < 2**9
LOWEST, HIGHEST = (
    F(-87.3),
    F(88.3),
)  # beyond, the result is 0 (below the normal numbers) or stays at exp(88.3) = 2.2e38
HALF, ONE, ZERO = F(0.5), F(1.0), F(0.0)
# exp(r) = 1 + r + r^2 P(r) for |r| <= ln(2)/2; P is the Taylor series, whose next term r^7/5040 is
# below 1.2e-7
P0, P1, P2, P3, P4 = F(1 / 2), F(1 / 6), F(1 / 24), F(1 / 120), F(1 / 720)


@jit(fastmath=EXACT, no_cpython_wrapper=True)  # no helper: that would take on its caller's fastmath
def exp32(x):
    """e^x in float32 with a relative error of 2e-7: x = n ln 2 + r, so e^x = 2^n e^r, and 2^n is a
    matter of bits."""
    inside = HIGHEST if x > HIGHEST else (LOWEST if x < LOWEST else x)
    n = np.floor(inside * LOG2_E + HALF)
    r = (inside - n * LN2_HIGH) - n * LN2_LOW
    e = ONE + (r + r * r * (P0 + r * (P1 + r * (P2 + r * (P3 + r * P4)))))
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return ZERO if x < LOWEST else e * power


def exp(x):
    """e^x in the type of x."""
    return exp32(x) if isinstance(x, np.float32) else math.inf if x > 709.7 else math.exp(x)


@overload(exp)
def _(x):
    if x == types.float32:
        return lambda x: exp32(x)
    return lambda x: math.exp(x)


GELU_SLOPE, GELU_CUBIC = -2.0 * math.sqrt(2.0 / math.pi), 0.044715


@helper
def gelu_new_of(x, one, slope, cubic, nan):
    """GPT-2's activation by one exp: 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2u)); nan for -inf, as 0
    times infinity. slope, cubic: GELU_SLOPE, GELU_CUBIC, and all of the type of x."""
    y = x / (one + exp(slope * (x + cubic * (x * x * x))))
    return y if x != -np.inf else nan


@helper
def silu_of(x, one, nan):
    """x times the logistic function; nan for -inf, where it would be infinity over infinity. one
    and nan: of the type of x."""
    y = x / (one + exp(-x))
    return y if x != -np.inf else nan
