"""Figures with matplotlib: every function takes ax=None, draws, and returns the axes. Readable in black and white."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bench import Comparison


def _axes(ax):
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(layout="constrained")
    return ax


def rates(comparison: Comparison, kind: str = "decode", ax=None):
    """Bars of each peer's tokens/s, "decode" or "prefill": the median, a line over the range, a tick at the machine's limit.

    The limit of decode: measured read bandwidth / bytes that the peer reads a token; of prefill: the measured GEMM's FLOP/s.
    """
    ax, measured = _axes(ax), comparison.measured
    values = [getattr(result, kind) for result in measured]
    middles = [median(v) for v in values]
    spread = [[m - min(v) for m, v in zip(middles, values)], [max(v) - m for m, v in zip(middles, values)]]
    limits = [comparison.limit(result, kind) for result in measured]
    rows = range(len(measured))
    for row, result, middle in zip(rows, measured, middles):
        ours = result.name.startswith("minillm")
        ax.barh(row, middle, color="0.35" if ours else "0.85", edgecolor="black", hatch=None if ours else "//")
    ax.errorbar(middles, rows, xerr=spread, fmt="none", ecolor="black", capsize=3, label="range of the rounds")
    limit = "read bandwidth" if kind == "decode" else "float32 GEMM"
    ax.plot(limits, rows, linestyle="none", marker="|", markersize=16, markeredgewidth=2, color="black", label=f"limit: {limit}")
    for row, middle, top in zip(rows, middles, [max(v) for v in values]):
        ax.annotate(f"{middle:,.0f}", (top, row), xytext=(5, 6), textcoords="offset points", fontsize="small")
    ax.set_yticks(rows, [result.name for result in measured])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.1 * max(*limits, *(max(v) for v in values), 0))
    what = f"{comparison.n_new} tokens after {comparison.n_prompt}" if kind == "decode" else f"{comparison.n_prompt} tokens"
    ax.set_xlabel("tokens/s")
    ax.set_title(f"{kind}: {what}")
    ax.legend(fontsize="small")
    return ax
