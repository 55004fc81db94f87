"""A ledger with all that it depends on: as rows of a table, as values for JSON, as a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..clock.limits import describe_machine
from ..errors import count
from ..machine.files import write_atomically
from .amdahl import Amdahl, amdahl
from .ledger import Entry

HEADINGS = (
    "levers",
    "prefill/s",
    "decode/s",
    "speed-up",
    "middle half",
    "weights",
    "cache",
    "bits/byte",
    "change",
    "KL bits",
    "exact by",
)


class Saved:
    """What is kept as a page that shows a picture, and as values."""

    def to_dict(self) -> dict:
        """Return everything as values for JSON."""
        raise NotImplementedError

    def page(self, picture: str) -> str:
        """Return a page in Markdown."""
        raise NotImplementedError

    def save(self, stem: Path) -> None:
        """Write STEM.md, which shows STEM.png, and STEM.json."""
        values = json.dumps(self.to_dict(), indent=1) + "\n"
        write_atomically(Path(f"{stem}.md"), self.page(f"{stem.name}.png").encode())
        write_atomically(Path(f"{stem}.json"), values.encode())


@dataclass
class LedgerReport(Saved):
    """The entries, "plain" first; model and file by name; the command that measures them again."""

    entries: list[Entry]
    command: str
    processes: int
    model: str
    file: str
    n_prompt: int
    n_new: int
    rounds: int
    quality_tokens: int
    machine: dict = field(default_factory=describe_machine)

    @cached_property
    def fits(self) -> list[Amdahl]:
        """Amdahl's law, where it could be fitted."""
        return amdahl(self.entries)

    def to_dict(self) -> dict:
        """Return everything as values for JSON."""
        about = {n: value for n, value in vars(self).items() if n not in ("entries", "fits")}
        return about | {
            "levers": [
                asdict(e) | {f"{kind}_median": e.rate(kind) for kind in ("prefill", "decode")}
                for e in self.entries
            ],
            "amdahl": [fit.to_dict() for fit in self.fits],
        }

    def rows(self) -> list[tuple]:
        """Return the lines of a table below HEADINGS."""
        return [row(e) for e in self.entries]

    def page(self, picture: str) -> str:
        """Return a page in Markdown: figure, table, what was measured, on which machine, how."""
        quality = ""
        if self.quality_tokens:
            quality = f" Quality: {self.quality_tokens:,} tokens of {self.file}."
        lines = [f"# The ledger: {self.model}", ""]
        lines += [f"![decode speed of each lever]({picture})", ""]
        lines += [
            "| " + " | ".join(HEADINGS) + " |",
            "| --- |" + " ---: |" * (len(HEADINGS) - 2) + " --- |",
            *("| " + " | ".join(map(str, cells)) + " |" for cells in self.rows()),
            "",
            *(f"- {e.levers}: {e.missing}" for e in self.entries if e.missing),
            *(f"- {fit}" for fit in self.fits),
            "",
            (
                f"{self.n_new} tokens after a prompt of {self.n_prompt}, greedy; medians of"
                f" {self.rounds} rounds, in each"
            ),
            (
                "of which every lever has its turn; speed-up: decode / plain, median and middle"
                f" half over rounds.{quality}"
            ),
            "Exact by: a test in tests/decoding/test_levers.py.",
            *made_on(self.machine, count(self.entries[0].threads, "thread")),
        ]
        return "\n".join([*lines, "", f"    {self.command}", ""])


def made_on(machine: Mapping[str, Any], *more: str) -> list[str]:
    """Return the lines that say where a page's figures were measured, as describe_machine does."""
    where = ", ".join([machine["processor"], *more, machine["system"]])
    versions = ", ".join(f"{what} {version}" for what, version in machine["versions"].items())
    return [f"{where}; {machine['time'][:10]};", f"{versions}."]


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown, numbers to the right of their names."""
    lines = ["| " + " | ".join(row) + " |" for row in (headings, *rows)]
    return [lines[0], "| --- |" + " ---: |" * (len(headings) - 1), *lines[1:]]


def row(e: Entry) -> tuple:
    """One line of the table; a dash for what was not measured."""

    def number(value, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        e.levers,
        number(e.rate("prefill"), ",.0f"),
        number(e.rate("decode"), ",.1f"),
        number(e.speed_up, ".2f"),
        "-" if e.middle_half is None else "{:.2f} to {:.2f}".format(*e.middle_half),
        *("-" if e.missing else f"{n / 1e6:,.1f} MB" for n in (e.weight_bytes, e.cache_bytes)),
        number(e.bits_per_byte, ".4f"),
        number(e.change, "+.2%"),
        number(e.divergence, ".4f"),
        "-" if e.missing else e.proof or "no",
    )
