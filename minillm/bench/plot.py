"""The ledger as a picture: speed against quality."""

from __future__ import annotations

from collections.abc import Sequence

from .ledger import Entry, frontier


def speed_against_quality(entries: Sequence[Entry], ax=None):
    """Draw the change of bits per byte over decode tokens/s, a point a lever, and the frontier; return the axes.

    Exact levers are filled. The vertical scale is linear within 0.1 % and logarithmic beyond, since levers cost from
    nothing to everything. Labels stand in columns of their own, in the order of speed, tied to their points.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(9, 6), layout="constrained")[1]
    shown = sorted((e for e in entries if e.decode and e.change is not None), key=lambda e: e.rate("decode"))
    for exact, face, label in ((True, "black", "exact"), (False, "white", "not exact")):
        some = [e for e in shown if bool(e.proof) == exact]
        points = [e.rate("decode") for e in some], [100 * e.change for e in some]
        ax.scatter(*points, s=36, facecolors=face, edgecolors="black", label=label, zorder=3)
    for number, e in enumerate(shown):
        ax.annotate(
            e.levers, (e.rate("decode"), 100 * e.change), ((number + 0.5) / len(shown), 1.02), textcoords="axes fraction",
            rotation=60, fontsize=8, arrowprops={"arrowstyle": "-", "color": "0.8", "lw": 0.7, "relpos": (0, 0)},
        )  # fmt: skip
    edge = frontier(shown)
    path = [e.rate("decode") for e in edge], [100 * e.change for e in edge]
    ax.plot(*path, "--", color="0.4", lw=1, label="frontier: none is faster and better")
    ax.set(xlabel="decode, tokens/s", ylabel="bits per byte, change in %", xscale="log")
    ax.set_yscale("symlog", linthresh=0.1)
    ax.margins(0.08)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="center left")
    return ax
