"""Segments ("serialised" inference): a long text in pieces, each run alone, against the same pieces
with the cache kept.

The naive procedure splits a text, runs every piece by itself and joins what comes out. It is wrong
because attention is how a token hears of those before it: after each cut the model starts anew,
with no context and at position 0, and guesses as if a text began there. What it saves is real:
attention within pieces of n costs n keys at most, so the quadratic part of T tokens falls from T^2
/ 2 pairs to T n / 2.

With the KV cache carried over the same pieces are chunked prefill (decoding.cycle.read): exact,
equal to one pass over the whole, for the full number of pairs. So a text need not be run in one go
to be run right; only the keys and values must stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, count, whole_number
from ..protocol import Model, one_text
from .finite import checked_logits


@dataclass(frozen=True)
class Segments:
    """Every token but the first, predicted in pieces: nats, and how far after a cut the last token
    read was, both [T-1].

    multiply_adds: of the matrices and of attention (a masked pair counts as not done).
    """

    nats: np.ndarray
    positions: np.ndarray
    multiply_adds: int

    def by_position(self) -> np.ndarray:
        """Mean nats a token at each position after a cut."""
        return np.bincount(self.positions, self.nats) / np.bincount(self.positions)


def run_segments(model: Model, ids: Sequence[int], length: int, carry: bool) -> Segments:
    """Predict ids [T] in pieces of `length`, each alone, or with the cache carried over (`carry`,
    exact).

    Raises InputError for a length below 1, fewer than two ids, and more than the model's positions:
    carried over they must all fit, and what is compared must be the same text.
    """
    ids, config = one_text(model, ids), model.config
    length = min(whole_number("length of the pieces", length), len(ids))
    if not 2 <= len(ids) <= config.sizes.P:
        raise InputError(
            f"{count(len(ids), 'token')}: needed from 2 to the model's {config.sizes.P} positions"
        )
    cache, nats, pairs = model.new_cache() if carry else None, [], 0
    for start in range(0, len(ids) - 1, length):
        piece, targets = ids[start : start + length], ids[start + 1 : start + length + 1]
        piece = piece[: len(targets)]
        (logits,) = checked_logits(model, piece[None], cache, first=start)
        nats.append(model.ops.cross_entropy(logits, targets))
        pairs += sum(range(1, len(piece) + 1)) + (start * len(piece) if carry else 0)
    n = len(ids) - 1
    s = config.sizes
    matrices = sum(p.size for p in model.matrices().values())
    multiply_adds = n * (matrices + s.V * s.C) + 2 * s.L * s.H * s.D * pairs
    return Segments(np.concatenate(nats), np.arange(n) % length, multiply_adds)
