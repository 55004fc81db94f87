"""What a run reported, as curves: the loss of its steps, raw and smoothed, and its validations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from .settings import Settings
from .trainer import METRICS, read_metrics, read_settings

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
        """The mean of each report and as many before as after it, SMOOTHED of all, three at least.
        At the ends the straight line of least squares through the first and the last so many: so
        the curve runs neither late nor early, and ends in no single report."""
        n = len(self.loss)
        width = min(n, 2 * max(1, int(SMOOTHED * n / 2 + 0.5)) + 1)
        values, t = [], np.arange(width) - (width - 1) / 2
        for i in range(n):
            start = min(max(i - width // 2, 0), n - width)
            part = self.loss[start : start + width]
            slope = t @ part / (t @ t or 1)
            values.append(part.mean() + slope * t[i - start])
        return np.array(values)


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
    made = read_settings(folder, Settings)
    window = made.get("context") or made.get("n_positions") or 0
    number, loss = (np.array([record[name] for record in steps]) for name in ("step", "loss"))
    per_step = made.get("batch_size", 0) * window
    return Curve(folder.resolve().name, number, loss, validations, per_step)
