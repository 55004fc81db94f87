"""The scope of a recording, as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..clock.diagram import shortened
from ..clock.phases import PHASES
from ..steps import phase_of
from .basics import axes_or_new, phase_style

if TYPE_CHECKING:
    from ..recording import Recording

MOST_WORDS = 60  # above a figure


def scope(recording: Recording, ax=None):
    """When each phase was at work, a lane for each, and the words over the cycles that brought
    them; time in ms."""
    ax, header, ends = axes_or_new(ax), recording.header, recording.arrays["times.ends"]
    spans: dict[str, list[tuple[float, float]]] = {phase: [] for phase in PHASES}
    for number, cycle in enumerate(header["cycles"]):
        names, own = header["names"][cycle["names"]], ends[recording.intervals(number)]
        for name, begin, end in zip(names, np.append(0, own[:-1]), own):
            at = (cycle["start"] + begin) / 1e6
            spans[phase_of(name)].append((at, (end - begin) / 1e6))
        ax.axvline(cycle["end"] / 1e6, color="black", linewidth=0.5, linestyle=":")
    for row, phase in enumerate(PHASES):
        place = (row - 0.38, 0.76)
        ax.broken_barh(spans[phase], place, edgecolor="black", linewidth=0.2, **phase_style(phase))
    for moment in header["moments"][:MOST_WORDS]:
        cycle = header["cycles"][moment["cycle"]]
        word = shortened(header["tokens"][str(moment["id"])], 12).replace("$", r"\$")
        ax.annotate(
            word,
            ((cycle["start"] + cycle["end"]) / 2e6, -0.6),
            ha="left",
            va="bottom",
            rotation=60,
            fontsize="x-small",
            annotation_clip=False,
        )
    ax.set_yticks(range(len(PHASES)), PHASES)
    ax.set_ylim(len(PHASES) - 0.5, -0.5)
    ax.set_xlim(0, header["cycles"][-1]["end"] / 1e6)
    ax.set_xlabel("time since the prompt (ms)")
    ax.spines[["top", "right"]].set_visible(False)
    return ax
