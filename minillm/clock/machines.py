"""Machines as values and files: this one, as measured, and others, as their makers publish them.

A file has the limits of a machine, once for each number of threads, and what each engine was found
to make of them. Published figures are what a processor can do at best; no engine was ever measured
on it here, so that what is predicted of it is a bound.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from ..errors import InputError, short
from ..machine.files import read_json, write_atomically
from ..machine.forms import check
from ..machine.load import undisturbed
from ..machine.memory import total_bytes
from ..machine.progress import Update
from ..twins.threads import n_threads, set_threads
from ..weights import KINDS
from .limits import FAR, MOST, Limits, measure

VERSION = 2
PUBLISHED = Path(__file__).with_name("machines.json")
LONGEST = 200  # characters of a name or a source
MOST_LIMITS = 64  # numbers of threads in a file


class ConstantsEntry(TypedDict):
    """See Constants."""

    reading: float
    arithmetic: float
    node: float
    models: list[str]


class MachineEntry(TypedDict):
    """A machine's file; fitted: by engine, kind of storage, and pass."""

    version: int
    name: str
    source: str
    measured: bool
    memory: int | None
    limits: list[dict[str, object]]
    fitted: dict[str, dict[str, dict[str, ConstantsEntry]]]


class PublishedEntry(TypedDict):
    """What a maker says: bytes of memory, bytes/s, and FLOP/s of products in 32 and in 16 bits."""

    name: str
    source: str
    memory: int
    bandwidth: float
    float32: float
    float16: float


@dataclass(frozen=True)
class Constants:
    """What an engine makes of a machine: it reads and computes `reading` and `arithmetic` times as
    long as the limits need (0: beside all else), and each node of its graph takes `node` seconds
    besides. models: of which it was fitted."""

    reading: float
    arithmetic: float
    node: float
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """name: of the processor. source: "measured here", or where the figures are published. memory:
    bytes that it has. limits: by rising numbers of threads. fitted: {(engine, kind, pass):
    Constants}, a pass being "token" or "first"."""

    name: str
    source: str
    measured: bool
    memory: int | None
    limits: tuple[Limits, ...]
    fitted: Mapping[tuple[str, str, str], Constants] = field(default_factory=dict)

    @property
    def threads(self) -> list[int]:
        """For how many threads there are limits."""
        return [limits.threads for limits in self.limits]

    def limits_of(self, threads: int | None = None) -> Limits:
        """The limits for so many threads, by default for the most; InputError for others."""
        for limits in self.limits[::-1]:
            if threads in (None, limits.threads):
                return limits
        known = ", ".join(map(str, self.threads))
        raise InputError(f"{short(self.name)} has no limits for {threads} threads, but for {known}")

    def with_fitted(self, fitted: Mapping[tuple[str, str, str], Constants]) -> Machine:
        """This machine with some more constants."""
        return replace(self, fitted={**self.fitted, **fitted})

    def to_dict(self) -> dict:
        """JSON-able values: what a file holds."""
        fitted: dict[str, dict[str, dict[str, dict]]] = {}
        for (engine, kind, what), constants in self.fitted.items():
            fitted.setdefault(engine, {}).setdefault(kind, {})[what] = asdict(constants)
        return {
            "version": VERSION,
            **{n: getattr(self, n) for n in ("name", "source", "measured", "memory")},
            "limits": [asdict(limits) for limits in self.limits],
            "fitted": fitted,
        }

    def save(self, path: str | Path) -> None:
        """Write it as JSON, all or nothing."""
        write_atomically(Path(path), (json.dumps(self.to_dict(), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Machine:
        """Read what `save` wrote, or the machine in what `minillm lab` did; InputError names the
        file."""
        values = read_json(path, dict)
        inside = values.get("machine")
        return cls.from_dict(inside if isinstance(inside, dict) else values, path)

    @classmethod
    def from_dict(cls, values: Any, where: object) -> Machine:
        """The machine that a table describes; InputError, beginning with `where`, for what cannot
        be."""
        if values.get("version") != VERSION:
            raise InputError(
                f"{where}: a machine of version {short(values.get('version'))}; this minillm reads"
                f" {VERSION}, as `minillm datasheet --save-machine` writes it"
            )
        entry: MachineEntry = check(values, MachineEntry, where)
        for name in ("name", "source"):
            if not 0 < len(text := entry[name]) <= LONGEST or not text.isprintable():
                raise InputError(f"{where}: {name} is {short(text)}; one line is needed")
        if entry["memory"] is not None and entry["memory"] <= 0:
            raise InputError(f"{where}: memory is {entry['memory']}; bytes are needed")
        limits = [Limits.from_dict(found, f"{where}: limits") for found in entry["limits"]]
        if not 0 < len({found.threads for found in limits}) == len(limits) <= MOST_LIMITS:
            raise InputError(
                f"{where}: limits are needed, once for each number of threads, at most"
                f" {MOST_LIMITS}"
            )
        fitted = {}
        for engine, by_kind in entry["fitted"].items():
            for kind, by_pass in by_kind.items():
                for what, c in by_pass.items():
                    found = c["reading"], c["arithmetic"], c["node"]
                    if not all(0 <= n <= MOST for n in found) or not found[0] + found[1] > 0:
                        raise InputError(f"{where}: constants of {short(engine)} are {short(c)}")
                    fitted[engine, kind, what] = Constants(*found, tuple(c["models"]))
        return cls(
            entry["name"],
            entry["source"],
            entry["measured"],
            entry["memory"],
            tuple(sorted(limits, key=lambda found: found.threads)),
            fitted,
        )


def published() -> dict[str, Machine]:
    """The machines of which figures are published, by short names. Matrices of fewer than 16 bits
    are multiplied in 16."""
    found = {}
    for name, entry in read_json(PUBLISHED, dict[str, PublishedEntry]).items():
        rates = dict.fromkeys(KINDS, entry["float16"]) | {"float32": entry["float32"]}
        limits = Limits(
            machine={"processor": entry["name"]},
            threads=1,
            bandwidth={FAR: entry["bandwidth"]},
            row=rates,
            rows=rates,
            elements=entry["float32"],
            call=0.0,
            launch=0.0,
            meet=0.0,
        )
        found[name] = Machine(entry["name"], entry["source"], False, entry["memory"], (limits,))
    return found


def find(name_or_path: str | Path) -> Machine:
    """The published machine of this name, else that of a file; InputError for neither."""
    known = published()
    if (name := str(name_or_path).lower()) in known:
        return known[name]
    if not Path(name_or_path).exists():
        raise InputError(
            f"machine {short(str(name_or_path))} is no file, and none of {', '.join(known)}"
        )
    return Machine.load(name_or_path)


def measure_machine(
    ops,
    kinds: Iterable[str],
    threads: Sequence[int] | None = None,
    update: Update = lambda what, done, total: None,
    sizes: Iterable[int] = (),
) -> Machine:
    """Measure this machine with a twin's functions, on each number of threads (one and all of those
    that are used now where none is named)."""
    now, sizes = n_threads(ops), list(sizes)
    found = []
    try:
        with undisturbed("the machine was measured"):
            for n in sorted({*(threads or (1, now))}):
                set_threads(n)
                found.append(measure(ops, kinds, update, sizes))
    finally:
        set_threads(now)
    return Machine(
        found[0].machine["processor"], "measured here", True, total_bytes(), tuple(found)
    )
