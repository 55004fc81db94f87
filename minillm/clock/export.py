"""The times in Chrome's trace format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Source: "Trace Event Format" (Google, 2016): complete events ("X") nest by their times, counters
("C") draw curves.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..machine.files import write_atomically
from ..steps import phase_of
from .report import ClockReport


def trace_events(report: ClockReport, bytes_per_position: int) -> dict:
    """Return the trace: a cycle holds embed, layers and the rest, a layer its operations; times in
    us from the start.

    Counters: the cache's bytes (bytes_per_position of it for each row) and the reference cycles of
    each cycle.
    """
    events = [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 1, "args": {"name": "minillm"}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": {"name": "decoding loop"}},
    ]
    for number, cycle in enumerate(report.cycles):
        text = report.texts[number] if number < len(report.texts) else ""
        about = {
            "cycle": number,
            "text": text,
            "rows": cycle.rows,
            "positions": cycle.positions,
            "past": cycle.past,
        }
        events.append(_complete(cycle.kind, "cycle", cycle.start, cycle.end, about))
        begins = [cycle.start, *cycle.ends[:-1].tolist()]
        layers: dict[
            str, list[float]
        ] = {}  # "h.0": [begin, end]; operations of a layer follow each other
        operations = []
        for name, begin, end in zip(cycle.names, begins, cycle.ends.tolist()):
            if name.startswith("h."):
                layer = ".".join(name.split(".", 2)[:2])
                layers.setdefault(layer, [begin, end])[1] = end
            operations.append(
                _complete(name, phase_of(name), begin, end, {"phase": phase_of(name)})
            )
        events += [_complete(n, "layer", begin, end, {}) for n, (begin, end) in layers.items()]
        events += operations
        held = bytes_per_position * cycle.rows
        ticks = round((cycle.end - cycle.start) * report.ticks_per_second / 1e9)
        if cycle.kind != "draft":  # whose cache is another
            events.append(_counter("cache", cycle.start, {"bytes": held * cycle.past}))
            events.append(
                _counter("cache", cycle.end, {"bytes": held * (cycle.past + cycle.positions)})
            )
        events.append(_counter("reference", cycle.start, {"cycles": ticks}))
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"clock": report.source}}


def write_trace(report: ClockReport, bytes_per_position: int, path: str | Path) -> None:
    """Write the trace as JSON, all or nothing."""
    write_atomically(Path(path), json.dumps(trace_events(report, bytes_per_position)).encode())


def _complete(name: str, category: str, begin: float, end: float, args: dict) -> dict:
    """An event with a beginning and a duration. Both ends are whole ns, so that what nests still
    does when rounded."""
    begin, end = round(begin), round(end)
    about = {"name": name, "cat": category, "pid": 1, "tid": 1, "args": args}
    return {"ph": "X", "ts": begin / 1e3, "dur": (end - begin) / 1e3, **about}


def _counter(name: str, at: float, values: dict) -> dict:
    """The values of a curve from `at` on; a viewer calls it by the name and that of the value."""
    return {"ph": "C", "name": name, "ts": round(at) / 1e3, "pid": 1, "args": values}
