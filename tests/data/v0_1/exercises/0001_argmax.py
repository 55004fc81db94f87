"""Chapter 00, about 5 minutes: write it. Check: minillm exercises check argmax"""

import numpy as np


def argmax(scores):
    """Return the index of the largest score, the first of equals: greedy decoding's whole choice.

    scores: [V], any numbers -> int. Write it as a loop, without np.argmax.

    Example:
    >>> argmax(np.array([0.5, -1.0, 2.5, 2.0]))
    2
    """
    best = 0
    for i in range(1, len(scores)):
        if scores[i] > scores[best]:
            best = i
    return best

