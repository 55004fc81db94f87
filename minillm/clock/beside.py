"""Two clocks on one time scale: the same model and text in two engines, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping

from .phases import PHASES
from .report import ClockReport

WIDTH = 50  # characters of the longest bar


def beside(reports: Mapping[str, ClockReport], mark: str = "█") -> list[str]:
    """Return lines: for each phase of a decode cycle a bar and the ms of either engine, {name:
    report}; then who is faster where."""
    if not all(report.decode for report in reports.values()):
        return ["nothing to put side by side: a token after the first is needed"]
    times = {
        name: {row.phase: row.decode / 1e6 for row in report.rows if not row.part}
        for name, report in reports.items()
    }
    scale = WIDTH / max(max(ms[phase] for phase in PHASES) for ms in times.values())
    margin, room = (max(map(len, names)) for names in (PHASES, times))
    lines = ["a decode cycle, in ms (medians)"]
    for phase in (*PHASES, "cycle"):
        for i, (name, ms) in enumerate(times.items()):
            bar = mark * round(scale * ms[phase]) * (phase != "cycle")
            head = phase if i == 0 else ""
            lines.append(f"{head:<{margin}}  {name:<{room}} {ms[phase]:>9,.3f}  {bar}".rstrip())
    return [*lines, verdict(times)]


def verdict(times: Mapping[str, Mapping[str, float]]) -> str:
    """Say which of two engines is faster, by how much, and in which phases; times: ms by engine and
    phase."""
    (one, a), (other, b) = times.items()
    if a["cycle"] > b["cycle"]:
        (one, a), (other, b) = (other, b), (one, a)
    gains = {phase: b[phase] - a[phase] for phase in PHASES}

    def listed(sign: int) -> str:
        some = sorted((p for p in PHASES if sign * gains[p] > 0), key=lambda p: -sign * gains[p])
        return ", ".join(f"{p} {sign * gains[p]:,.3f} ms" for p in some)

    less = 1 - a["cycle"] / b["cycle"]
    won = f"gains in {listed(1)}" if listed(1) else "gains nowhere"
    lost = f"; it loses in {listed(-1)}" if listed(-1) else ", and loses nowhere"
    return f"{one} takes {less:.0%} less than {other}: it {won}{lost}"
