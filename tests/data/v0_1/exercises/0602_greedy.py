"""Chapter 06, about 10 minutes: mend what is published so: one thing is wrong. Check: minillm exercises check greedy"""

import numpy as np

from minillm.exercises.textbook import append
from minillm.exercises.textbook import argmax


def greedy(forward, ids, n_new):
    """Continue ids by n_new tokens, each the likeliest, with a cache: every position goes through the model once.

    forward(new_ids, past): logits [len(new_ids),V] of ids that stand behind `past` others, which it remembers; ids: list;
    n_new: at least 1 -> list of len(ids) + n_new ids.

    Example:
    >>> greedy(lambda new, past: np.eye(5)[[(i + 1) % 5 for i in new]], [3], 4)
    [3, 4, 0, 1, 2]
    """
    ids, past = list(ids), 0
    for _ in range(n_new):
        logits = forward(ids[past:], past)
        past = len(ids)
        ids.append(int(logits[-1].argmax()))
    return ids

