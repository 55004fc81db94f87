"""Figures of a model's inside: the residual stream, errors by step, cached scores, texts as a
tree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .basics import axes_or_new, phase_style

if TYPE_CHECKING:
    from ..differences import Difference


def residual_norms(trace: Mapping[str, np.ndarray], ax=None):
    """How long the residual stream is after every part of every block, and what each part added:
    Euclidean norms.

    The medians over all positions of a Trace; a grey band holds the middle half of the positions.
    """
    ax, outs = axes_or_new(ax), [name for name in trace if name.endswith((".attn.out", ".mlp.out"))]
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
            **phase_style(phase),
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
    ax, styles = (
        axes_or_new(ax),
        itertools.cycle([("o", 4, "black"), ("s", 7, "none"), ("^", 9, "none")]),
    )
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

    ax, cycles = axes_or_new(ax), np.repeat(np.arange(len(lengths)), lengths)
    styles: dict[str, dict] = {
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
    ax, leaves = (
        axes_or_new(ax),
        [p for p in sorted(probabilities) if not any(q[:-1] == p for q in probabilities)],
    )
    heights = {leaf: float(row) for row, leaf in enumerate(leaves)}
    for length in range(max(map(len, leaves)) - 1, 0, -1):
        for prefix in sorted({leaf[:length] for leaf in leaves if len(leaf) > length}):
            heights[prefix] = float(np.mean([h for p, h in heights.items() if p[:-1] == prefix]))
    for prefix, p in probabilities.items():
        (x, y), (to_x, to_y) = (
            (len(prefix) - 1, heights[prefix[:-1]]),
            (len(prefix), heights[prefix]),
        )
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
            where: dict[str, Any] = (
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
