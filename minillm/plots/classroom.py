"""The figure of a class: how far each student is with each exercise."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..exercises.teacher.report import ClassReport

# How far a student is with an exercise: a sign, and a shade.
STATE_STYLES = {
    "not started": ("", "white"),
    "does not run": ("!", "0.92"),
    "wrong shape": ("□", "0.8"),
    "wrong values": ("≠", "0.65"),
    "right": ("✓", "#1f4e79"),
    "not checked": ("?", "white"),
}


def class_table(report: ClassReport, ax=None):
    """How far each student (a column) is with each exercise (a row): a sign and a shade a cell,
    near-copies framed.

    On the right, if any, the commonest mistake of each exercise and how many made it.
    """
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle

    from ..exercises import EXERCISES

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
    if common:
        mistakes = ax.secondary_yaxis("right")
        mistakes.set_yticks(range(len(names)), [common.get(name, "") for name in names], fontsize=8)
        mistakes.tick_params(length=0)
        mistakes.set_ylabel("commonest mistake\n(how many students)", fontsize=8)
    handles: list[Artist] = [
        Patch(facecolor=shade, edgecolor="0.5", label=f"{sign}  {state}".strip())
        for state, (sign, shade) in STATE_STYLES.items()
        if state in used
    ]
    if any(row.copies for row in rows):
        frame: dict = {
            "marker": "s",
            "markerfacecolor": "none",
            "markeredgecolor": "#e08214",
            "markeredgewidth": 2,
            "linewidth": 0,
        }
        handles.append(Line2D([], [], label="near-copy", **frame))
    ax.set_xlabel("student (how many are right)")
    ax.figure.legend(handles=handles, fontsize=8, loc="outside upper center", ncols=len(handles))
    return ax
