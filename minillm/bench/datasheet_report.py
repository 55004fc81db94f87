"""A datasheet as a page, in Markdown or HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from .. import families
from ..clock.verdict import duration, rate_of, size
from ..errors import count
from .datasheet import BATCHES, CACHED, PEERS, Datasheet, Entry
from .ledger_report import Saved, markdown
from .predictions import HEADINGS as MEASURED

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;text-align:right;"
    "border-bottom:1px solid #8886}td:first-child,th:first-child{text-align:left}"
    "svg,img{max-width:100%;height:auto}:root{color-scheme:light dark}svg{background:#fff}"
    "div{overflow-x:auto}"
)


@dataclass
class Section:
    """A part of a page: its heading, what is said, and a table."""

    title: str
    text: str = ""
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass
class DatasheetReport(Saved):
    """A datasheet with the command that makes it again."""

    sheet: Datasheet
    command: str

    def to_dict(self) -> dict:
        """Return everything as values for JSON."""
        return self.sheet.to_dict() | {"command": self.command}

    @property
    def title(self) -> str:
        """What the page is about."""
        sheet = self.sheet
        engine = "" if sheet.engine == "minillm" else f" in {sheet.engine}"
        return f"Datasheet: {sheet.name}{engine} on {sheet.machine.name}"

    def sections(self) -> list[Section]:
        """Everything that is said, in order."""
        sheet, verdict = self.sheet, self.sheet.verdict
        n, base = sheet.middle, sheet.kinds[0]
        threads = f", {count(sheet.limits.threads, 'thread')}" if sheet.machine.measured else ""
        parts = (verdict.sentences.get(part) for part in ("answer", "binds", "change"))
        words = " ".join(filter(None, parts))
        found = [
            Section("", self._about()),
            Section(
                "In words",
                f"{words} (In {base}{threads}, after {n - 1:,} tokens.){self._widened()}",
            ),
            self._by_kind(
                "A token after a context",
                f"One text{threads}.",
                "context",
                sheet.tokens,
                lambda e: f"{e.context:,}",
                lambda e: duration(e.seconds),
            ),
            self._by_kind(
                "The first token after a prompt",
                f"One text{threads}.",
                "prompt",
                sheet.firsts,
                lambda e: f"{e.context:,}",
                lambda e: duration(e.seconds),
            ),
            self._by_kind(
                "Several texts at once",
                f"Tokens/s of all together, a context of {n:,}{threads}.{self._slower()}",
                "texts",
                sheet.batches,
                lambda e: str(e.batch),
                lambda e: f"{e.rate:,.0f}",
            ),
        ]
        if len(sheet.machine.limits) > 1:
            found.append(
                self._by_kind(
                    "Threads",
                    f"A token of one text, a context of {n:,}.",
                    "threads",
                    sheet.by_threads,
                    lambda e: str(e.threads),
                    lambda e: duration(e.seconds),
                )
            )
        found += [self._memory(), self._levers()]
        if sheet.measured:
            rows = [point.row() for point in sheet.measured]
            note = (
                "The fastest of the rounds, beside what the best limits of all rounds allow; error:"
                " predicted / measured - 1. The tables above predict other times: by limits from"
                " before, where these were measured in turn with the passes; with probabilities,"
                " which are not formed here; of one token, where this is the mean of several."
            )
            if left := [kind for kind in sheet.kinds if kind not in PEERS[sheet.engine]]:
                note += f" {sheet.engine} is not started here with {' or '.join(left)}."
            found.append(Section("Predicted, then measured", note, MEASURED[:-1], rows))
        return found

    def _widened(self) -> str:
        """Why other commands begin from another kind, where they do."""
        base = self.sheet.kinds[0]
        if self.sheet.engine != "minillm" or base not in ("float16", "bfloat16"):
            return ""
        return f" Other commands take a folder's {base} as float32, unless --dtype {base} is added."

    def _slower(self) -> str:
        """Why more texts give fewer tokens/s, where they do."""
        limits, n = self.sheet.limits, self.sheet.middle
        rates = {(e.kind, e.batch): e.rate for e in self.sheet.batches}
        pairs = [(kind, a, b) for kind in self.sheet.kinds for a, b in pairwise(BATCHES)]
        if not any(rates[kind, b] < rates[kind, a] for kind, a, b in pairs):
            return ""
        return (
            " Where more texts give less, their keys and values no longer fit into the processor's"
            f" caches: each text has {size(n * self.sheet.position)} of them, and what memory gives"
            f" is {size(limits.bandwidth[max(limits.bandwidth)])}/s."
        )

    def _about(self) -> str:
        sheet, machine = self.sheet, self.sheet.machine
        s, family = sheet.sizes, families.of(sheet.config)
        published = f"Predicted only, from published figures ({machine.source})"
        limits = "Limits as they were measured" if machine.measured else published
        fitted = [
            f"{kind}, {what}: {c.reading:.2f} times the reading, {c.arithmetic:.2f} times the"
            f" arithmetic, {duration(c.node)} a node"
            for (engine, kind, what), c in machine.fitted.items()
            if engine == sheet.engine and kind in sheet.kinds
        ]
        reached = (
            f"What {sheet.engine} makes of them: " + "; ".join(fitted)
            if fitted
            else "It is assumed that the limits are reached: at best"
        )
        return (
            f"{family.title}, {sheet.parameters:,} parameters: {count(s.L, 'layer')} of {s.C:,},"
            f" {s.H} query heads and {s.K} of keys and values, {s.V:,} tokens, {s.P:,} positions."
            f" {limits}. {reached}."
        )

    def _by_kind(
        self,
        title: str,
        text: str,
        row: str,
        entries: Sequence[Entry],
        name: Callable[[Entry], str],
        cell: Callable[[Entry], str],
    ) -> Section:
        """A row for each name, a column for each kind; what binds stands in the text where it is
        the same in a whole column, else in brackets."""
        kinds, rows = self.sheet.kinds, dict[str, list[str]]()
        binds = {kind: {e.binds for e in entries if e.kind == kind} for kind in kinds}
        for e in entries:
            words = cell(e) if len(binds[e.kind]) == 1 else f"{cell(e)} ({e.binds})"
            rows.setdefault(name(e), []).append(words)
        groups: dict[str, list[str]] = {}
        for kind, found in binds.items():
            what = "as in brackets" if len(found) > 1 else "".join(found)
            groups.setdefault(what, []).append(kind)
        said = [f"{what} for {', '.join(some)}" for what, some in groups.items()]
        text += f" What binds: {'; '.join(said if len(said) > 1 else groups)}."
        table = [[first, *cells] for first, cells in rows.items()]
        return Section(title, text, [row, *kinds], table)

    def _memory(self) -> Section:
        sheet = self.sheet
        n, most = sheet.lengths[-1], sheet.machine.memory
        rows = []
        for kind, weights in sheet.weights.items():
            whole = weights + n * sheet.position
            fits = "" if most is None else _texts(weights, n * sheet.position, most)
            rows.append([kind, size(weights), size(n * sheet.position), size(whole), fits])
        text = (
            f"Keys and values take {sheet.position:,} bytes a position:"
            f" {sheet.engine} keeps them in float{8 * CACHED[sheet.engine]}."
        )
        if most is not None:
            text += f" The machine has {size(most)}."
        headings = ["kind", "weights", f"cache of {n:,}", "together", "texts that fit"]
        return Section("Memory", text, headings, rows)

    def _levers(self) -> Section:
        sheet = self.sheet
        rows = [[lever.what, rate_of(lever.rate), f"{lever.times:.2f}"] for lever in sheet.levers]
        text = f"One change each to {sheet.kinds[0]}, one text, {sheet.middle:,} positions."
        return Section("Which lever buys what", text, ["change", "then", "times"], rows)

    def page(self, picture: str | None) -> str:
        """Return a page in Markdown."""
        lines = [f"# {plain(self.title)}", ""]
        for section in self.sections():
            lines += [f"## {section.title}", ""] if section.title else []
            lines += [plain(section.text), ""] if section.text else []
            if section.rows:
                rows = [[plain(cell) for cell in row] for row in section.rows]
                lines += [*markdown(section.headings, rows), ""]
            if not section.title and picture:
                lines += [f"![time of a token, of a prompt, and of batches]({picture})", ""]
        return "\n".join([*lines, f"    {self.command}", ""])

    def html(self, drawing: str) -> str:
        """Return a page in HTML that needs nothing else; drawing: SVG."""
        parts = [f"<h1>{escape(self.title)}</h1>"]
        for section in self.sections():
            parts += [f"<h2>{escape(section.title)}</h2>"] if section.title else []
            parts += [f"<p>{escape(section.text)}</p>"] if section.text else []
            if section.rows:
                head = "".join(f'<th scope="col">{escape(h)}</th>' for h in section.headings)
                rows = "".join(
                    "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
                    for row in section.rows
                )
                parts.append(f"<div><table><tr>{head}</tr>{rows}</table></div>")
            if not section.title:
                parts.append(drawing)
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>{escape(self.title)}</title>"
            f"<style>{STYLE}</style>{''.join(parts)}<pre>{escape(self.command)}</pre></html>\n"
        )


def _texts(weights: int, text: int, memory: int) -> str:
    """How many texts of this length fit beside the weights."""
    return f"{max(0, (memory - weights) // text):,}"


def plain(text: str) -> str:
    """A text in which nothing is Markdown's own."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|" else c for c in text)
