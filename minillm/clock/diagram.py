"""The timing diagram: a row for each phase and a column for each cycle, as one draws a clocked
circuit; a plain decode cycle is a moment, a draft is none, and a verify cycle brings several.

All columns are equally wide however long their cycles took (the last line says how long), so that a
cycle's share is what one sees. A cell's height is the part of its time in which the phase was at
work: where layers are shorter than a cell, attend and feed forward share it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from ..steps import phase_of
from .clock import CycleTimes
from .phases import LOOKS, PHASES

LEVELS, CORNERS = "▁▂▃▄▅▆▇█", "┌─┐┘└"
ASCII_LEVELS, ASCII_CORNERS = "_.:-=+*#", "+-+++"
MARGIN, COLUMN = 14, 11  # characters of the names and of a column
BANDS = 4  # how many times the page is filled


def activity(cycle: CycleTimes, cells: int) -> dict[str, np.ndarray]:
    """Return for each phase the share of each of `cells` equal parts of the cycle in which it was
    at work."""
    edges = np.linspace(cycle.start, cycle.end, cells + 1)
    begins = np.concatenate([[cycle.start], cycle.ends[:-1]])
    shares = {phase: np.zeros(cells) for phase in PHASES}
    for name, begin, end in zip(cycle.names, begins, cycle.ends):
        shares[phase_of(name)] += np.clip(
            np.minimum(end, edges[1:]) - np.maximum(begin, edges[:-1]), 0, None
        )
    return {
        phase: share * cells / max(cycle.end - cycle.start, 1e-9) for phase, share in shares.items()
    }


def diagram(report, width: int = 100, colour: bool = False, unicode: bool = True) -> str:
    """Return the diagram of a ClockReport, `width` characters wide, at most BANDS bands of moments
    below each other."""
    levels, corners = (LEVELS, CORNERS) if unicode else (ASCII_LEVELS, ASCII_CORNERS)
    texts = [*report.texts, *[""] * len(report.cycles)][: len(report.cycles)]
    columns = max(1, (width - MARGIN) // COLUMN)
    moments, bands = _moments(report.cycles), []
    for first in range(0, min(len(report.cycles), columns * BANDS), columns):
        part = slice(first, first + columns)
        bands.append(
            _band(report.cycles[part], texts[part], moments[part], levels, corners, colour)
        )
    hidden = len(report.cycles) - columns * BANDS
    how = (
        "Columns are cycles, all equally wide. A bar is as high as the phase was long at work in"
        " that tenth of the cycle."
    )
    bands.append(textwrap.fill(how, width))
    bands += [f"... and {hidden} more cycles"] if hidden > 0 else []
    return "\n\n".join(bands)


def _band(
    cycles: Sequence[CycleTimes],
    texts: Sequence[str],
    moments: Sequence[str],
    levels,
    corners,
    colour,
) -> str:
    width = COLUMN - 1  # a blank stands between columns, but not in the wave
    up, flat, down, fall, rise = corners
    high, low = COLUMN // 2, COLUMN - COLUMN // 2

    def line(name, cells, wave=False):
        return (
            f"{name:<{MARGIN}}"
            + "".join(f"{cell:<{COLUMN}}" for cell in cells).rstrip() * (not wave)
            + "".join(cells) * wave
        )

    lines = [
        line("moment", moments),
        line("", [shortened(text, width) if text else "" for text in texts]),
        line("cycle", [c.kind + (f" {c.positions}" if c.positions > 1 else "") for c in cycles]),
        line(
            "clock", [up + flat * (high - 2) + down + " " * low for _ in cycles], wave=True
        ).rstrip(),
        line(
            "",
            [
                (fall if i else " ") + " " * (high - 2) + rise + flat * low
                for i in range(len(cycles))
            ],
            wave=True,
        ),
    ]
    rows = [activity(cycle, width) for cycle in cycles]
    for phase in PHASES:
        cells = [
            "".join(levels[_level(share, len(levels))] for share in row[phase]) for row in rows
        ]
        drawn = " ".join(
            f"\x1b[{LOOKS[phase].ansi}m{cell}\x1b[0m" if colour else cell for cell in cells
        )
        lines.append(f"{phase:<{MARGIN}}{drawn}")
    lines.append(line("", [duration(c.end - c.start) for c in cycles]))
    return "\n".join(lines)


def _moments(cycles: Sequence[CycleTimes]) -> list[str]:
    """The numbers of each cycle's moments: "0", "", "1-3"."""
    ends = np.cumsum([cycle.moments for cycle in cycles]).tolist()
    return [
        f"{end - n}-{end - 1}" if n > 1 else str(end - 1) if n else ""
        for n, end in zip((c.moments for c in cycles), ends)
    ]


def _level(share: float, n: int) -> int:
    """0 for no activity, at least 1 for any that can matter, n - 1 for all the time."""
    return 0 if share < 1e-3 else max(1, round(min(share, 1.0) * (n - 1)))


def shortened(text: str, width: int) -> str:
    """The text in quotes, its middle left out where it is too long; line ends are shown as \\n."""
    shown = repr(text)
    return shown if len(shown) <= width else shown[: width - 3] + "..."


def duration(ns: float) -> str:
    """Three digits and a unit: 1,234,567 ns -> 1.23 ms."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 1000 * size else f"{ns / size:,.0f} {unit}"
    return f"{ns:.0f} ns"
