"""What every figure is drawn with: axes, a matrix in shades, bars, and a picture in words."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..clock.phases import LOOKS
from ..errors import InputError
from ..machine.files import write_atomically


def axes_or_new(ax):
    """`ax`, or the axes of a new figure where it is None."""
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(layout="constrained")
    return ax


def show(drawn, alt: str) -> None:
    """Display axes' figure (or a figure) in a notebook, with `alt`: what it shows, for whoever
    cannot see it.

    The words are the picture's alt text, as IPython.display.Image keeps it. JupyterLab and GitHub
    do not hand that on to the reader, so they also stand below the picture. Raises InputError
    without them. The figure is closed, so that it is not displayed again at the end of the cell.
    """
    from IPython.display import display
    from matplotlib import pyplot

    if not alt.strip():
        raise InputError("the picture has no alternative text: say what it shows")
    figure, png = drawn.get_figure(), io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    picture = base64.b64encode(png.getvalue()).decode()
    display(
        {"image/png": picture, "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True
    )
    display({"text/markdown": f"*In words:* {alt}", "text/plain": f"In words: {alt}"}, raw=True)
    pyplot.close(figure)


def save(figure, path: str | Path) -> None:
    """Write a figure into a file, all or nothing, in the format that its name ends in."""
    picture = io.BytesIO()
    figure.savefig(picture, format=Path(path).suffix[1:], dpi=150)
    write_atomically(Path(path), picture.getvalue())


def heat_map(values, rows: Sequence[str], columns: Sequence[str], numbers: str = "", ax=None):
    """A matrix [R,C] in shades of grey, dark is large, with names along both edges; NaN and -inf
    (no value) are hatched.

    numbers: a format such as ".2f" to write into the cells; the shades then stay light enough to
    read on.
    """
    from matplotlib.patches import Rectangle

    ax, values = axes_or_new(ax), np.asarray(values, dtype=np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    low, high = np.nanmin(values), np.nanmax(values)
    ax.imshow(
        values,
        cmap="Greys",
        aspect="auto",
        vmin=low,
        vmax=high + (0.8 if numbers else 0) * (high - low or 1.0),
    )
    for row, column in np.argwhere(np.isnan(values)):
        ax.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5),
                1,
                1,
                fill=False,
                hatch="///",
                edgecolor="0.6",
                linewidth=0,
            )
        )
    for (row, column), value in np.ndenumerate(values):
        if numbers and np.isfinite(value):
            ax.annotate(format(value, numbers), (column, row), ha="center", va="center")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    return ax


def bars(values, names: Sequence[str], numbers: str = ".2f", ax=None):
    """Horizontal bars, the first on top, each with its number in the format `numbers`: values [N]
    of 0 or more, names [N]."""
    ax = axes_or_new(ax)
    ax.barh(range(len(values)), values, color="0.75", edgecolor="black")
    for row, value in enumerate(values):
        text = format(value, numbers)
        ax.annotate(
            text,
            (value, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    ax.set_yticks(range(len(values)), names)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.15 * max(values))
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def likeliest(logprobs, names: Sequence[str], n: int = 10, ax=None):
    """Bars of the n largest probabilities, in %, the likeliest on top: logprobs [V] in nats, names
    [V]."""
    best = np.argsort(-np.asarray(logprobs), kind="stable")[:n]
    ax = bars(100 * np.exp(np.asarray(logprobs)[best]), [names[i] for i in best], ax=ax)
    ax.set_xlabel("probability (%)")
    return ax


def phase_style(phase: str) -> dict:
    """How the clock draws a phase, as matplotlib's keywords."""
    return {"facecolor": LOOKS[phase].color, "hatch": LOOKS[phase].hatch}


def plain_numbers(axis) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5 of each power of ten, as one writes numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())
