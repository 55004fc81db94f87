"""Ladders: the same operation written again and again, one idea more on each rung. For reading,
timing and exercises.

`MATMUL` and `SOFTMAX` are {name: function} in climbing order; every rung gives the same result, and
tests hold them to it.
"""

from .matmul import MATMUL
from .softmax import SOFTMAX

__all__ = ["MATMUL", "SOFTMAX"]
