"""A class measures: a file from each laptop, and all of them in one table and one roofline.

A file says what the machine is and can do, what is predicted of one model, and what was measured;
no user, no name of the machine, no path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from ..clock.costs import step_costs
from ..clock.machines import LONGEST, Machine
from ..clock.verdict import duration
from ..costs import FLOAT, total
from ..errors import InputError, short
from ..machine.files import read_json
from ..machine.forms import check
from .datasheet import CACHED, TOKEN, Datasheet
from .predictions import Point

VERSION = 1
MOST = 1e18  # of a figure in a file
HEADINGS = ("machine", "GB/s", "GFLOP/s", "engine", "kind", "pass", "context")
HEADINGS += ("measured", "predicted", "error")


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
    """A laptop's file; datasheet: as `minillm datasheet --json` has it, and not read again."""

    version: int
    model: str
    machine: dict[str, object]
    datasheet: dict[str, object]
    rows: list[RowEntry]


@dataclass(frozen=True)
class Lab:
    """What a laptop's file holds. label: a number and the processor."""

    label: str
    model: str
    machine: Machine
    rows: list[RowEntry]

    @property
    def bandwidth(self) -> float:
        """Bytes/s read from memory."""
        bandwidth = self.machine.limits[-1].bandwidth
        return bandwidth[max(bandwidth)]

    @property
    def rate(self) -> float:
        """FLOP/s of products with many rows in float32."""
        return self.machine.limits[-1].rows["float32"]


def to_dict(sheet: Datasheet) -> LabEntry:
    """What a laptop's file says: a datasheet with what was measured of it."""
    rows = [_row(sheet, point) for point in sheet.measured if not point.missing]
    if not rows:
        why = next((p.missing for p in sheet.measured if p.missing), "it was not tried")
        raise InputError(f"nothing could be measured: {why}")
    return {
        "version": VERSION,
        "model": sheet.name,
        "machine": sheet.machine.to_dict(),
        "datasheet": sheet.to_dict(),
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


def read(path: str | Path, number: int) -> Lab:
    """Read a laptop's file; InputError names it, and what in it cannot be."""
    entry = read_json(path, dict)
    if "version" not in entry or "rows" not in entry:
        raise InputError(f"{path}: not a file that `minillm lab` writes")
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
    machine = Machine.from_dict(entry["machine"], f"{path}: machine")
    return Lab(f"{number}: {machine.name}", entry["model"], machine, entry["rows"])


def read_all(paths: Sequence[str | Path]) -> list[Lab]:
    """Read the files of a class; InputError where they are of different models."""
    labs = [read(path, number) for number, path in enumerate(paths, 1)]
    for path, lab in zip(paths, labs):
        if lab.model != labs[0].model:
            raise InputError(
                f"{path} is of {short(lab.model)}, {paths[0]} of {short(labs[0].model)}: a class"
                " compares one model"
            )
    return labs


def error(row: RowEntry) -> float:
    """predicted / measured - 1, of the fastest round."""
    return row["predicted"] / min(row["seconds"]) - 1


def table(labs: Sequence[Lab]) -> list[tuple[str, ...]]:
    """The rows of a table below HEADINGS: every pass of every laptop."""
    return [
        (
            lab.label,
            f"{lab.bandwidth / 1e9:,.1f}",
            f"{lab.rate / 1e9:,.0f}",
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
        {"machine": lab.label, "bandwidth": lab.bandwidth, "rate": lab.rate}
        | {n: v for n, v in row.items() if n in RowEntry.__annotations__}  # not what else it says
        | {"error": error(row)}
        for lab in labs
        for row in lab.rows
    ]
