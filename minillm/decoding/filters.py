"""From logits to a choice: each filter takes logits [V] and returns logits [V], with -inf for what
may not be chosen.

They are NumPy whatever the twin: one row of logits, of which most work is sorting. Applied in
the order of transformers' logits processors: repetition penalty, no repeated n-grams, temperature,
top-k, top-p, min-p. `choose` takes its uniform draw as an argument, so that every step can be
checked.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..ops import softmax

# Temperatures and penalties beyond 1/EXTREME and EXTREME change no choice any more; up to there
# logits stay within float32.
EXTREME = 1e30


def repetition_penalty(logits, ids, penalty: float):
    """Make every token that has occurred less likely: logit / penalty if positive, logit * penalty
    if negative.

    Source: Keskar et al., "CTRL" (2019), section 4.1; the prompt counts, as in transformers.
    """
    penalty = min(max(penalty, 1 / EXTREME), EXTREME)
    seen = np.unique(np.asarray(ids))
    logits = logits.astype(np.result_type(logits, np.float32))  # a copy; float16 ends at 65504
    logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return logits


def no_repeat_ngram(logits, ids, n: int):
    """Forbid every token that would write n tokens in a row which the text, prompt included, holds
    already. Source: Paulus, Xiong, Socher (2017), section 2.5, there for n = 3."""
    ids = [int(i) for i in ids]
    begun = ids[len(ids) - n + 1 :]  # the last n - 1; shorter texts hold no n-gram
    out = [ids[i + n - 1] for i in range(len(ids) - n + 1) if ids[i : i + n - 1] == begun]
    logits = logits.copy()
    logits[out] = -np.inf
    return logits


def temperature(logits, t: float):
    """Sharpen (t < 1) or flatten (t > 1): (logits - their largest) / t.

    The largest changes no probability, and taken away first it keeps small t from overflowing: the
    limit is greedy.
    """
    if t == 1:
        return logits
    return (logits - logits.max()) / min(max(t, 1 / EXTREME), EXTREME)


def top_k(logits, k: int):
    """Keep the k most likely tokens, and those that tie with the k-th. Source: Fan, Lewis, Dauphin
    (2018)."""
    if k >= len(logits):
        return logits
    return np.where(logits < np.partition(logits, -k)[-k], -np.inf, logits)


def top_p(logits, p: float):
    """Keep the fewest most likely tokens whose probabilities reach p; at least one, whatever p is.

    Counted from below, as transformers does: out goes whatever, summed up from the least likely,
    stays within 1 - p. Source: Holtzman et al., "The Curious Case of Neural Text Degeneration"
    (2019).
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


def min_p(logits, p: float):
    """Keep the tokens at least p times as likely as the most likely one. Source: Nguyen et al.,
    "Min-p" (2024)."""
    probs = softmax(logits)
    return np.where(probs < p * probs.max(), -np.inf, logits)


def choose(probs, u: float | None) -> int:
    """Return the token at which the running sum of `probs` [V] passes u, a draw from [0, 1); the
    likeliest for None.

    Over uniform u, token i comes up with probability probs[i]. Summed in float64; scaled by the
    sum, so that rounding cannot leave u beyond the end. InputError where the sum is not finite or
    not above 0.
    """
    if u is None:
        token = int(probs.argmax())  # of a NaN, where there is one
        total = probs[token]
    else:
        running = np.cumsum(probs, dtype=np.float64)
        total = running[-1]
        token = int(np.searchsorted(running, u * total, side="right"))
    if not 0 < total < np.inf:
        raise InputError("no token can be chosen: the probabilities are not finite, or all 0")
    return token
