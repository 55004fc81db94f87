"""The figure of training: losses of runs, and their validations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..training.curves import Curve


def training_curves(curves: Sequence[Curve], over: str = "steps", axes=None):
    """Draw the loss of training runs, reports in pale and smoothed in full, and beside it their
    validations; return the two axes. over: "steps" or "tokens"."""
    if axes is None:
        from matplotlib import pyplot

        _, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    left, right = axes
    reported = {name for curve in curves for validation in curve.validations for name in validation}
    what = next(
        (name for name in ("bits_per_byte", "accuracy", "val_loss") if name in reported), None
    )
    styles = zip(
        ("0.1", "#1f77b4", "#d95f02", "#7570b3", "#66a61e"),
        ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))),
        "osD^v",
    )
    for curve, (color, line, marker) in zip(curves, itertools.cycle(styles)):
        unit = curve.tokens_per_step if over == "tokens" else 1
        left.plot(curve.steps * unit, curve.loss, color=color, alpha=0.25, lw=0.8)
        left.plot(
            curve.steps * unit, curve.smoothed, color=color, ls=line, lw=1.6, label=curve.name
        )
        points = [(v["step"] * unit, v[what]) for v in curve.validations if what in v]
        if not points:
            continue
        right.plot(*zip(*points), color=color, ls=line, marker=marker, ms=4, label=curve.name)
        right.annotate(
            f"{points[-1][1]:.3f}",
            points[-1],
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    left.set(ylabel="training loss (nats per target)", title="Training: each report, and smoothed")
    name = {
        "bits_per_byte": "bits per byte",
        "val_loss": "loss (nats)",
        None: "no validation yet",
    }.get(what, what)
    right.set(ylabel=name, title="Validation")
    for ax in axes:
        ax.set_xlabel("tokens seen" if over == "tokens" else "step")
        ax.xaxis.set_major_formatter(_short)
        ax.margins(x=0.08)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="0.9")
    # The first steps fall so steeply that the rest would be a flat line: the scale shows what is
    # left after a tenth of them.
    late = np.concatenate([c.loss[len(c.loss) // 10 :] for c in curves])
    top = max(np.quantile(late, 0.995), *(c.smoothed[len(c.loss) // 20] for c in curves))
    left.set_ylim(min(late) - 0.03 * (top - min(late)), top + 0.05 * (top - min(late)) + 1e-9)
    right.set_xlim(left.get_xlim())
    if len(curves) > 1:
        left.legend(frameon=False)
    return axes


def _short(value: float, _=None) -> str:
    """12_000_000 -> 12M, as one says it."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}"
