"""Chapter 09, about 15 minutes: write it. Check: minillm exercises check gelu_loop"""

import math
import numpy as np


def gelu_loop(x, y):
    """Write the exact GELU of every x into y: 0.5 x (1 + erf(x / sqrt(2))), by a loop that Numba can compile.

    x, y: [N]; y is changed in place -> None. Plain Python with math.erf: the check compiles it with numba.njit, and it must
    then be at least twice as fast as minillm.ops.gelu, since NumPy has no erf.

    Example:
    >>> gelu_loop(np.array([1.0]), np.array([0.0]))
    None
    """
    for i in range(len(x)):
        y[i] = 0.5 * x[i] * (1.0 + math.erf(x[i] / math.sqrt(2.0)))

