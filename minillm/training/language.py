"""What a trainer trains: a thing with `parameters` {name: array}, changed in place,
n_targets(batch) and loss_and_gradients(batch, n)."""

from __future__ import annotations

import math

import numpy as np

from ..model import GPT2
from .backward import Activations, Checkpoints, backward_of, gpt2_backward

IGNORED = -100  # a target that is padding: the field's usual number for it


class LanguageModel:
    """A GPT2 that learns to predict the next token: the mean of -log P(target) over all targets
    that are not IGNORED.

    recompute: keep only what enters each block between forward and backward, and form the rest
    again.
    """

    def __init__(self, model: GPT2, recompute: bool = False):
        self.model, self.keep = model, Checkpoints if recompute else Activations

    @property
    def ops(self):
        """The twin that computes."""
        return self.model.ops

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Everything that is trained, by name: with LoRA the adapters alone."""
        adapters = {}
        for name, weight in self.model.parameters.items():
            if hasattr(weight, "trained"):
                adapters |= {
                    f"{name.removesuffix('weight')}{part}": array
                    for part, array in weight.trained.items()
                }
        return adapters or self.model.parameters

    def n_targets(self, batch) -> int:
        """How many targets of a batch count."""
        return int((batch[1] != IGNORED).sum())

    def loss_and_gradients(
        self, batch, n: int | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss of a batch (ids, targets, each [B,T]), in nats, and the gradient of every
        parameter: the sum over its targets, divided by n.

        n: their number if not given, so that it is the mean; of a part of a batch, the number of
        the whole, so that the parts add up to the mean over the whole.
        """
        ids, targets = batch
        ops, kept, positions = self.model.ops, self.keep(), positions_of(ids)
        logits = self.model.forward(ids, positions, step=kept)
        losses, share, targets = masked_losses(ops, logits, targets, n)
        d_logits = backward_of("cross_entropy", ops)(share, logits, targets)
        kept.pop("logits")  # nobody needs them any more
        gradients = gpt2_backward(self.model, ids, positions, kept, d_logits)
        return float((losses * share).sum()), {name: gradients[name] for name in self.parameters}

    def losses(self, batch) -> np.ndarray:
        """Return -log P of every target [B,T], in nats, 0 for those to ignore."""
        ids, targets = batch
        logits = self.model.forward(ids, positions_of(ids))
        losses, share, _ = masked_losses(self.model.ops, logits, targets)
        return losses * (share > 0)


def positions_of(ids) -> np.ndarray:
    return np.broadcast_to(np.arange(ids.shape[1]), ids.shape)


def masked_losses(ops, logits, targets, n=None):
    """Return the loss of every target, each one's share in the mean over n (0 for IGNORED ones),
    and targets that can be looked up."""
    real = targets != IGNORED
    share = (real / max(real.sum() if n is None else n, 1)).astype(logits.dtype)
    targets = np.where(real, targets, 0)
    return ops.cross_entropy(logits, targets), share, targets


def bits_per_byte(
    language_model: LanguageModel, tokens, length: int, limit: int | None = None, rows: int = 8
) -> tuple[float, float]:
    """Return the mean loss a token, in nats, and bits a byte of `tokens` (training.data.Tokens),
    each window seen alone.

    limit: about how many tokens to look at, spread evenly; None for all.
    """
    windows = tokens.windows(length)
    if limit is not None and limit < windows.shape[0] * length:
        windows = windows[np.linspace(0, len(windows) - 1, max(1, limit // length)).astype(int)]
    total = 0.0
    for start in range(0, len(windows), rows):
        part = windows[start : start + rows].astype(np.int64)
        total += float(language_model.losses((part[:, :-1], part[:, 1:])).sum(dtype=np.float64))
    loss = total / (len(windows) * length)
    return loss, loss / math.log(2) * len(tokens) / tokens.n_bytes
