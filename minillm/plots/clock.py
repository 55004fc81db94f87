"""Figures of the clock: phases in time and by token, the limits, and growth."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from ..clock.diagram import shortened
from ..clock.growth import terms
from ..clock.phases import LOOKS, PHASES
from ..errors import count
from ..steps import phase_of
from .basics import axes_or_new, phase_style

if TYPE_CHECKING:
    from ..clock import ClockReport
    from ..clock.growth import Growth

SHOWN_CYCLES = 5  # of the time line: more, and one sees none of them


def time_line(report: ClockReport, ax=None):
    """When each phase was at work in the first cycles, a row for each as in a timing diagram; time
    in ms."""
    checked = next((i + 1 for i, cycle in enumerate(report.cycles) if cycle.kind == "verify"), 0)
    ax, cycles, rows = axes_or_new(ax), report.cycles[: max(SHOWN_CYCLES, checked)], PHASES
    for row, phase in enumerate(rows):
        spans = []
        for cycle in cycles:
            for name, begin, ns in zip(
                cycle.names, np.append(cycle.start, cycle.ends[:-1]), cycle.gross
            ):
                if phase_of(name) == phase:
                    spans.append((begin / 1e6, ns / 1e6))
        ax.broken_barh(
            spans, (row - 0.38, 0.76), edgecolor="black", linewidth=0.3, **phase_style(phase)
        )
    above = {"ha": "center", "va": "bottom", "fontsize": "x-small", "annotation_clip": False}
    for number, cycle in enumerate(cycles):
        ax.axvline(cycle.end / 1e6, color="black", linewidth=0.8, linestyle=":")
        what = "" if cycle.kind == "decode" else f"{cycle.kind} of {cycle.positions}\n"
        if cycle.moments:
            what += (
                shortened(report.texts[number], 16) if number < len(report.texts) else cycle.kind
            )
        if cycle.kind != "draft":
            ax.annotate(what, ((cycle.start + cycle.end) / 2e6, -0.6), **above)
    for kind, run in itertools.groupby(cycles, lambda cycle: cycle.kind):
        if kind == "draft":  # too short for a label each
            run = list(run)
            ax.annotate(f"{len(run)} drafts", ((run[0].start + run[-1].end) / 2e6, -0.6), **above)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(0, cycles[-1].end / 1e6)
    ax.set_xlabel("time since the prompt (ms)")
    ax.set_title("Phases in time", pad=28)
    return ax


def phases_by_token(report: ClockReport, ax=None):
    """Stacked bars of the phases of every cycle, ms; a prefill that towers over the rest is cut,
    and says how high it is."""
    ax, cycles = axes_or_new(ax), report.cycles
    sums = [cycle.sums() for cycle in cycles]
    height = np.zeros(len(cycles))
    for phase in PHASES:
        ms = np.array([s.get(phase, 0.0) for s in sums]) / 1e6
        ax.bar(
            range(len(cycles)),
            ms,
            bottom=height,
            width=0.9,
            edgecolor="black",
            linewidth=0.3,
            label=phase,
            **phase_style(phase),
        )
        height += ms
    top = 1.3 * (height[1:].max() if len(height) > 1 else height.max())
    ax.set_ylim(0, top)
    cut = np.flatnonzero(height > top)
    for i in cut:
        ax.annotate(
            f"{height[i]:,.0f} ms ↑",
            (i, top),
            xytext=(0, 2),
            textcoords="offset points",
            va="bottom",
            fontsize="small",
        )
    ax.set_xlim(-0.6, len(cycles) - 0.4)
    ax.xaxis.get_major_locator().set_params(integer=True)
    for i, cycle in enumerate(cycles):
        if cycle.kind == "verify":
            ax.annotate(
                f"verify: {cycle.moments}",
                (i, height[i]),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize="x-small",
            )
    plain = all(cycle.moments == 1 for cycle in cycles)
    ax.set_xlabel(
        "token (0 follows the prefill)"
        if plain
        else "cycle (0 is the prefill; verify: how many tokens came from it)"
    )
    ax.set_ylabel("ms")
    title = f"Where the time of each {'token' if plain else 'cycle'} goes"
    ax.set_title(title, pad=18 if cut.size else None)  # above what the cut bars say
    ax.legend(
        fontsize="small",
        ncols=len(PHASES),
        columnspacing=1,
        handlelength=1.2,
        loc="upper center",
    )
    return ax


def roofline(report: ClockReport, ax=None):
    """FLOP/s against FLOPs for each byte: the parts of a decode cycle (filled) and of the prefill
    (open) that take a hundredth of its time or more, under the roofs of memory, of the nearest
    cache, and of products."""
    ax, limits, whole = axes_or_new(ax), report.limits, report.rows[-1]
    near, far = limits.bandwidth[min(limits.bandwidth)], report.far_bandwidth
    one, many = limits.row[report.kind], limits.rows[report.kind]
    x, top = np.geomspace(0.05, 1000, 300), max(one, many) / 1e9
    lowest, highest = np.log10(top / 2e3), np.log10(top)
    for roof, bandwidth, style, name in (
        (one, near, "--", "one row, cache"),
        (many, far, "-", "many rows, memory"),
    ):
        ax.plot(
            x,
            np.minimum(roof, bandwidth * x) / 1e9,
            style,
            color="black",
            linewidth=1,
            label=f"{name}: {_roof(roof, bandwidth)}",
        )
    for kind, side in (("decode", -1), ("prefill", 1)):
        points = []
        for row in report.rows:
            cost, ns = (
                (row.cost, row.decode) if kind == "decode" else (row.prefill_cost, row.prefill)
            )
            if row.part and cost.flops and ns >= getattr(whole, kind) / 100:
                points.append((cost.flops / ns, cost.intensity, row))
        points.sort(key=lambda point: point[0])
        heights = _apart(np.log10([y for y, _, _ in points]), 0.17)
        lowest, highest = heights.min(initial=lowest), heights.max(initial=highest)
        for (y, intensity, row), height in zip(points, heights):
            color = LOOKS[row.phase].color
            ax.plot(
                intensity,
                y,
                "o" if side < 0 else "s",
                color=color if side < 0 else "white",
                mec="black",
                ms=7,
                zorder=3,
            )
            where = {
                "xytext": (0.006 if side < 0 else 2 * max(p[1] for p in points), 10**height),
                "ha": "left",
            }
            line = {"arrowprops": {"arrowstyle": "-", "linewidth": 0.4, "color": "0.5"}}
            ax.annotate(row.part, (intensity, y), **where, **line, va="center", fontsize="x-small")
    ax.set(xscale="log", yscale="log", xlim=(x[0] / 10, x[-1]))
    ax.set_ylim(10**lowest / 1.3, 4 * 10**highest)  # the legend is above all names
    ax.set_xlabel("arithmetic intensity (FLOP per byte)")
    ax.set_ylabel("GFLOP/s")
    ax.set_title(f"Roofline, {report.kind}: decode ●, prefill of {report.prefill.positions} □")
    ax.legend(fontsize="x-small", loc="upper left")
    return ax


def _roof(rate: float, bandwidth: float) -> str:
    return f"{rate / 1e9:,.0f} GFLOP/s, {bandwidth / 1e9:,.0f} GB/s"


def _apart(heights, gap: float):
    """Sorted heights moved up, as little as needed, to stand `gap` apart, and all down by half of
    the most."""
    moved = np.array(heights, float)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    return moved - (moved - heights).max(initial=0) / 2


def against_limits(report: ClockReport, ax=None):
    """For each part of a decode cycle the time measured (bar) and predicted from the limits (line),
    ms."""
    ax, rows = axes_or_new(ax), [row for row in report.rows if row.part and row.predicted]
    rows = [row for row in rows if row.decode >= report.rows[-1].decode / 200]
    for y, row in enumerate(rows):
        ax.barh(
            y,
            row.decode / 1e6,
            height=0.7,
            edgecolor="black",
            linewidth=0.5,
            **phase_style(row.phase),
        )
        ax.plot(
            [1e3 * row.predicted] * 2,
            [y - 0.45, y + 0.45],
            color="black",
            linewidth=3,
            label=None if y else "predicted",
        )
        furthest = max(row.decode / 1e6, 1e3 * row.predicted)
        ax.annotate(
            f"{row.share:.0%}, {row.binds}",
            (furthest, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
        )
    ax.set_yticks(range(len(rows)), [f"{row.part}" for row in rows], fontsize="small")
    ax.invert_yaxis()
    ax.set_xlim(0, 1.35 * max(max(row.decode / 1e6, 1e3 * row.predicted) for row in rows))
    ax.set_xlabel("ms of a decode cycle, all layers")
    whole = report.rows[-1]
    ax.set_title(
        f"Measured {whole.decode / 1e6:.3g} ms, by the limits {1e3 * whole.predicted:.3g} ms"
    )
    ax.legend(fontsize="small", loc="lower right")
    return ax


def prompt_growth(growth: Growth, ax=None):
    """Milliseconds of one pass against its length, and of one more token with a cache of as
    many: measured, fitted with both terms apart, predicted; log-log."""
    ax, n, fit = axes_or_new(ax), growth.lengths, growth.pass_fit
    every = np.geomspace(n[0], n[-1], 200)
    (linear, _), (square, _) = fit.term(1), fit.term(2)
    ax.plot(
        n, 1e3 * growth.passes, "o", color="black", markersize=5, label="pass of T tokens, measured"
    )
    ax.plot(every, 1e3 * fit(every), "-", color="black", linewidth=1, label="fitted")
    ax.plot(every, 1e3 * linear * every, "--", color="0.5", linewidth=1, label="its term in T")
    ax.plot(every, 1e3 * square * every**2, ":", color="0.5", linewidth=1.4, label="its term in T²")
    ax.plot(n, 1e3 * growth.predicted_passes, "x", color="black", markersize=5, label="predicted")
    ax.plot(
        n,
        1e3 * growth.tokens,
        "s",
        color="#7fb3d9",
        markeredgecolor="black",
        markersize=5,
        label="one token after a cache of T",
    )
    ax.plot(n, 1e3 * growth.predicted_tokens, "+", color="#1f4e79", markersize=6, label="predicted")
    _mark(ax, *fit.bend(1, 2), f"6C = {6 * growth.config.sizes.C}", n)
    ax.set_ylim(
        300 * min(growth.tokens.min(), growth.predicted_tokens.min()), 2e3 * growth.passes[-1]
    )
    ax.set_xlabel("tokens T")
    ax.set_ylabel("ms")
    ax.set_title(f"One pass, C = {growth.config.sizes.C}: T bends into T²")
    ax.legend(fontsize="x-small")
    return ax


def generation_growth(growth: Growth, ax=None):
    """Seconds to generate n tokens with and without a cache: measured and fitted; log-log, so that
    a power is a slope, and the two terms of generating without a cache apart."""
    ax, n = axes_or_new(ax), growth.lengths
    every = np.arange(1, n[-1] + 1)
    (linear, _), (square, _) = growth.pass_fit.term(1), growth.pass_fit.term(2)
    ax.plot(n, growth.without_cache, "o", color="black", markersize=5, label="no cache, measured")
    ax.plot(
        every, np.cumsum(growth.pass_fit(every)), "-", color="black", linewidth=1, label="fitted"
    )
    ax.plot(every, linear * every**2 / 2, "--", color="0.5", linewidth=1, label="its term in n²")
    ax.plot(every, square * every**3.0 / 3, ":", color="0.5", linewidth=1.4, label="its term in n³")
    ax.plot(
        n,
        growth.with_cache,
        "s",
        color="#7fb3d9",
        markeredgecolor="black",
        markersize=5,
        label="with cache, measured",
    )
    ax.plot(
        every, np.cumsum(growth.token_fit(every)), "-", color="#1f4e79", linewidth=1, label="fitted"
    )
    _mark(ax, *growth.generation_bend, f"9C = {9 * growth.config.sizes.C}", n)
    ax.set_ylim(growth.with_cache[0] / 5, growth.without_cache[-1] * 2)
    ax.set_xlabel("generated tokens n")
    ax.set_ylabel("seconds in all")
    ax.set_title(f"Generating, C = {growth.config.sizes.C}: n² bends into n³ without a cache")
    ax.legend(fontsize="x-small")
    return ax


def _mark(ax, bend: float, width: float, counted: str, n) -> None:
    """Both axes logarithmic, lengths as powers of 2, and where two terms are equal, with its
    interval."""
    ax.set(xscale="log", yscale="log", xlim=(n[0] * 0.9, n[-1] * 1.1))
    ticks = [2**i for i in range(20) if n[0] <= 2**i <= n[-1]]
    ax.set_xticks(ticks, ticks)
    ax.set_xticks([], minor=True)
    ax.yaxis.set_minor_formatter("")
    if np.isfinite(bend):
        ax.axvspan(max(bend - width, n[0] / 2), bend + width, color="0.9", zorder=0)
        ax.axvline(bend, color="black", linewidth=0.8)
        text = f" equal at {bend:,.0f} ± {width:,.0f}\n (by counting {counted})"
        ax.annotate(
            text, (max(bend, n[0]), 0.02), xycoords=("data", "axes fraction"), fontsize="x-small"
        )


def clock_page(report: ClockReport, growth: Growth | None = None):
    """All of a report, and of a growth, on one page: the figure. Without limits there is no
    roofline."""
    from matplotlib.figure import Figure

    drawings = [time_line, phases_by_token] + (
        [against_limits, roofline] if report.limits and report.decode else []
    )
    columns = len(drawings) // 2
    figure = Figure(figsize=(6.2 * (columns + bool(growth)), 10), layout="constrained")
    parts = figure.subfigures(1, 2, width_ratios=(columns, 1)) if growth else [figure]
    config = report.config
    parts[0].suptitle(
        f"This run: C = {config.sizes.C}, {count(config.sizes.L, 'layer')}, {report.kind}",
        fontweight="bold",
    )
    for i, draw in enumerate(drawings):
        draw(report, parts[0].add_subplot(2, columns, 1 + i // 2 + columns * (i % 2)))
    if growth:
        narrow, (a, b) = growth.config, terms(config)
        what = (
            f"Growth, on a narrow model of its own: C = {narrow.n_embd}, {narrow.n_layer} layers,"
            " NumPy, one thread"
        )
        parts[1].suptitle(
            f"{what}\n(at this run's widths the bend lies at {a / b:,.0f} tokens)",
            fontweight="bold",
            fontsize="medium",
        )
        for draw, ax in zip((prompt_growth, generation_growth), parts[1].subplots(2, 1)):
            draw(growth, ax)
    return figure
