"""Chapter 07, about 20 minutes: write it. Check: minillm exercises check top_p"""

import numpy as np

from minillm.ops import softmax


def top_p(logits, p: float):
    """Keep the fewest most likely tokens whose probabilities reach p; at least one, whatever p is.

    Counted from below, as transformers does: out goes whatever, summed up from the least likely, stays within 1 - p.
    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration" (2019).

    Example:
    >>> top_p(np.log(np.array([0.5, 0.3, 0.15, 0.05])), 0.7)
    array([-0.6931, -1.204 ,    -inf,    -inf])
    """
    probs = softmax(logits)
    # Even all together, the tokens below (1 - p) / V stay within 1 - p: out, and the sort is short.
    candidates = np.flatnonzero(probs >= (1.0 - p) / len(probs))
    candidates = candidates[np.argsort(probs[candidates], kind="stable")]
    tail = probs.sum() - probs[candidates].sum()
    out = candidates[tail + np.cumsum(probs[candidates]) <= 1.0 - p]
    keep = np.setdiff1d(candidates, out[: len(candidates) - 1], assume_unique=True)
    filtered = np.full_like(logits, -np.inf)
    filtered[keep] = logits[keep]
    return filtered

