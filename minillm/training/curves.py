"""What a run reported, as curves: the loss of its steps, raw and smoothed, and its validations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import read_json
from .trainer import METRICS, SETTINGS, read_metrics

SMOOTHED = 0.05  # of a curve's reports: how many the smoothing takes together


@dataclass
class Curve:
    """One run. steps, loss: of each report; validations: what each of them reported, in order.

    tokens_per_step: 0 where the run's settings do not say (it is no language model's).
    """

    name: str
    steps: np.ndarray
    loss: np.ndarray
    validations: list[dict] = field(default_factory=list)
    tokens_per_step: int = 0

    @property
    def smoothed(self) -> np.ndarray:
        """Means over SMOOTHED of the reports, as many before as after each, fewer at the ends: so
        it runs neither late nor early."""
        n = len(self.loss)
        half = [min(int(SMOOTHED * n / 2 + 0.5), i, n - 1 - i) for i in range(n)]
        return np.array([self.loss[i - h : i + h + 1].mean() for i, h in enumerate(half)])


def read_curve(folder: str | Path) -> Curve:
    """Read the run in `folder`. Raises InputError where there is none, or one that has not reported
    yet."""
    folder = Path(folder)
    records = read_metrics(folder / METRICS)
    steps = [record for record in records if "lr" in record]
    if not steps:
        raise InputError(f"{folder / METRICS}: no step has been reported yet")
    validations = [
        r
        for r in records
        if "lr" not in r and any(name in r for name in ("val_loss", "bits_per_byte", "accuracy"))
    ]
    made = read_json(folder / SETTINGS) if (folder / SETTINGS).exists() else {}
    window = made.get("context") or made.get("n_positions") or 0
    numbers = (np.array([record[name] for record in steps]) for name in ("step", "loss"))
    return Curve(folder.resolve().name, *numbers, validations, made.get("batch_size", 0) * window)
