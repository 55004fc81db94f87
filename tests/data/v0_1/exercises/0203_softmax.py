"""Chapter 02, about 10 minutes: write it. Check: minillm exercises check softmax"""

import math
import numpy as np


def softmax(x):
    """Turn scores into probabilities along the last axis: exp(x_i) / sum_j exp(x_j).

    x: [..., N], where -inf means "not this one" -> [..., N], rows sum to 1. Subtracting the largest score changes
    nothing, since softmax(x + c) = softmax(x), and keeps exp from overflowing.

    Example:
    >>> softmax(np.array([0.0, math.log(3.0)]))
    array([0.25, 0.75])
    """
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)

