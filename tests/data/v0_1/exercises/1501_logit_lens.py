"""Chapter 15, about 5 minutes: mend what is published so: one thing is wrong. Check: minillm exercises check logit_lens"""

import numpy as np

from minillm.ops import layer_norm


def logit_lens(x, ln_f, wte):
    """Read the residual stream at any depth as if it were the last: logits = layer_norm(x) wte^T.

    x: [B,T,C]; ln_f: {"weight": [C], "bias": [C]}; wte: [V,C] -> [B,T,V].

    Example:
    >>> logit_lens(np.array([[[1.0, 3.0]]]), {'weight': np.ones(2), 'bias': np.zeros(2)}, np.eye(2))
    array([[[-1.,  1.]]])
    """
    return layer_norm(x, **ln_f) @ wte.T

