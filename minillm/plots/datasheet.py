"""Figures of a datasheet: what is predicted, and what was measured of it; and of a class of
machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .basics import axes_or_new, plain_numbers

if TYPE_CHECKING:
    from ..bench.datasheet import Datasheet, Entry
    from ..bench.lab import Lab
    from ..bench.predictions import Point, PredictionErrors

LINES = ("-", "--", "-.", ":", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
MARKS = "osD^vX"
FACES = ("white", "black", "0.6", "0.8", "0.3")  # of marks, by how matrices are stored


def times_by_context(sheet: Datasheet, what: str = "token", ax=None):
    """Milliseconds of a token ("token") against its context, or of a prompt ("first") against its
    length: lines predicted, a kind of storage each, marks measured."""
    ax = axes_or_new(ax)
    _lines(ax, sheet.tokens if what == "token" else sheet.firsts, "context", _ms)
    for kind, mark in zip(sheet.kinds, MARKS):
        points = [p for p in sheet.measured if (p.what, p.kind) == (what, kind) and not p.missing]
        if points:
            at = [p.context for p in points], [1e3 * p.fastest for p in points]
            ax.plot(*at, mark, color="black", markerfacecolor="white", label=f"{kind}, measured")
    ax.set(xscale="log", yscale="log", xlabel="positions", ylabel="ms")
    ax.set_title("A token after a context" if what == "token" else "The first token of a prompt")
    plain_numbers(ax.xaxis)
    plain_numbers(ax.yaxis)
    ax.legend(fontsize="small")
    return ax


def rates_by_batch(sheet: Datasheet, ax=None):
    """Tokens/s of several texts together against their number, a line a kind of storage."""
    ax = axes_or_new(ax)
    _lines(ax, sheet.batches, "batch", lambda entry: entry.rate)
    ax.set(xscale="log", yscale="log", xlabel="texts at once", ylabel="tokens/s together")
    ax.set_title(f"Several texts, {sheet.middle:,} positions each")
    plain_numbers(ax.xaxis)
    plain_numbers(ax.yaxis)
    ax.legend(fontsize="small")
    return ax


def _ms(entry: Entry) -> float:
    return 1e3 * entry.seconds


def _lines(ax, entries: Sequence[Entry], x: str, y) -> None:
    by_kind: dict[str, list[Entry]] = {}
    for entry in entries:
        by_kind.setdefault(entry.kind, []).append(entry)
    for (kind, some), style in zip(by_kind.items(), LINES):
        values = [getattr(entry, x) for entry in some], [y(entry) for entry in some]
        ax.plot(*values, linestyle=style, color="black", linewidth=1.2, label=kind)


def datasheet_page(sheet: Datasheet):
    """All of a datasheet on one figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    one, two, three = figure.subplots(1, 3)
    times_by_context(sheet, "token", one)
    times_by_context(sheet, "first", two)
    rates_by_batch(sheet, three)
    return figure


def predicted_against_measured(report: PredictionErrors, ax=None):
    """Predicted against measured seconds, a mark for each pass; filled where the model was fitted
    on, and lines at 25 % more and less."""
    ax, points = axes_or_new(ax), [p for p in report.points if not p.missing]
    groups: dict[tuple[str, bool], list[Point]] = {}
    for p in points:
        groups.setdefault((p.engine, p.model in report.fitted_on), []).append(p)
    marks = dict(zip(dict.fromkeys(p.engine for p in points), MARKS))
    for (engine, fitted), some in groups.items():
        values = [p.fastest for p in some], [p.forecast for p in some]
        face = "black" if fitted else "white"
        label = f"{engine}, {'fitted' if fitted else 'tested'}"
        ax.plot(*values, marks[engine], color="black", markerfacecolor=face, label=label)
    ends = np.array(ax.get_xlim())
    ends[0] = min(p.fastest for p in points) / 1.5
    for times, style in ((1, "-"), (1.25, ":"), (0.75, ":")):
        ax.plot(ends, times * ends, style, color="0.5", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="measured, s", ylabel="predicted, s")
    ax.set_title("Predicted and measured (dotted: 25 % off)")
    ax.legend(fontsize="small")
    return ax


def class_roofline(labs: Sequence[Lab], ax=None):
    """FLOP/s against FLOP for each byte: marks where each machine decodes, one for each context,
    filled by how matrices are stored, and its roofs, with the mark at their ends: of memory and
    products of many rows in float32, and, dashed, of the caches for each kind that is read from
    them, and its products of one row."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ax, x = axes_or_new(ax), np.geomspace(0.1, 1000, 200)
    tokens = [row for lab in labs for row in lab.rows if row["what"] == "token"]
    faces = dict(zip(dict.fromkeys(row["kind"] for row in tokens), _again(FACES)))
    machines = []
    for lab, mark in zip(labs, _again(MARKS)):
        far = "-", "none", lab.bandwidth, lab.rate
        near = [("--", faces[kind], *roof) for kind, roof in lab.in_caches.items()]
        for style, face, bandwidth, rate in (far, *near):
            roof = np.minimum(rate, bandwidth * x) / 1e9
            ends: dict = {"marker": mark, "markersize": 4, "markevery": [0, len(x) - 1]}
            ax.plot(x, roof, style, color="0.45", linewidth=1, markerfacecolor=face, **ends)
        for row in lab.rows:
            if row["what"] == "token":
                at = row["flops"] / row["bytes"], row["flops"] / min(row["seconds"]) / 1e9
                ax.plot(*at, mark, color="black", markerfacecolor=faces[row["kind"]])
        look: dict = {"color": "black", "markerfacecolor": "none", "linestyle": "none"}
        machines.append(Line2D([], [], marker=mark, label=lab.label, **look))
    ax.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="GFLOP/s")
    plain_numbers(ax.xaxis)
    plain_numbers(ax.yaxis)
    contexts = ", ".join(f"{n:,}" for n in sorted({row["context"] for row in tokens}))
    after = f", and tokens after contexts of {contexts}" if tokens else ""
    ax.set_title(f"Roofs of a class's machines{after}")
    stored: list = [Patch(facecolor=f, edgecolor="black", label=kind) for kind, f in faces.items()]
    roofs: dict[Any, str] = {"-": "from memory; many rows in float32"}
    if any(lab.in_caches for lab in labs):
        roofs["--"] = "from the caches; one row of its kind"
    for style, what in roofs.items():
        stored.append(Line2D([], [], linestyle=style, color="0.45", linewidth=1, label=what))
    small = {"fontsize": "x-small", "title_fontsize": "x-small", "alignment": "left"}
    names = ax.legend(handles=machines, title="mark: machine", loc=2, **small)
    for name in names.get_texts():
        name.set_parse_math(False)  # a file's name may have dollars
    ax.add_artist(names)
    ax.legend(handles=stored, title="fill: matrices in; line: roof", loc=4, **small)
    return ax


def _again(some: Sequence):
    """Its items, again and again."""
    while True:
        yield from some
