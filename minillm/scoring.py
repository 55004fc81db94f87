"""What the model makes of a text: the log-probability of each token, and what may come next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import InputError
from .model import GPT2
from .ops import cross_entropy, log_softmax


@dataclass(frozen=True)
class Score:
    """T tokens give T - 1 predictions: logprobs [T-1] in nats, log P(w_t | w_<t); ranks [T-1], 1 is the likeliest."""

    logprobs: np.ndarray
    ranks: np.ndarray

    @property
    def logprob(self) -> float:
        """log P of the text given its first token, in nats: the sum."""
        return float(self.logprobs.sum(dtype=np.float64))

    @property
    def cross_entropy(self) -> float:
        """Mean -log P a predicted token, in nats."""
        return -self.logprob / len(self.logprobs) if len(self.logprobs) else math.nan

    @property
    def perplexity(self) -> float:
        """exp(cross_entropy): the number of equally likely tokens that would be as hard to guess."""
        return math.exp(self.cross_entropy)


def score(model: GPT2, ids: Sequence[int]) -> Score:
    """Return log P of every token but the first, given all before it; at most n_positions tokens."""
    ids = np.asarray(ids)
    if len(ids) > model.config.n_positions:
        raise InputError(f"{len(ids):,} tokens do not fit the model's {model.config.n_positions} positions: shorten the text")
    logits, targets = model(ids)[:-1], ids[1:]
    of_targets = np.take_along_axis(logits, targets[:, None], axis=-1)
    return Score(-cross_entropy(logits, targets), 1 + (logits > of_targets).sum(axis=-1))


def next_logprobs(model: GPT2, ids: Sequence[int]) -> np.ndarray:
    """Return log P(token | ids) for every token of the vocabulary [V], in nats."""
    return log_softmax(model(np.asarray(ids), last=True)[-1])


def continuation_logprob(model: GPT2, ids: Sequence[int], continuation: Sequence[int]) -> float:
    """Return log P(continuation | ids) in nats: a word of several tokens multiplies their probabilities."""
    return float(score(model, [*ids, *continuation]).logprobs[len(ids) - 1 :].sum(dtype=np.float64))
