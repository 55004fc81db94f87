"""The ledger as a picture: speed against quality."""

from __future__ import annotations

from collections.abc import Sequence

from .ledger import Entry, frontier


def speed_against_quality(entries: Sequence[Entry], ax=None):
    """Draw bits per byte over decode tokens/s, a point a lever, and the frontier; return the axes. Exact ones are filled."""
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 5), layout="constrained")[1]
    shown = sorted((e for e in entries if e.decode and e.bits_per_byte), key=lambda e: e.rate("decode"))
    for exact, face, label in ((True, "black", "exact"), (False, "white", "not exact")):
        some = [e for e in shown if bool(e.proof) == exact]
        points = [e.rate("decode") for e in some], [e.bits_per_byte for e in some]
        ax.scatter(*points, s=36, facecolors=face, edgecolors="black", label=label, zorder=3)
    for number, e in enumerate(shown):  # neighbours of the same height would write over each other
        offset = (0, 9 + 11 * (number % 3))
        style = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
        ax.annotate(e.levers, (e.rate("decode"), e.bits_per_byte), xytext=offset, **style)
    edge = frontier(shown)
    label = "frontier: none is faster and better"
    ax.plot([e.rate("decode") for e in edge], [e.bits_per_byte for e in edge], "--", color="0.5", lw=1, label=label)
    ax.set(xlabel="decode, tokens/s", ylabel="bits per byte (less is better)", xscale="log")
    ax.margins(0.12)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax
