"""Chapter 04, about 15 minutes: write it. Check: minillm exercises check block"""

import numpy as np

from minillm.ops import layer_norm


def block(x, ln_1, attend, ln_2, feed_forward):
    """One Transformer block, each part reading a normed copy of the stream and adding to it: x + f(norm(x)), twice.

    x: [B,T,C]; attend, feed_forward: functions [B,T,C] -> [B,T,C], in this order; ln_1, ln_2: {"weight": [C], "bias": [C]}
    of the layer norm before each -> [B,T,C]. Source: Radford et al. (2019), section 2.3.

    Example:
    >>> block(np.ones((1, 1, 2)), {'weight': np.ones(2), 'bias': np.ones(2)}, lambda x: x + 1, {'weight': np.ones(2),
    ...     'bias': np.zeros(2)}, lambda x: x + 3)
    array([[[6., 6.]]])
    """
    x = x + attend(layer_norm(x, **ln_1))
    return x + feed_forward(layer_norm(x, **ln_2))

