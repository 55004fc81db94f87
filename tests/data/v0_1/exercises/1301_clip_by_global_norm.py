"""Chapter 13, about 5 minutes: mend what is published so: one thing is wrong. Check: minillm exercises check clip_by_global_norm"""

import numpy as np

from minillm.training.optimizers import global_norm


def clip_by_global_norm(gradients: dict, limit: float) -> float:
    """Make all gradients shorter, in place, if together they are longer than `limit`; return how long they were.

    Example:
    >>> clip_by_global_norm({'w': np.array([3.0, 0.0]), 'b': np.array([4.0])}, 1.0)
    5.0
    """
    norm = global_norm(gradients)
    if norm > limit:
        for gradient in gradients.values():
            gradient *= limit / norm
    return norm

