"""Trainings beside one another: what differs between them, how good they became, how far seeds lie
apart, and what a cycle of each costs.

Runs (folders that `minillm train` made) that differ in nothing but their seed are one line.
Quality is that of the finished models on one text; it changes from one line to the next by the mean
over the seeds that both have, since a seed stands for the same order of the same data. Speed: the
time of a decode cycle (one token, one pass), all lines in turn within each round, so that a drift
of the machine hits all alike. Bytes are counted, not measured (costs.py).
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from ..clock.costs import step_costs
from ..clock.limits import describe_machine
from ..costs import total
from ..decoding import Options
from ..decoding.generate import moments
from ..decoding.scoring import score_long
from ..errors import InputError, count
from ..layers.cache import position_bytes
from ..loading import load
from ..machine.progress import progress_bar
from ..model import Model
from ..training.settings import Settings, of_others
from ..training.trainer import SETTINGS, read_settings
from .ledger_report import Saved, made_on

HEADINGS = (
    "run",
    "differs by",
    "parameters",
    "bits/byte",
    "of seeds",
    "change",
    "cycle",
    "bytes a token",
    "KV a position",
)
HOW = """Bits per byte of all of {file}, in windows of as many positions as a model has, each seen
alone: mean ± standard deviation over the seeds. Change: to the line above, the mean of the
differences seed by seed, as a seed stands for the same order of the same tokens, ± half the width
of its 95 % interval (Student's t, which is wide for few seeds). Cycle: one pass for one token, in
float32 on {threads}, of {n_new} tokens after {n_prompt}; the median of {rounds} rounds (lowest to
highest), in each of which every line has its turn. Bytes a token: weights read, and keys and values
read and written, half way through these tokens; KV a position: what each position adds to the
cache. Both are counted, in float32; of a table of positions a token reads one row."""
# Student's t for 95 % with 1, 2, 3, ... degrees of freedom
T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


@dataclass
class Line:
    """Runs that differ in nothing but their seed. changes: what they have otherwise than the line
    before; bits_per_byte: {seed: of its finished model}; cycles: microseconds, a number a round."""

    name: str
    changes: dict[str, object]
    parameters: int = 0
    bytes_a_token: float = 0.0  # weights, and keys and values, that a cycle reads and writes
    kv_bytes: int = 0  # that a position adds to the cache
    bits_per_byte: dict[int, float] = field(default_factory=dict)
    cycles: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Bits per byte, the mean over the seeds."""
        return mean(self.bits_per_byte.values())

    @property
    def spread(self) -> float | None:
        """The standard deviation over the seeds; None for one alone."""
        return stdev(self.bits_per_byte.values()) if len(self.bits_per_byte) > 1 else None

    @property
    def cycle(self) -> tuple[float, float, float]:
        """Microseconds of a decode cycle: the lowest, the median and the highest of the rounds."""
        return min(self.cycles), median(self.cycles), max(self.cycles)

    def differences(self, before: Line) -> list[float]:
        """By how many bits per byte each seed is better or worse than the line before."""
        mine, theirs = self.bits_per_byte, before.bits_per_byte
        return [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]


def half_width(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of a mean, by Student's t; None for one value alone."""
    n = len(values)
    return T95[min(n - 2, len(T95) - 1)] * stdev(values) / math.sqrt(n) if n > 1 else None


def lines_of(folders: Sequence[Path]) -> dict[str, tuple[Line, dict[int, Path]]]:
    """{name: (line, {seed: folder})} of runs, in their order; a line has the name of its first
    folder, up to "-seed". Raises InputError for what is no run, and a seed that is there twice."""
    kept = {f.name: f.default for f in dataclasses.fields(Settings) if f.metadata["curve"]}
    del kept["seed"]
    lines: dict[str, tuple[Line, dict[int, Path]]] = {}
    shapes: dict[tuple, str] = {}
    before: dict[str, object] = {}
    for folder in folders:
        if not (settings := read_settings(folder, Settings)):
            raise InputError(f"{folder}: no {SETTINGS} here; is it the folder of a training run?")
        shape = {name: settings.get(name, default) for name, default in kept.items()}
        if (key := tuple(shape.values())) not in shapes:
            shapes[key] = name = folder.resolve().name.partition("-seed")[0]
            if name in lines:
                raise InputError(f"{folder}: {name} is the name of runs with other settings, too")
            others = of_others(settings.get("family", kept["family"]))
            changes = {n: v for n, v in shape.items() if before and v != before[n]}
            changes = {n: v for n, v in changes.items() if n not in others}
            lines[name], before = (Line(name, changes), {}), shape
        runs = lines[shapes[key]][1]
        if settings["seed"] in runs:
            other = runs[settings["seed"]]
            raise InputError(f"{folder}: seed {settings['seed']} of {other} again")
        runs[settings["seed"]] = folder
    return lines


def compare_runs(
    folders: Sequence[Path],
    text: str,
    *,
    kernels: str | None = None,
    n_prompt: int = 64,
    n_new: int = 64,
    rounds: int = 3,
) -> list[Line]:
    """Return the lines of runs: each model scores the whole text, the first of each line is timed,
    decoding n_new tokens after n_prompt of the text."""
    found = lines_of(folders)
    runs = [(line, seed, folder) for line, of in found.values() for seed, folder in of.items()]
    timed: list[tuple[Line, Any, list[int]]] = []
    model: Any
    with progress_bar("models") as update:
        for done, (line, seed, folder) in enumerate(runs):
            update("scoring", done, len(runs))
            model, tokenizer = load(folder, kernels=kernels)
            if not line.bits_per_byte:
                prompt = tokenizer.encode_documents(text)[:n_prompt]
                if n_prompt + n_new > model.config.sizes.P or len(prompt) < n_prompt:
                    raise InputError(
                        f"{n_prompt} + {n_new} tokens do not fit {folder}, or the text is shorter"
                    )
                timed.append((line, model, prompt))
                _count(line, model, n_prompt + n_new // 2)
            score = score_long(model, tokenizer, text, show_progress=False)
            line.bits_per_byte[seed] = score.bits_per_byte
        for turn in range(rounds):
            for done, (line, model, prompt) in enumerate(timed):
                update("speed", turn * len(timed) + done, rounds * len(timed))
                line.cycles.append(_microseconds(model, prompt, n_new))
    return [line for line, _ in found.values()]


def _count(line: Line, model: Model, context: int) -> None:
    cost = total(step_costs(model.config, 1, context, choose=False).values())
    line.parameters, line.kv_bytes = model.n_parameters, position_bytes(model.config, "float32")
    line.bytes_a_token = cost.weights + cost.cache


def _microseconds(model: Model, prompt: Sequence[int], n_new: int) -> float:
    """The median decode cycle of one text."""
    options = Options(max_new_tokens=n_new, do_sample=False, stop_tokens=())
    _, *later = moments(model, prompt, options)
    return median((m.cycle.end - m.cycle.start) / 1e3 for m in later)


@dataclass
class RunsReport(Saved):
    """The lines, and the command that makes them again."""

    lines: list[Line]
    command: str
    title: str
    file: str
    n_prompt: int
    n_new: int
    rounds: int
    threads: int
    machine: dict = field(default_factory=describe_machine)

    def changes(self) -> list[list[float]]:
        """Of each line, by how many bits per byte each seed differs from the line before."""
        pairs = zip(self.lines, [Line("", {}), *self.lines])
        return [line.differences(before) for line, before in pairs]

    def to_dict(self) -> dict:
        """Return everything as values for JSON."""
        lines = [
            dataclasses.asdict(line)
            | {"mean": line.mean, "spread": line.spread, "differences": differences}
            for line, differences in zip(self.lines, self.changes())
        ]
        return vars(self) | {"lines": lines}

    def rows(self) -> list[tuple]:
        """Return the rows of a table below HEADINGS."""
        return [
            (
                line.name,
                ", ".join(f"{name} {value}" for name, value in line.changes.items()) or "-",
                f"{line.parameters:,}",
                f"{line.mean:.4f}{plus_minus(line.spread)}",
                str(len(line.bits_per_byte)),
                f"{mean(d):+.4f}{plus_minus(half_width(d))}" if d else "-",
                "{1:,.0f} us ({0:,.0f} to {2:,.0f})".format(*line.cycle),
                f"{line.bytes_a_token / 1e6:.2f} MB",
                f"{line.kv_bytes:,} B",
            )
            for line, d in zip(self.lines, self.changes())
        ]

    def verdicts(self) -> list[str]:
        """Return for each line but the first what its seeds tell of it and the line before."""
        said = []
        for line, before, d in zip(self.lines[1:], self.lines, self.changes()[1:]):
            if (reach := half_width(d)) is None:
                verdict = "too few seeds that both have to tell"
            elif abs(mean(d)) <= reach:
                verdict = f"no difference to {before.name} that {count(len(d), 'seed')} can tell"
            else:
                verdict = f"{'worse' if mean(d) > 0 else 'better'} than {before.name}"
            said.append(f"{line.name}: {verdict} ({', '.join(f'{x:+.4f}' for x in d)})")
        return said

    def page(self, picture: str) -> str:
        """Return a page in Markdown: figure, table, what was measured, on which machine, how."""
        lines = [f"# The ledger: {self.title}", ""]
        lines += [f"![bits per byte, time of a cycle and KV bytes of each run]({picture})", ""]
        lines += [
            "| " + " | ".join(HEADINGS) + " |",
            "| --- | --- |" + " ---: |" * (len(HEADINGS) - 2),
            *("| " + " | ".join(row) + " |" for row in self.rows()),
            "",
            *(f"- {verdict}" for verdict in self.verdicts()),
            "",
            textwrap.fill(
                HOW.format(**vars(self) | {"threads": count(self.threads, "thread")}), 100
            ),
            "",
            *made_on(self.machine),
        ]
        return "\n".join([*lines, "", f"    {self.command}", ""])


def plus_minus(spread: float | None) -> str:
    return "" if spread is None else f" ± {spread:.4f}"
