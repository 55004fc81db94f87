"""Figures of bench: the peers of one run, the ledger of levers, Amdahl's lines, and trainings
beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from ..errors import count
from .basics import axes_or_new, plain_numbers

if TYPE_CHECKING:
    from ..bench import PeerComparison
    from ..bench.amdahl import Amdahl
    from ..bench.ledger import Entry
    from ..bench.runs import Line


def rates(comparison: PeerComparison, kind: str = "decode", ax=None):
    """Bars of each peer's tokens/s, "decode" or "prefill": the median, a line over the range, a
    tick at the machine's limit.

    The limit of decode: measured read bandwidth / bytes that the peer reads a token; of prefill:
    the measured GEMM's FLOP/s.
    """
    ax, measured = axes_or_new(ax), comparison.measured
    values = [getattr(result, kind) for result in measured]
    middles = [median(v) for v in values]
    spread = [
        [m - min(v) for m, v in zip(middles, values)],
        [max(v) - m for m, v in zip(middles, values)],
    ]
    limits = [comparison.limit(result, kind) for result in measured]
    rows = range(len(measured))
    for row, result, middle in zip(rows, measured, middles):
        ours = result.name.startswith("minillm")
        ax.barh(
            row,
            middle,
            color="0.35" if ours else "0.85",
            edgecolor="black",
            hatch=None if ours else "//",
        )
    ax.errorbar(
        middles,
        rows,
        xerr=spread,
        fmt="none",
        ecolor="black",
        capsize=3,
        label="range of the rounds",
    )
    limit = "read bandwidth" if kind == "decode" else "float32 GEMM"
    ax.plot(
        limits,
        rows,
        linestyle="none",
        marker="|",
        markersize=16,
        markeredgewidth=2,
        color="black",
        label=f"limit: {limit}",
    )
    for row, middle, top in zip(rows, middles, [max(v) for v in values]):
        ax.annotate(
            f"{middle:,.0f}",
            (top, row),
            xytext=(5, 6),
            textcoords="offset points",
            fontsize="small",
        )
    ax.set_yticks(rows, [result.name for result in measured])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.1 * max(*limits, *(max(v) for v in values), 0))
    what = (
        f"{count(comparison.n_new, 'token')} after {comparison.n_prompt}"
        if kind == "decode"
        else f"{count(comparison.n_prompt, 'token')}"
    )
    ax.set_xlabel("tokens/s")
    ax.set_title(f"{kind}: {what}")
    ax.legend(fontsize="small")
    return ax


def speed_against_quality(entries: Sequence[Entry], ax=None):
    """Draw the change of bits per byte over decode tokens/s, a point a lever, and the frontier;
    return the axes.

    Exact levers are filled. The vertical scale is linear within 0.1 % and logarithmic beyond, since
    levers cost from nothing to everything.
    """
    from ..bench.ledger import frontier

    ax = axes_or_new(ax)
    shown = sorted(
        (e for e in entries if e.decode and e.change is not None), key=lambda e: e.rate("decode")
    )
    edge = frontier(shown)
    path = [e.rate("decode") for e in edge], [100 * e.change for e in edge]
    ax.plot(*path, "--", color="0.4", lw=1, label="frontier: none is faster and better")
    for exact, face, label in ((True, "black", "exact"), (False, "white", "not exact")):
        some = [e for e in shown if bool(e.proof) == exact]
        points = [e.rate("decode") for e in some], [100 * e.change for e in some]
        ax.scatter(*points, s=36, facecolors=face, edgecolors="black", label=label, zorder=3)
    ax.set(xlabel="decode, tokens/s (logarithmic)", xscale="log", title="Speed against quality")
    ax.set_yscale("symlog", linthresh=0.1)
    ax.set_ylabel("change of bits per byte, % (linear within ±0.1, else logarithmic)")
    ax.yaxis.set_major_formatter(lambda x, _: f"{x:+g}" if x else "0")
    ax.margins(0.1, 0.12)
    plain_numbers(ax.xaxis)
    plain = next((e.rate("decode") for e in shown if e.levers == "plain"), None)
    if plain:
        above = ax.secondary_xaxis("top", functions=(lambda x: x / plain, lambda x: x * plain))
        above.set_xlabel("times plain")
        plain_numbers(above.xaxis)
    ax.spines["right"].set_visible(False)
    ax.legend(frameon=False, loc="upper left", fontsize="small")
    _label_points(ax, [(e.rate("decode"), 100 * e.change, e.levers) for e in shown])
    return ax


def _label_points(ax, points) -> None:
    """Write the text of each (x, y, text) near to its point, where no other text or point is in the
    way, and nearer to it than to any other point, or with a line to it. What finds no room is left
    out."""
    from matplotlib.transforms import Bbox

    figure = ax.figure
    figure.draw_without_rendering()  # so that pixels are what they will be
    unit, frame = figure.dpi / 72, ax.get_window_extent()
    centres = ax.transData.transform([(x, y) for x, y, _ in points])
    taken = [Bbox.from_bounds(x - 5 * unit, y - 5 * unit, 10 * unit, 10 * unit) for x, y in centres]
    directions = np.radians(
        [0, 180, 90, 270, 45, 135, 315, 225, 22, 158, 338, 202, 67, 113, 293, 247]
    )

    def gaps(box) -> np.ndarray:  # from a box to every point
        beyond = np.maximum(np.maximum(box.min - centres, centres - box.max), 0)
        return np.hypot(*beyond.T)

    for (x, y, text), centre in zip(points, centres):
        label = ax.annotate(
            text, (x, y), (0, 0), textcoords="offset points", fontsize=8, ha="center", va="center"
        )
        size = np.array(label.get_window_extent().size)
        for distance, angle in ((d, a) for d in range(8, 160, 6) for a in directions):
            way = np.array([np.cos(angle), np.sin(angle)])
            middle = centre + way * (
                distance * unit + size / 2 * (abs(way) > 0.3)
            )  # its near side is `distance` away
            box = Bbox.from_bounds(*(middle - size / 2), *size)
            inside = (box.min > frame.min).all() and (box.max < frame.max).all()
            clear = (
                gaps(box) >= gaps(box)[(centres == centre).all(axis=1)][0]
            ).all() or distance > 20
            if inside and clear and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                label.set_position((middle - centre) / unit)
                if distance > 20:
                    line = {"arrowstyle": "-", "color": "0.6", "lw": 0.6}
                    ax.annotate(
                        "",
                        (x, y),
                        (middle - way * size / 2 - centre) / unit,
                        textcoords="offset points",
                        arrowprops=line,
                    )
                break
        else:
            label.remove()


def speeds(entries: Sequence[Entry], ax=None):
    """Bars of decode tokens/s, a lever each, the slowest first, with how many times plain and the
    memory of the weights."""
    ax = axes_or_new(ax)
    shown = sorted((e for e in entries if e.decode), key=lambda e: e.rate("decode"))
    values = [e.rate("decode") for e in shown]
    for row, (e, value) in enumerate(zip(shown, values)):
        face = {
            "facecolor": "0.35" if e.levers == "plain" else "0.85",
            "hatch": None if e.proof else "//",
        }
        ax.barh(row, value, edgecolor="black", linewidth=0.6, **face)
        ax.plot([min(e.decode), max(e.decode)], [row, row], color="black", lw=1.2)
        text = f"{value:,.0f}   {e.speed_up:.2f}x   {e.weight_bytes / 1e6:,.0f} MB"
        ax.annotate(
            text,
            (max(e.decode), row),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    ax.set_yticks(range(len(shown)), [e.levers for e in shown])
    ax.set(
        xlabel="decode, tokens/s",
        xlim=(0, 1.45 * max(values, default=1)),
        title="Speed; hatched: not exact",
    )
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def thread_speed_up(fits: Sequence[Amdahl], ax=None):
    """Speed-up over one thread against threads: measured (points, a line over the range of rounds),
    and Amdahl's line."""
    ax, styles = axes_or_new(ax), ("-", "--", "-.", ":")
    most = max(int(fit.threads[-1]) for fit in fits)
    ax.plot([1, most], [1, most], color="0.75", lw=1, label="as many times as threads")
    for number, fit in enumerate(fits):
        face, style = (
            "black" if fit.kind == "decode" else "white",
            styles[number // 2 % len(styles)],
        )
        middle, name = np.median(fit.measured, axis=0), f"{fit.base}, {fit.kind}"
        reach = np.abs(np.array([fit.measured.min(axis=0), fit.measured.max(axis=0)]) - middle)
        marker = {"marker": "o" if fit.kind == "decode" else "s", "mfc": face, "color": "black"}
        ax.errorbar(fit.threads, middle, yerr=reach, linestyle="none", capsize=3, **marker)
        every = np.linspace(1, most, 100)
        if fit.fits:
            ax.plot(every, fit.line(every), style, color="black", lw=1)
            share = f"serial share {np.median(fit.serial):.2f}"
        else:
            share = "no serial share fits"
        ax.plot([], [], style, lw=1, **marker, label=f"{name}: {share}")
    ax.set(xlabel="threads", ylabel="times one thread", title="Threads, with Amdahl's lines")
    ax.set_xticks(sorted({int(n) for fit in fits for n in fit.threads}))
    ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax


def ledger_page(entries: Sequence[Entry], fits: Sequence[Amdahl] = (), title: str = ""):
    """The ledger as a figure: speed against quality where quality was measured, else speeds; and
    threads where fitted."""
    from matplotlib.figure import Figure

    quality = any(e.change is not None for e in entries)
    height = 6.5 if quality else max(4.0, 1.5 + 0.34 * len(entries))
    figure = Figure(figsize=(14 if fits else 9.5, height), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=(2, 1)) if fits else [figure.subplots()]
    if fits:
        thread_speed_up(fits, axes[1])
    figure.suptitle(title)
    (speed_against_quality if quality else speeds)(
        entries, axes[0]
    )  # last: its labels need the final layout
    return figure


def runs_page(lines: Sequence[Line], title: str = ""):
    """Trainings beside one another: bits per byte of each seed and their mean, and what a decode
    cycle and a position in the cache cost."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.6 + 0.5 * len(lines)), layout="constrained")
    quality, *costs = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    rows = range(len(lines))
    points = [(bits, row) for row in rows for bits in lines[row].bits_per_byte.values()]
    quality.plot(*zip(*points), "o", color="black", mfc="white", label="a seed")
    means = [line.mean for line in lines]
    quality.plot(means, rows, "|", color="black", ms=22, mew=2, label="mean")
    quality.set(xlabel="bits per byte (less is better)", yticks=rows)
    quality.set_yticklabels([line.name for line in lines])
    quality.set_ylim(len(lines) - 0.4, -0.6)
    quality.grid(axis="x", color="0.9")
    quality.legend(
        frameon=False,
        fontsize="small",
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        markerscale=0.5,
    )
    shown = {
        "a decode cycle, us (range)": [line.cycle for line in lines],
        "KV cache, bytes a position": [(line.kv_bytes,) * 3 for line in lines],
    }
    for ax, (what, ranges) in zip(costs, shown.items()):
        low, middle, high = np.transpose(ranges)
        ax.barh(rows, middle, color="0.85", edgecolor="black", height=0.5)
        if (high > low).any():
            reach = [middle - low, high - middle]
            ax.errorbar(middle, rows, xerr=reach, fmt="none", ecolor="black", capsize=3)
        for row in rows:
            ax.annotate(
                f"{middle[row]:,.0f}",
                (high[row], row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
        ax.set(xlabel=what, xlim=(0, 1.3 * max(high)))
    for ax in (quality, *costs):
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure
