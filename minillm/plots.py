"""Figures with matplotlib: every function takes ax=None, draws, and returns the axes. Readable in
black and white."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from .bench import Comparison
    from .bench.amdahl import Amdahl
    from .bench.ledger import Entry
    from .clock import Report
    from .clock.growth import Growth
    from .exercises.report import ClassReport
    from .steps import Difference
    from .tasks.classify import Result
    from .tasks.compare import StepTime
    from .training.curves import Curve

# Phases of a cycle: colours that differ in lightness too, and hatches.
PHASE_STYLES = {
    "embed": {"color": "#fbe5a6", "hatch": "..."},
    "attend": {"color": "#1f4e79", "hatch": ""},
    "feed forward": {"color": "#7fb3d9", "hatch": ""},
    "unembed": {"color": "#e08214", "hatch": "////"},
    "choose": {"color": "#f2f2f2", "hatch": "xxxx"},
}
# How far a student is with an exercise: a sign, and a shade.
STATE_STYLES = {
    "not started": ("", "white"),
    "does not run": ("!", "0.92"),
    "wrong shape": ("□", "0.8"),
    "wrong values": ("≠", "0.65"),
    "right": ("✓", "#1f4e79"),
    "not checked": ("?", "white"),
}
SHOWN_CYCLES = 5  # of the time line: more, and one sees none of them


def _axes(ax):
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


def heat_map(values, rows: Sequence[str], columns: Sequence[str], numbers: str = "", ax=None):
    """A matrix [R,C] in shades of grey, dark is large, with names along both edges; NaN and -inf
    (no value) are hatched.

    numbers: a format such as ".2f" to write into the cells; the shades then stay light enough to
    read on.
    """
    from matplotlib.patches import Rectangle

    ax, values = _axes(ax), np.asarray(values, dtype=np.float64)
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
    ax = _axes(ax)
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


def speed_against_quality(entries: Sequence[Entry], ax=None):
    """Draw the change of bits per byte over decode tokens/s, a point a lever, and the frontier;
    return the axes.

    Exact levers are filled. The vertical scale is linear within 0.1 % and logarithmic beyond, since
    levers cost from nothing to everything.
    """
    from .bench.ledger import frontier

    ax = _axes(ax)
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
    _plain_numbers(ax.xaxis)
    plain = next((e.rate("decode") for e in shown if e.levers == "plain"), None)
    if plain:
        above = ax.secondary_xaxis("top", functions=(lambda x: x / plain, lambda x: x * plain))
        above.set_xlabel("times plain")
        _plain_numbers(above.xaxis)
    ax.spines["right"].set_visible(False)
    ax.legend(frameon=False, loc="upper left", fontsize="small")
    _label_points(ax, [(e.rate("decode"), 100 * e.change, e.levers) for e in shown])
    return ax


def _plain_numbers(axis) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5 of each power of ten, as one writes numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())


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
            # its near side is `distance` away
            middle = centre + way * (distance * unit + size / 2 * (abs(way) > 0.3))
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
    ax = _axes(ax)
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
    ax, styles = _axes(ax), ("-", "--", "-.", ":")
    most = max(int(fit.threads[-1]) for fit in fits)
    ax.plot([1, most], [1, most], color="0.75", lw=1, label="as many times as threads")
    for number, fit in enumerate(fits):
        face = "black" if fit.kind == "decode" else "white"
        style = styles[number // 2 % len(styles)]
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
    # last: its labels need the final layout
    (speed_against_quality if quality else speeds)(entries, axes[0])
    return figure


def rates(comparison: Comparison, kind: str = "decode", ax=None):
    """Bars of each peer's tokens/s, "decode" or "prefill": the median, a line over the range, a
    tick at the machine's limit.

    The limit of decode: measured read bandwidth / bytes that the peer reads a token; of prefill:
    the measured GEMM's FLOP/s.
    """
    ax, measured = _axes(ax), comparison.measured
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
        f"{comparison.n_new} tokens after {comparison.n_prompt}"
        if kind == "decode"
        else f"{comparison.n_prompt} tokens"
    )
    ax.set_xlabel("tokens/s")
    ax.set_title(f"{kind}: {what}")
    ax.legend(fontsize="small")
    return ax


def time_line(report: Report, ax=None):
    """When each phase was at work in the first cycles, a row for each as in a timing diagram; time
    in ms."""
    from .clock.diagram import shortened
    from .steps import phase_of

    checked = next((i + 1 for i, cycle in enumerate(report.cycles) if cycle.kind == "verify"), 0)
    ax, cycles, rows = _axes(ax), report.cycles[: max(SHOWN_CYCLES, checked)], list(PHASE_STYLES)
    for row, phase in enumerate(rows):
        spans = []
        for cycle in cycles:
            for name, begin, ns in zip(
                cycle.names, np.append(cycle.start, cycle.ends[:-1]), cycle.gross
            ):
                if phase_of(name) == phase:
                    spans.append((begin / 1e6, ns / 1e6))
        ax.broken_barh(spans, (row - 0.38, 0.76), edgecolor="black", linewidth=0.3, **_style(phase))
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


def phases_by_token(report: Report, ax=None):
    """Stacked bars of the phases of every cycle, ms; a prefill that towers over the rest is cut,
    and says how high it is."""
    ax, cycles = _axes(ax), report.cycles
    sums = [cycle.sums() for cycle in cycles]
    height = np.zeros(len(cycles))
    for phase in PHASE_STYLES:
        ms = np.array([s.get(phase, 0.0) for s in sums]) / 1e6
        ax.bar(
            range(len(cycles)),
            ms,
            bottom=height,
            width=0.9,
            edgecolor="black",
            linewidth=0.3,
            label=phase,
            **_style(phase),
        )
        height += ms
    top = 1.3 * (height[1:].max() if len(height) > 1 else height.max())
    ax.set_ylim(0, top)
    for i in np.flatnonzero(height > top):
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
    ax.set_title(f"Where the time of each {'token' if plain else 'cycle'} goes")
    ax.legend(
        fontsize="small",
        ncols=len(PHASE_STYLES),
        columnspacing=1,
        handlelength=1.2,
        loc="upper center",
    )
    return ax


def roofline(report: Report, ax=None):
    """FLOP/s against FLOPs for each byte: the parts of a decode cycle (filled) and of the prefill
    (open) that take a hundredth of its time or more, under the roofs of memory, of the nearest
    cache, and of products."""
    ax, limits, whole = _axes(ax), report.limits, report.rows[-1]
    near, far = limits.bandwidth[min(limits.bandwidth)], report.far_bandwidth
    one, many = limits.row[report.kind], limits.rows[report.kind]
    x, top = np.geomspace(0.05, 1000, 300), max(one, many) / 1e9
    lowest = np.log10(top / 2e3)
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
        lowest = heights.min(initial=lowest)
        for (y, intensity, row), height in zip(points, heights):
            color = PHASE_STYLES[row.phase]["color"]
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
    ax.set(xscale="log", yscale="log", xlim=(x[0] / 10, x[-1]), ylim=(10**lowest / 1.3, 2 * top))
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


def against_limits(report: Report, ax=None):
    """For each part of a decode cycle the time measured (bar) and predicted from the limits (line),
    ms."""
    ax, rows = _axes(ax), [row for row in report.rows if row.part and row.predicted]
    rows = [row for row in rows if row.decode >= report.rows[-1].decode / 200]
    for y, row in enumerate(rows):
        ax.barh(
            y, row.decode / 1e6, height=0.7, edgecolor="black", linewidth=0.5, **_style(row.phase)
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
    """Milliseconds of one pass against its length, and of one more token with a cache behind as
    many: measured, fitted with both terms apart, predicted; log-log."""
    ax, n, fit = _axes(ax), growth.lengths, growth.pass_fit
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
        label="one token behind a cache of T",
    )
    ax.plot(n, 1e3 * growth.predicted_tokens, "+", color="#1f4e79", markersize=6, label="predicted")
    _mark(ax, *fit.bend(1, 2), f"6C = {6 * growth.config.n_embd}", n)
    ax.set_ylim(
        300 * min(growth.tokens.min(), growth.predicted_tokens.min()), 2e3 * growth.passes[-1]
    )
    ax.set_xlabel("tokens T")
    ax.set_ylabel("ms")
    ax.set_title(f"One pass, C = {growth.config.n_embd}: T bends into T²")
    ax.legend(fontsize="x-small")
    return ax


def generation_growth(growth: Growth, ax=None):
    """Seconds to generate n tokens with and without a cache: measured and fitted; log-log, so that
    a power is a slope, and the two terms of generating without a cache apart."""
    ax, n = _axes(ax), growth.lengths
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
    _mark(ax, *growth.generation_bend, f"9C = {9 * growth.config.n_embd}", n)
    ax.set_ylim(growth.with_cache[0] / 5, growth.without_cache[-1] * 2)
    ax.set_xlabel("generated tokens n")
    ax.set_ylabel("seconds in all")
    ax.set_title(f"Generating, C = {growth.config.n_embd}: n² bends into n³ without a cache")
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


def residual_norms(trace: Mapping[str, np.ndarray], ax=None):
    """How long the residual stream is after every part of every block, and what each part added:
    Euclidean norms.

    The medians over all positions of a Trace; a grey band holds the middle half of the positions.
    """
    ax, outs = _axes(ax), [name for name in trace if name.endswith((".attn.out", ".mlp.out"))]
    stream = ["embed", *(name.removesuffix("out") + "residual" for name in outs)]
    lengths = np.stack(
        [np.linalg.norm(trace[name], axis=-1).ravel() for name in stream]
    )  # [1 + 2L, B T]
    added = [np.median(np.linalg.norm(trace[name], axis=-1)) for name in outs]
    low, middle, high = np.percentile(lengths, (25, 50, 75), axis=1)
    places = np.arange(len(stream))
    for start, phase, label in (
        (1, "attend", "added by attention"),
        (2, "feed forward", "added by the feed forward"),
    ):
        ax.bar(
            places[start::2],
            added[start - 1 :: 2],
            width=0.7,
            edgecolor="black",
            lw=0.5,
            label=label,
            **_style(phase),
        )
    ax.fill_between(
        places,
        low,
        high,
        color="0.8",
        zorder=2,
        alpha=0.7,
        lw=0,
        label="middle half of the positions",
    )
    ax.plot(
        places,
        middle,
        "o-",
        color="black",
        markerfacecolor="white",
        zorder=3,
        label="the stream, after adding",
    )
    ax.set_xticks(
        places,
        [
            "embed",
            *(name.split(".")[1] + (" attn" if ".attn." in name else " mlp") for name in outs),
        ],
    )
    ax.tick_params(axis="x", rotation=60, length=0)
    ax.set_xlabel("layer and part")
    ax.set_ylabel("Euclidean norm, median of the positions")
    ax.set_ylim(0)
    ax.legend(fontsize="small", frameon=False)
    return ax


def errors_by_step(
    reports: Mapping[str, Sequence[Difference]], tolerances: Mapping[str, float], ax=None
):
    """The relative difference of every step from the reference, for each dtype, and what is
    allowed; logarithmic.

    reports, tolerances: by name of the dtype. Steps without any difference stand on the lower edge.
    """
    ax, styles = _axes(ax), itertools.cycle([("o", 4, "black"), ("s", 7, "none"), ("^", 9, "none")])
    floor = 10 ** np.floor(
        np.log10(min(d.relative for report in reports.values() for d in report if d.relative) / 3)
    )
    for (dtype, report), (marker, size, face) in zip(reports.items(), styles):
        heights, label = [max(d.relative, floor) for d in report], f"{dtype}, measured"
        ax.plot(
            heights,
            marker,
            ms=size,
            mfc=face,
            mec="black",
            mew=0.6,
            ls="none",
            label=label,
            clip_on=False,
        )
        ax.axhline(tolerances[dtype], color="black", lw=0.8, ls="--")
        where = {
            "xy": (0.005, tolerances[dtype]),
            "xycoords": ("axes fraction", "data"),
            "va": "bottom",
        }
        ax.annotate(f"allowed in {dtype}", **where, fontsize="small")
    exact = max(
        (place for report in reports.values() for place, d in enumerate(report) if not d.relative),
        default=None,
    )
    if exact is not None:
        ax.annotate(
            "no difference",
            (exact, floor),
            (8, 4),
            textcoords="offset points",
            va="bottom",
            fontsize="small",
        )
    names = [d.name for d in next(iter(reports.values()))]
    blocks = [place for place, name in enumerate(names) if name.endswith(".ln_1")]
    for place in [*blocks, names.index("ln_f")] if blocks else []:
        ax.axvline(place - 0.5, color="0.85", lw=0.8, zorder=0)
    ax.set_xticks([place + 7 for place in blocks], [f"layer {n}" for n in range(len(blocks))])
    ax.tick_params(axis="x", length=0)
    ax.set(yscale="log", ylim=(floor, 100 * max(tolerances.values())), xlim=(-1, len(names)))
    ax.set_xlabel("steps, in the order in which they are formed")
    ax.set_ylabel("largest difference / largest value")
    ax.legend(fontsize="small", loc="upper right", ncols=len(reports))
    return ax


def cached_scores(lengths: Sequence[int], names: Sequence[str], ax=None):
    """Which scores of the matrix [T,T] a generation computes with a KV cache, by whom: each cell
    holds its cycle's number.

    lengths: positions that each cycle reads, the prompt's first; names: the T tokens. Grey with a
    hatch where the key comes from the cache, white where it is new in that cycle too; a dot where
    the mask forbids.
    """
    from matplotlib.patches import Patch, Rectangle

    ax, cycles = _axes(ax), np.repeat(np.arange(len(lengths)), lengths)
    styles = {
        "key new in this cycle": {"facecolor": "white"},
        "key from the cache": {"facecolor": "0.85", "hatch": "///"},
    }
    for query, key in itertools.product(range(len(cycles)), repeat=2):
        if key > query:
            ax.text(key, query, "·", ha="center", va="center", color="0.5")
            continue
        style = styles[
            "key from the cache" if cycles[key] < cycles[query] else "key new in this cycle"
        ]
        ax.add_patch(
            Rectangle((key - 0.5, query - 0.5), 1, 1, **style, edgecolor="0.6", linewidth=0.5)
        )
        ax.text(
            key,
            query,
            str(cycles[query]),
            ha="center",
            va="center",
            bbox={"facecolor": style["facecolor"], "lw": 0, "pad": 1.5},
        )
    for edge in np.cumsum(lengths)[:-1] - 0.5:
        ax.plot([-0.5, edge + 1], [edge, edge], color="black", lw=1.2)
    ax.set(
        xlim=(-0.5, len(cycles) - 0.5), ylim=(len(cycles) - 0.5, -0.5), xlabel="key", ylabel="query"
    )
    ax.set_xticks(range(len(cycles)), names, rotation=60)
    ax.set_yticks(range(len(cycles)), names)
    ax.tick_params(length=0)
    handles = [Patch(**style, edgecolor="0.6", label=label) for label, style in styles.items()]
    ax.legend(handles=handles, fontsize="small", loc="upper right")
    return ax


def prefix_tree(
    probabilities: Mapping[tuple, float],
    names: Sequence[str],
    values: Mapping[tuple, float] | None = None,
    paths: Mapping[str, tuple] | None = None,
    ax=None,
):
    """All texts of a tiny vocabulary as a tree: a node a prefix, on its edge P(last token | the
    tokens before it).

    probabilities: by prefix (ids); what has no prefix of its own is the root. values: numbers to
    write beside prefixes. paths: by label, texts to follow with lines of different style.
    """
    ax = _axes(ax)
    leaves = [p for p in sorted(probabilities) if not any(q[:-1] == p for q in probabilities)]
    heights = {leaf: float(row) for row, leaf in enumerate(leaves)}
    for length in range(max(map(len, leaves)) - 1, 0, -1):
        for prefix in sorted({leaf[:length] for leaf in leaves if len(leaf) > length}):
            heights[prefix] = float(np.mean([h for p, h in heights.items() if p[:-1] == prefix]))
    for prefix, p in probabilities.items():
        x, y = len(prefix) - 1, heights[prefix[:-1]]
        to_x, to_y = len(prefix), heights[prefix]
        ax.plot([x, to_x], [y, to_y], color="0.7", lw=0.8, zorder=1)
        middle = 0.35 * x + 0.65 * to_x, 0.35 * y + 0.65 * to_y
        ax.text(
            *middle,
            f"{p:.2f}",
            fontsize="x-small",
            ha="center",
            va="center",
            bbox={"fc": "white", "lw": 0, "pad": 0.6},
        )
    for (label, path), (style, width) in zip(
        (paths or {}).items(), itertools.cycle([("-", 2.6), ("--", 1.6), (":", 2.2)])
    ):
        places = [path[: n + 1] for n in range(len(path)) if path[: n + 1] in heights]
        ax.plot(
            [len(q) for q in places],
            [heights[q] for q in places],
            style,
            color="black",
            lw=width,
            label=label,
            zorder=2,
        )
    for prefix, y in heights.items():
        box = {"boxstyle": "circle,pad=0.25", "fc": "white", "ec": "black", "lw": 0.8}
        ax.text(
            len(prefix),
            y,
            names[prefix[-1]],
            ha="center",
            va="center",
            fontsize="small",
            bbox=box,
            zorder=3,
        )
        if values and prefix in values:
            where = (
                {"xytext": (14, 0), "va": "center"}
                if prefix in leaves
                else {"xytext": (-2, 11), "ha": "right"}
            )
            where |= {"textcoords": "offset points", "bbox": {"fc": "white", "lw": 0, "pad": 0.6}}
            ax.annotate(
                f"{values[prefix]:.3f}", (len(prefix), y), **where, fontsize="small", zorder=4
            )
    depths = sorted({len(prefix) for prefix in heights})
    ax.set(
        xlim=(depths[0] - 0.15, depths[-1] + 0.4),
        ylim=(len(leaves) - 0.4, -0.6),
        xlabel="tokens in the prefix",
    )
    ax.set_xticks(depths)
    ax.set_yticks([])
    ax.spines[["left", "right", "top"]].set_visible(False)
    if paths:
        ax.legend(loc="upper left", fontsize="small", frameon=False)
    return ax


def clock_page(report: Report, growth: Growth | None = None):
    """All of a report, and of a growth, on one page: the figure. Without limits there is no
    roofline."""
    from matplotlib.figure import Figure

    from .clock.growth import terms

    drawings = [time_line, phases_by_token] + (
        [against_limits, roofline] if report.limits and report.decode else []
    )
    columns = len(drawings) // 2
    figure = Figure(figsize=(6.2 * (columns + bool(growth)), 10), layout="constrained")
    parts = figure.subfigures(1, 2, width_ratios=(columns, 1)) if growth else [figure]
    config = report.config
    parts[0].suptitle(
        f"This run: C = {config.n_embd}, {config.n_layer} layers, {report.kind}", fontweight="bold"
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


def confusion_matrix(result: Result, ax=None):
    """A square for each pair of true and predicted label, the darker the larger its part of the
    true label's texts."""
    ax = _axes(ax)
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
    ax = _axes(ax)
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
    ax = _axes(ax)
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
        _plain_numbers(ax.yaxis)
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


def class_table(report: ClassReport, ax=None):
    """How far each student (a column) is with each exercise (a row): a sign and a shade a cell,
    near-copies framed.

    On the right, the commonest mistake of each exercise and how many made it.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle

    from .exercises import EXERCISES

    rows, names = report.rows, report.exercises
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(
            figsize=(6 + 0.25 * len(rows), 2.5 + 0.2 * len(names)), layout="constrained"
        )
    for y, (above, below) in enumerate(
        itertools.pairwise(EXERCISES[name].chapter for name in names)
    ):
        if above != below:
            ax.axhline(y + 0.5, color="black", linewidth=1, zorder=2)
    used = set()
    for (y, name), (x, row) in itertools.product(enumerate(names), enumerate(rows)):
        state = row.state(name)
        used.add(state)
        sign, shade = STATE_STYLES[state]
        ax.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=shade, edgecolor="0.7", linewidth=0.5)
        )
        ax.text(
            x,
            y,
            sign,
            ha="center",
            va="center_baseline",
            fontsize=8,
            color="white" if state == "right" else "black",
        )
        if name in row.copies:
            ax.add_patch(
                Rectangle(
                    (x - 0.4, y - 0.4),
                    0.8,
                    0.8,
                    fill=False,
                    edgecolor="#e08214",
                    linewidth=2,
                    zorder=3,
                )
            )
    ax.set(xlim=(-0.5, len(rows) - 0.5), ylim=(len(names) - 0.5, -0.5))
    ax.set_xticks(
        range(len(rows)), [f"{row.student} ({row.right})" for row in rows], rotation=90, fontsize=8
    )
    ax.set_yticks(
        range(len(names)), [f"{EXERCISES[name].chapter:02} {name}" for name in names], fontsize=8
    )
    ax.tick_params(length=0)
    common = {
        name: f"{made.mistake} ({made.students})" for name, made in report.commonest().items()
    }
    mistakes = ax.secondary_yaxis("right")
    mistakes.set_yticks(range(len(names)), [common.get(name, "") for name in names], fontsize=8)
    mistakes.tick_params(length=0)
    mistakes.set_ylabel("commonest mistake (how many students)")
    handles = [
        Patch(facecolor=shade, edgecolor="0.5", label=f"{sign}  {state}".strip())
        for state, (sign, shade) in STATE_STYLES.items()
        if state in used
    ]
    if any(row.copies for row in rows):
        frame = {
            "marker": "s",
            "markerfacecolor": "none",
            "markeredgecolor": "#e08214",
            "markeredgewidth": 2,
            "linewidth": 0,
        }
        handles.append(Line2D([], [], label="near-copy", **frame))
    ax.set_xlabel("student (how many are right)")
    ax.get_figure().legend(
        handles=handles, fontsize=8, loc="outside upper center", ncols=len(handles)
    )
    return ax


def _style(phase: str) -> dict:
    style = PHASE_STYLES[phase]
    return {"facecolor": style["color"], "hatch": style["hatch"]}


def training(curves: Sequence[Curve], over: str = "steps", axes=None):
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
