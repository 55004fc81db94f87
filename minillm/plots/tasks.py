"""Figures of tasks: a classifier, and recurrence beside attention over the length of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .basics import axes_or_new, plain_numbers

if TYPE_CHECKING:
    from ..tasks.classify import Result
    from ..tasks.trials import StepTime


def confusion_matrix(result: Result, ax=None):
    """A square for each pair of true and predicted label, the darker the larger its part of the
    true label's texts."""
    ax = axes_or_new(ax)
    n = len(result.labels)
    parts = result.confusion / np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
    ax.imshow(parts, cmap="Greys", vmin=0, vmax=1.25)
    for i, j in np.ndindex(n, n):
        colour = "white" if parts[i, j] > 0.6 else "black"
        ax.text(
            j,
            i,
            f"{result.confusion[i, j]:,}\n{parts[i, j]:.0%}",
            ha="center",
            va="center",
            color=colour,
        )
    ax.set_xticks(range(n), result.labels, rotation=0 if n < 5 else 90)
    ax.set_yticks(range(n), result.labels)
    ax.set(
        xlabel="predicted", ylabel="true", title=f"Held-out texts: accuracy {result.accuracy:.1%}"
    )
    return ax


def classifier_curve(metrics: Sequence[dict], ax=None):
    """The loss of every reported step, and loss and accuracy on the held-out texts at each
    evaluation, over steps."""
    ax = axes_or_new(ax)
    steps = [r for r in metrics if "lr" in r]
    tests = [r for r in metrics if "accuracy" in r]
    ax.plot(
        [r["step"] for r in steps],
        [r["loss"] for r in steps],
        color="0.7",
        lw=1,
        label="loss of a step",
    )
    ax.plot(
        [r["step"] for r in tests],
        [r["held_out_loss"] for r in tests],
        "k--o",
        ms=4,
        label="held-out loss",
    )
    ax.set(xlabel="step", ylabel="loss, nats", ylim=(0, None), title="Training")
    right = ax.twinx()
    right.plot(
        [r["step"] for r in tests],
        [r["accuracy"] for r in tests],
        "k-s",
        ms=4,
        mfc="white",
        label="held-out accuracy",
    )
    right.set(ylabel="accuracy", ylim=(min(0.5, *(r["accuracy"] for r in tests)), 1))
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    lines = [*ax.lines, *right.lines]
    right.legend(
        lines,
        [line.get_label() for line in lines],
        edgecolor="none",
        fontsize="small",
        loc="center right",
    )
    ax.spines["top"].set_visible(False)
    right.spines["top"].set_visible(False)
    return ax


def classification_page(result: Result, metrics: Sequence[dict], title: str = ""):
    """A run of a classifier as a figure: its curve and its confusion matrix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    curve, matrix = figure.subplots(1, 2, width_ratios=(3, 2))
    figure.suptitle(title)
    classifier_curve(metrics, curve)
    confusion_matrix(result, matrix)
    return figure


def time_by_length(times: Sequence[StepTime], what: str = "step", ax=None):
    """Over the length of texts: what a position takes of a step of training ("step"), or how many
    times faster the step is on all threads than on one ("threads"); a line for each model and
    number of rows."""
    ax = axes_or_new(ax)
    rows = sorted({t.rows for t in times})
    for model, marker in (("lstm", "s"), ("transformer", "o")):
        for i, n in enumerate(rows):
            some = [t for t in times if t.model == model and t.rows == n]
            values = [
                1e6 * t.step / (t.rows * t.length) if what == "step" else t.one_thread / t.step
                for t in some
            ]
            face, style = ("white", "--") if model == "lstm" else ("black", "-")
            shade = str(0.55 - 0.55 * i / max(len(rows) - 1, 1))
            name = {"lstm": "LSTM", "transformer": "Transformer"}[model]
            label = f"{name}, {n} text{'s' if n > 1 else ''} at once"
            ax.plot(
                [t.length for t in some],
                values,
                style,
                marker=marker,
                color=shade,
                mfc=face if face == "white" else shade,
                label=label,
            )
    ax.set_xscale("log", base=2)
    ax.set_xticks(
        sorted({t.length for t in times}), sorted({str(t.length) for t in times}, key=int)
    )
    ax.set(
        xlabel="length of the texts, positions",
        title="Time of a training step" if what == "step" else "What threads give",
    )
    ax.set_ylabel("us a position (logarithmic)" if what == "step" else "times one thread")
    if what == "step":
        ax.set_yscale("log")
        plain_numbers(ax.yaxis)
        ax.legend(frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def length_page(times: Sequence[StepTime]):
    """Recurrence and attention over the length of texts: time, and speed-up by threads."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    for what, ax in zip(("step", "threads"), figure.subplots(1, 2)):
        time_by_length(times, what, ax)
    return figure
