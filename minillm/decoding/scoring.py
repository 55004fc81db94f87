"""What the model makes of a text: the log-probability of each token, what may come next, and bits
per byte."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, require_kind, whole_number
from ..machine.distributed import ALONE, World
from ..machine.progress import progress_bar
from ..protocol import Model, one_text, require_model
from ..tokenizer import Tokenizer, cut_at_ends, require_tokenizer, well_formed
from .cycle import AT_ONCE
from .finite import checked_logits


@dataclass(frozen=True)
class Score:
    """T tokens give T - 1 predictions: logprobs [T-1] in nats, log P(w_t | w_<t); ranks [T-1], 1 is
    the likeliest."""

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
        """exp(cross_entropy): how many equally likely tokens would be as hard to guess."""
        return _exp(self.cross_entropy)


def score(model: Model, ids: Sequence[int]) -> Score:
    """Return log P of every token but the first, given all before it: n_positions at most."""
    ids = one_text(model, ids)
    if len(ids) > model.config.sizes.P:
        raise InputError(
            f"{len(ids):,} tokens do not fit the model's {model.config.sizes.P} positions:"
            " shorten the text"
        )
    logprobs, ranks = [], []
    for logits, targets in _predicted(model, ids, ids[1:]):
        of_targets = np.take_along_axis(logits, targets[:, None], axis=-1)
        logprobs.append(-model.ops.cross_entropy(logits, targets))
        ranks.append(1 + (logits > of_targets).sum(axis=-1))
    return Score(np.concatenate(logprobs), np.concatenate(ranks))


def _predicted(
    model: Model, ids: np.ndarray, targets: np.ndarray, first: int = 0, known: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the logits [t,V] after ids [T], at most AT_ONCE at a time, and the targets [t] that
    follow there, as many as there are; known: how many need none. first: the position of ids[0],
    for errors."""
    cache = model.new_cache(capacity=len(ids)) if len(ids) > AT_ONCE else None
    for start in range(0, len(ids), AT_ONCE):
        (logits,) = checked_logits(model, ids[None, start : start + AT_ONCE], cache, first=first)
        following = targets[start : start + AT_ONCE]
        skip = max(known - start, 0)
        if skip <= len(following):
            yield logits[skip : len(following)], following[skip:]


def next_logprobs(model: Model, ids: Sequence[int]) -> np.ndarray:
    """Return log P(token | ids) for every token of the vocabulary [V], in nats."""
    row = one_text(model, ids)
    return model.ops.log_softmax(checked_logits(model, row[None], last=True)[0, -1])


def continuation_logprob(model: Model, ids: Sequence[int], continuation: Sequence[int]) -> float:
    """Return log P(continuation | ids) in nats: a word of several tokens multiplies their
    probabilities."""
    before, following = one_text(model, ids).tolist(), one_text(model, continuation).tolist()
    whole = score(model, before + following)
    return float(whole.logprobs[len(before) - 1 :].sum(dtype=np.float64))


@dataclass(frozen=True)
class LongScore:
    """A long text in windows: nats [predicted tokens], the position in its window of each, and the
    bytes of the text."""

    nats: np.ndarray
    positions: np.ndarray
    n_bytes: int
    window: int
    stride: int

    @property
    def bits_per_byte(self) -> float:
        """sum(-log2 P) over the bytes of the text: comparable between tokenizers."""
        return float(self.nats.sum()) / math.log(2) / self.n_bytes

    @property
    def perplexity(self) -> float:
        """exp of the mean -log P a token: comparable only with the same tokenizer, window and
        stride."""
        return _exp(self.nats.mean())


def score_long(
    model: Model,
    tokenizer: Tokenizer,
    text: str,
    window: int | None = None,
    stride: int | None = None,
    show_progress: bool = True,
    ranks: World = ALONE,
) -> LongScore:
    """Score a text of any length, in windows of `window` positions that begin every `stride`
    positions.

    Each window is seen alone, and only what no earlier window has predicted counts: with stride =
    window (the default, n_positions both) every token is predicted once, from what its window holds
    before it; a smaller stride gives each at least window - stride tokens of context and takes
    longer. Every <|endoftext|> ends a document: that token is predicted too, and neither its name
    nor one line end directly after it is counted as bytes. ranks: the processes that share the
    windows out between them (distributed.world()); each gets the whole score.
    """
    require_model(model)
    require_tokenizer(tokenizer)
    require_kind("text", text, str, "one text, of type str")
    window = model.config.sizes.P if window is None else whole_number("window", window)
    stride = window if stride is None else whole_number("stride", stride)
    if not 1 <= stride <= window <= model.config.sizes.P:
        raise InputError(
            f"window {window} and stride {stride}: needed 1 <= stride <= window <="
            f" {model.config.sizes.P}"
        )
    text = well_formed(text)
    ids = np.array(tokenizer.encode_documents(text), dtype=np.int64)
    n_bytes = sum(len(document.encode()) for document in cut_at_ends(text))
    if len(ids) < 2 or not n_bytes:
        raise InputError(
            "the text has fewer than two tokens, or no byte: there is nothing to predict"
        )
    # the last window reaches the last token
    starts = range(0, max(1, len(ids) - 1 - window + stride), stride)
    with progress_bar("windows", show_progress) as update:

        def nats_of(start: int) -> np.ndarray:
            update("scoring", start // stride, len(starts))
            targets = ids[start + 1 : start + window + 1]
            inputs = ids[start : start + len(targets)]
            parts = _predicted(model, inputs, targets, start, known(start))
            return np.concatenate([model.ops.cross_entropy(*part) for part in parts], dtype=float)

        def known(start: int) -> int:  # what earlier windows have predicted of this one
            return window - stride if start else 0

        nats = ranks.share(nats_of, starts)
    positions = [known(start) + np.arange(len(part)) for start, part in zip(starts, nats)]
    return LongScore(np.concatenate(nats), np.concatenate(positions), n_bytes, window, stride)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
