"""Chapter 03, about 25 minutes: write it. Check: minillm exercises check attention"""

import numpy as np

from minillm.attention import causal_mask
from minillm.ops import softmax


def attention(q, k, v, positions, scale):
    """Average the values, each weighted by how well its key fits the query: softmax(q k^T * scale + mask) v.

    q: [B,H,T,D]; k, v: [B,H,S,D]; positions: [B,T], of the queries; scale: 1/sqrt(D) -> [B,H,T,D]. Key s is visible from
    position p when s <= p; a score that is not visible is -inf. Source: Vaswani et al. (2017), equation 1.

    Example:
    >>> attention(np.array([[[[1.0], [2.0]]]]), np.array([[[[4.0], [5.0]]]]), np.array([[[[7.0], [8.0]]]]),
    ...     np.array([[0, 1]]), 1.0)
    array([[[[7.    ],
             [7.8808]]]])
    """
    scores = q @ k.swapaxes(-1, -2) * scale
    visible = causal_mask(positions, k.shape[2])[:, None]
    return softmax(np.where(visible, scores, -np.inf)) @ v

