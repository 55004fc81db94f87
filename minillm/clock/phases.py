"""The phases of a cycle, in their order, and how each looks in figures and on a terminal."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """How a phase is drawn: a colour that differs from the others' in lightness too, a hatch of
    matplotlib's, and the number of a terminal's colour (ANSI)."""

    color: str
    hatch: str
    ansi: int


LOOKS = {
    "embed": Look("#fbe5a6", "...", 36),
    "attend": Look("#1f4e79", "", 34),
    "feed forward": Look("#7fb3d9", "", 32),
    "unembed": Look("#e08214", "////", 35),
    "choose": Look("#f2f2f2", "xxxx", 33),
}
PHASES = tuple(LOOKS)
