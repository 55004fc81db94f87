"""A class measures: a file from each laptop, and all of them in tables and one roofline.

A file says what the machine is and can do, what is predicted of one model, and what was measured;
no user, no name of the machine, no path.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from ..clock.costs import step_costs
from ..clock.machines import LONGEST, Machine
from ..clock.verdict import duration, percent, size
from ..costs import FLOAT, total
from ..errors import InputError, short
from ..machine.files import read_json
from ..machine.forms import check
from .datasheet import CACHED, FIRST, TOKEN, Datasheet
from .predictions import Point

VERSION = 1
MOST = 1e18  # of a figure in a file
MACHINES = ("machine", "others took", "GB/s", "GFLOP/s")
HEADINGS = ("machine", "engine", "kind", "pass", "context", "measured", "predicted", "error")
WIDTH = 100  # columns of what is shown


class RowEntry(TypedDict):
    """One pass: what it has to do, seconds predicted, and measured, of each round."""

    engine: str
    kind: str
    what: str
    context: int
    flops: float
    bytes: float
    predicted: float
    seconds: list[float]


class LabEntry(TypedDict):
    """A laptop's file. busy: the share of the processors that others took meanwhile, 0 to 1, None
    where the system does not say. datasheet: as `minillm datasheet --json` has it, without what was
    measured, and not read again."""

    version: int
    model: str
    busy: NotRequired[float | None]
    machine: dict[str, object]
    datasheet: dict[str, object]
    rows: list[RowEntry]


@dataclass(frozen=True)
class Lab:
    """What a laptop's file holds. label: a number, the processor, and the file's name."""

    label: str
    model: str
    machine: Machine
    rows: list[RowEntry]
    busy: float | None = None

    @property
    def bandwidth(self) -> float:
        """Bytes/s read from memory."""
        bandwidth = self.machine.limits[-1].bandwidth
        return bandwidth[max(bandwidth)]

    @property
    def rate(self) -> float:
        """FLOP/s of products with many rows in float32."""
        return self.machine.limits[-1].rows["float32"]

    @property
    def in_caches(self) -> dict[str, tuple[float, float]]:
        """{kind: (bytes/s, FLOP/s)} of tokens whose bytes come from the caches, and of products
        with one row: where contexts differ, the highest."""
        limits, found = self.machine.limits[-1], dict[str, tuple[float, float]]()
        for row in self.rows:
            kind, nbytes = row["kind"], row["bytes"]
            if row["what"] == TOKEN and limits.in_caches(nbytes):
                roof = limits.bandwidth_at(nbytes), limits.row[kind]
                found[kind] = max(roof, found.get(kind, roof))
        return found


def to_dict(sheet: Datasheet, busy: float | None = None) -> LabEntry:
    """What a laptop's file says: a datasheet with what was measured of it, and how busy others were
    meanwhile."""
    rows = [_row(sheet, point) for point in sheet.measured if not point.missing]
    if not rows:
        why = next((p.missing for p in sheet.measured if p.missing), "it was not tried")
        raise InputError(f"nothing could be measured: {why}")
    datasheet = sheet.to_dict()
    del datasheet["measured"]  # which the rows say
    return {
        "version": VERSION,
        "model": sheet.name,
        "busy": busy,
        "machine": sheet.machine.to_dict(),
        "datasheet": datasheet,
        "rows": rows,
    }


def _row(sheet: Datasheet, point: Point) -> RowEntry:
    T, past = (1, point.context - 1) if point.what == TOKEN else (point.context, 0)
    cached = CACHED.get(point.engine, FLOAT)
    cost = total(step_costs(sheet.config, T, past, 1, point.kind, cached=cached).values())
    return {
        "engine": point.engine,
        "kind": point.kind,
        "what": point.what,
        "context": point.context,
        "flops": cost.flops,
        "bytes": cost.bytes,
        "predicted": point.forecast,
        "seconds": point.seconds,
    }


def summary(sheet: Datasheet) -> list[str]:
    """What was measured, in a line for each kind: how fast weights are read, and the times of the
    longest context."""
    lines = []
    for kind, nbytes in sheet.weights.items():
        if points := [p for p in sheet.measured if p.kind == kind and not p.missing]:
            n = max(p.context for p in points)
            took = {p.what: duration(p.fastest) for p in points if p.context == n}
            where = "the caches" if sheet.limits.in_caches(nbytes) else "memory"
            lines.append(
                f"{kind}: weights at {size(sheet.limits.bandwidth_at(nbytes))}/s from {where};"
                f" after a prompt of {n:,} the first token {took[FIRST]}, the next {took[TOKEN]}"
                " each"
            )
    return lines


def shown(entry: Mapping[str, Any], name: str = "") -> list[str]:
    """All that a file says, in lines: tables as such, numbers to three digits, texts in full."""
    here = {key: value for key, value in entry.items() if not _has_records(value)}
    lines = _paragraph(name, here)
    for key, value in entry.items():
        if key not in here:
            view = shown if isinstance(value, dict) else _records
            lines += view(value, f"{name}.{key}" if name else key)
    return lines


def _has_records(value: object) -> bool:
    """Whether a table is to be made of it, or of something in it."""
    if isinstance(value, dict):
        return any(map(_has_records, value.values()))
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _records(records: Sequence[Any], name: str) -> list[str]:
    """Records of the same keys as a table, and what is the same in all of them once, above it; any
    others as paragraphs."""
    first = records[0]
    alike = all(isinstance(record, dict) and record.keys() == first.keys() for record in records)
    if len(records) == 1 or not alike or any(isinstance(v, dict) for v in first.values()):
        numbered = enumerate(records, 1)
        return [line for n, record in numbered for line in _paragraph(f"{name} {n}", record)]
    keys = [key for key in first if any(r[key] != first[key] for r in records)] or [*first]
    same = {key: value for key, value in first.items() if key not in keys}
    cells = [keys, *([_words(record[key]) for key in keys] for record in records)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    head, *rows = ("  " + "  ".join(map(str.ljust, row, widths)) for row in cells)
    beside = max(1, min(WIDTH // len(head), len(rows)))  # as many side by side as there is room for
    height = -(-len(rows) // beside)
    lines = [head * beside, *("".join(rows[i::height]) for i in range(height))]
    return [*(_paragraph(name, same) if same else [f"{name}:"]), *(line.rstrip() for line in lines)]


def _paragraph(name: str, value: object) -> list[str]:
    text = f"{name}: {_words(value)}" if name else _words(value)
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _words(value: object) -> str:
    """A value in one line; a text is in quotes where its end could be mistaken."""
    if isinstance(value, dict):
        pairs = ((key, _words(v), v and isinstance(v, dict)) for key, v in value.items())
        words = ", ".join(f"{key} ({v})" if inside else f"{key} {v}" for key, v, inside in pairs)
        return words or "none"
    if isinstance(value, list | tuple):
        inside = (f"[{_words(v)}]" if isinstance(v, list | tuple) else _words(v) for v in value)
        return " ".join(inside) or "none"
    if isinstance(value, str):
        plain = value.isprintable() and value and not set(value) & set(',()[]"')
        return value if plain else json.dumps(value, ensure_ascii=False)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def read(path: str | Path, number: int) -> Lab:
    """Read a laptop's file; InputError names it, and what in it cannot be."""
    entry = read_json(path, dict)
    if "version" not in entry or "rows" not in entry:
        a_machine = "limits" in entry and "fitted" in entry
        but = ", but a machine's, as of `minillm datasheet --save-machine`" if a_machine else ""
        raise InputError(f"{path}: not a file that `minillm lab` writes{but}")
    if entry["version"] != VERSION:
        raise InputError(
            f"{path}: of version {short(entry['version'])}; `minillm lab` writes {VERSION}"
        )
    entry = check(entry, LabEntry, path)
    texts = [entry["model"], *(row[n] for row in entry["rows"] for n in ("engine", "kind", "what"))]
    if wrong := [text for text in texts if len(text) > LONGEST or not text.isprintable()]:
        raise InputError(f"{path}: {short(wrong[0])} is no name")
    if not entry["rows"]:
        raise InputError(f"{path}: nothing was measured")
    for row in entry["rows"]:
        figures = [row["flops"], row["bytes"], row["predicted"], row["context"], *row["seconds"]]
        if not row["seconds"] or not all(1 / MOST <= n <= MOST for n in figures):
            raise InputError(f"{path}: a figure of {short(row)} is 0 or less, or beyond {MOST:g}")
    if not 0 <= (busy := entry.get("busy") or 0.0) <= 1:
        raise InputError(f"{path}: busy is {busy}; it must be a share, 0 to 1")
    machine = Machine.from_dict(entry["machine"], f"{path}: machine")
    for row in entry["rows"]:
        if row["kind"] not in machine.limits[-1].row:
            raise InputError(f"{path}: machine: it has no rate of {short(row['kind'])}")
    file = Path(path).name.encode(errors="replace").decode()
    label = f"{number}: {machine.name} ({file})"
    return Lab(label, entry["model"], machine, entry["rows"], entry.get("busy"))


def read_all(paths: Sequence[str | Path]) -> list[Lab]:
    """Read the files of a class; InputError where one comes twice, or they are of different
    models."""
    labs = [read(path, number) for number, path in enumerate(paths, 1)]
    places = [Path(path).resolve() for path in paths]
    for path, place, lab in zip(paths, places, labs):
        if (times := places.count(place)) > 1:
            raise InputError(f"{path} is given {times} times; once is enough")
        if lab.model != labs[0].model:
            raise InputError(
                f"{path} is of {short(lab.model)}, {paths[0]} of {short(labs[0].model)}: a class"
                " compares one model"
            )
    return labs


def error(row: RowEntry) -> float:
    """predicted / measured - 1, of the fastest round."""
    return row["predicted"] / min(row["seconds"]) - 1


def machines(labs: Sequence[Lab]) -> list[tuple[str, ...]]:
    """The rows of a table below MACHINES: every laptop."""
    return [
        (
            lab.label,
            "-" if lab.busy is None else percent(lab.busy),
            f"{lab.bandwidth / 1e9:,.1f}",
            f"{lab.rate / 1e9:,.0f}",
        )
        for lab in labs
    ]


def table(labs: Sequence[Lab]) -> list[tuple[str, ...]]:
    """The rows of a table below HEADINGS: every pass of every laptop, by its number."""
    return [
        (
            lab.label.partition(":")[0],
            row["engine"],
            row["kind"],
            row["what"],
            f"{row['context']:,}",
            duration(min(row["seconds"])),
            duration(row["predicted"]),
            f"{100 * error(row):+.0f} %",
        )
        for lab in labs
        for row in lab.rows
    ]


def values(labs: Sequence[Lab]) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [
        {"machine": lab.label}
        | {n: getattr(lab, n) for n in ("busy", "bandwidth", "rate")}
        | {n: v for n, v in row.items() if n in RowEntry.__annotations__}  # not what else it says
        | {"error": error(row)}
        for lab in labs
        for row in lab.rows
    ]
