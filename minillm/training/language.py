"""What a trainer trains: a thing with `parameters` {name: array}, changed in place,
n_targets(batch) and loss_and_gradients(batch, n)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np

from ..decoding.finite import check_logits
from ..families.family import MATRIX
from ..model import Model, model_of
from ..parameters import FixedEntries
from ..protocol import require_model
from ..twins.backward import backward_of
from ..weights.lora import LoRA
from .recompute import Activations, Recompute

IGNORED = -100  # a target that is padding: the field's usual number for it


def trainable(model: Model) -> tuple[dict[str, np.ndarray], Model]:
    """Return arrays to train, {name: array}, and a model that computes with them as they change;
    both begin as `model` is, which stays so. With LoRA the adapters alone are trained."""
    require_model(model)
    adapted = any(isinstance(p, LoRA) for p in model.parameters.values())

    def own(parameter):
        if isinstance(parameter, LoRA):
            return parameter.copy()
        if adapted and not isinstance(parameter, np.ndarray):
            return parameter  # stored in few bits, say, and shared
        return np.array(parameter, order="C")

    parameters = {name: own(p) for name, p in model.parameters.items()}
    arrays = {
        f"{name.removesuffix('weight')}{part}": array
        for name, p in parameters.items()
        if isinstance(p, LoRA)
        for part, array in p.trained.items()
    }
    # No fused step is kept beside arrays that change: it takes stored matrices only.
    return FixedEntries(arrays or parameters), model_of(model.config, parameters, model.ops)


def matrices_of(model: Model, names: Iterable[str]) -> dict[str, list[int]]:
    """Return those of the trained arrays that are matrices inside a block, {name: where the next of
    several side by side begins}: a block's own, or the factors of its adapters."""
    sizes, found = model.config.sizes, {}
    for name in names:
        whole = re.sub(r"lora_[ab]$", "weight", name)
        parameter = model.layout.get(whole)
        if parameter and parameter.role == MATRIX:
            widths = [sizes.width(part) for part in parameter.axes[-1].split()]
            found[name] = np.cumsum(widths[:-1]).tolist() if whole == name else []
    return found


class LanguageModel:
    """A model that learns to predict the next token: the mean of -log P(target) over all targets
    that are not IGNORED.

    It begins as `model` is, which stays so. `parameters` {name: array} are its own and changed in
    place, `self.model` sees them change. recompute: keep only what enters each block between
    forward and backward, and form the rest again.
    """

    def __init__(self, model: Model, recompute: bool = False):
        self.parameters, self.model = trainable(model)
        self.matrices = matrices_of(model, self.parameters)
        self.keep = Recompute if recompute else Activations

    @property
    def ops(self):
        """The twin that computes."""
        return self.model.ops

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
        gradients = self.model.family.backward(self.model, ids, positions, kept, d_logits)
        return float((losses * share).sum()), {name: gradients[name] for name in self.parameters}

    def losses(self, batch) -> np.ndarray:
        """Return -log P of every target [B,T], in nats, 0 for those to ignore; InputError where
        there is none."""
        ids, targets = batch
        positions = positions_of(ids)
        logits = self.model.forward(ids, positions)
        check_logits(
            logits,
            lambda row, position: f"row {row}, position {position}",
            lambda step: self.model.forward(ids, positions, step=step),
        )
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
