"""What `minillm bench` found, in each of its modes: as values for JSON, and as lines and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from ..errors import count
from .against import Line
from .batch import BatchComparison
from .busy import BusyResult
from .ladders import BLAS, MEASURES, Rung
from .peers import PEERS
from .run import PeerComparison, PeerResult
from .start import Start
from .stored import InType
from .trainers import TrainerComparison

KINDS = ("decode", "prefill")
MEMORY = (
    "\nmemory at its peak in the whole run: MB; libraries: of it before there was a model (imports,"
    " LLVM's own start)"
)


class Table(NamedTuple):
    """Rows below their headings; `align` has one of < and > for each column, after a | those that
    may follow below."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]
    align: str


@dataclass(frozen=True)
class Report:
    """One mode's results: values for JSON, and what a person reads, from top to bottom."""

    values: Any
    parts: list[str | Table]


def of_peers(comparison: PeerComparison, model: str, rounds: int) -> Report:
    """Decode, prefill and memory of peers."""
    measured, first, n_prompt = comparison.measured, comparison.measured[0], comparison.n_prompt

    def rates(r: PeerResult, kind: str) -> list[str]:
        values, cost = getattr(r, kind), comparison.cost(r, kind)
        row = [r.name, *_spread(values), f"{r.ratio(first, kind):.2f}", f"{cost / 1e6:,.1f}"]
        return [*row, f"{median(values) * cost / 1e9:,.1f}", f"{comparison.share(r, kind):.0%}"]

    decode = [[*rates(r, "decode"), _tokens(comparison, r)] for r in measured]
    prefill = [
        [*rates(r, "prefill"), f"{1e3 * n_prompt / median(r.prefill):,.1f}", r.threads]
        for r in measured
    ]
    usual = ["peer", "median", "range", "ratio"]
    of_decode = [*usual, "MB/token", "GB/s", "of read", "greedy tokens"]
    of_prefill = [*usual, "MFLOP/token", "GFLOP/s", "of GEMM", "first ms", "threads"]
    read, multiply = _limits([comparison])
    parts: list[str | Table] = [
        f"decode of {count(comparison.n_new, 'token')} after a prompt of {n_prompt}: tokens/s",
        Table(of_decode, decode, "<>>>>>><"),
        f"\nprefill of {count(n_prompt, 'token')}: tokens/s; time to the first token",
        Table(of_prefill, prefill, "<>>>>>>>>"),
        MEMORY,
        Table(
            ["peer", *_held_headings("weights")],
            _held(comparison, n_prompt + comparison.n_new),
            "<>>>>>>>",
        ),
        f"\n{_medians(rounds)}; ratio to {first.name}, round by round; greedy tokens against",
        f"{comparison.reference.name}; measured between: reading {read} GB/s, float32 GEMM"
        f" {multiply} GFLOP/s",
        *_versions(comparison.results),
    ]
    return Report({"model": model} | _values(comparison), parts)


def of_lengths(found: Sequence[InType], model: str, n_new: int, rounds: int) -> Report:
    """Peers after prompts of several lengths, with a model's matrices in one type or several."""
    rows, held, limits = [], [], list[str]()
    for t in found:
        for comparison in t.comparisons:
            first = comparison.measured[0]
            for r in comparison.measured:
                row = [t.type, comparison.n_prompt, r.name]
                for kind in KINDS:
                    row += [f"{median(getattr(r, kind)):,.1f}", f"{r.ratio(first, kind):.2f}"]
                    row += [_range(*r.middle_half(first, kind), rounds, ".2f")]
                    row += [f"{comparison.share(r, kind):.0%}"]
                rows.append([*row, _tokens(comparison, r)])
        n = max(c.n_prompt for c in t.comparisons) + n_new
        held += [[t.type, *row] for row in _held(t.comparisons[-1], n, t.file_bytes)]
        read, multiply = _limits(t.comparisons)
        limits.append(f"machine did meanwhile, {t.type}: {read} GB/s, {multiply} GFLOP/s")
        limits += _versions(t.comparisons[0].results)
    headings = ["type", "prompt", "peer", "decode", "ratio", "middle half", "of read"]
    headings += ["prefill", "ratio", "middle half", "of GEMM", "greedy tokens"]
    due = "file" if found[0].file_bytes else "weights"
    parts: list[str | Table] = [
        f"{model}: tokens/s of decode ({n_new} tokens after a prompt) and of prefill",
        Table(headings, rows, "<><|>>>>>>>><"),
        MEMORY,
        Table(["type", "peer", *_held_headings(due)], held, "<<|>>>>>>>"),
        f"\n{_medians(rounds)}; ratio to the first of a type, round by round; of read, of GEMM: of"
        " what the",
        *limits,
    ]
    types = [
        {"type": t.type, "file_bytes": t.file_bytes, "runs": [*map(_values, t.comparisons)]}
        for t in found
    ]
    return Report({"model": model, "new": n_new, "rounds": rounds, "types": types}, parts)


def of_starts(starts: Sequence[Start], rounds: int) -> Report:
    """Seconds until commands say something."""
    rows = [
        [
            one.name + (", fresh" if one.fresh else ""),
            *_spread(one.seconds, ".2f"),
            f"{median(one.processor):.2f}" if one.processor else "?",
            " ".join(one.arguments),
        ]
        for one in starts
        if not one.missing
    ]
    parts: list[str | Table] = [
        "seconds from the start of a process to its first character, and of processor time",
        Table(["", "median", "range", "processor", "command"], rows, "<>>><"),
        f"\nmedians of {count(rounds, 'round')}, after one to warm up",
    ]
    if any(one.fresh for one in starts):
        parts.append("fresh: as just installed, where kernels are compiled first; started once")
    parts += [f"{one.name}: missing ({one.missing})" for one in starts if one.missing]
    return Report([vars(one) for one in starts], parts)


def of_training(comparison: TrainerComparison, title: str, rounds: int) -> Report:
    """The training step of peers."""
    measured, results = comparison.measured, []
    for r in comparison.results:
        derived = {} if r.missing else {"ratio": comparison.ratio(r), "share": comparison.share(r)}
        results.append(vars(r) | derived)
    rows = [
        [
            r.name,
            *_spread(r.rates, ",.0f"),
            f"{comparison.ratio(r):.2f}",
            f"{median(r.rates) * comparison.flop_per_token / 1e9:,.0f}",
            f"{comparison.share(r):.0%}",
            _quotient(r.peak_bytes),
            _quotient(r.step_bytes),
            f"{r.loss:.5f}",
            r.threads,
        ]
        for r in measured
    ]
    headings = ["peer", "median", "range", "ratio", "GFLOP/s", "of GEMM", "peak MB"]
    headings += ["of it the step", "last loss", "threads"]
    parts: list[str | Table] = [
        f"{title}: tokens/s",
        Table(headings, rows, "<>>>>>>>>>"),
        f"\n{_medians(rounds)}; ratio to {measured[0].name}, round by round; float32 GEMM,"
        " measured between:",
        f"{median(comparison.flops) / 1e9:,.0f} GFLOP/s; of the peak, the step: without what the"
        " libraries took before there was a model",
        *(line for r in comparison.results for line in _versions([r])),
    ]
    return Report(vars(comparison) | {"results": results}, parts)


def of_busy(results: Sequence[BusyResult], titles: Mapping[str, str], rounds: int) -> Report:
    """Peers beside busy processes; titles: of each kind of work that was measured."""
    measured = [r for r in results if not r.missing]
    alone = {r.name: r for r in measured if (r.threads, r.busy) == (1, 0)}
    headings = ["busy", "peer", "threads", "tokens/s", "range", "ratio"]
    headings += ["tokens/s of processor", "of one thread alone"]
    parts: list[str | Table] = []
    for kind, title in titles.items():
        rows = []
        for r in measured:
            first = next(other for other in measured if other.busy == r.busy)
            row = [r.busy, r.name, r.threads, *_spread(r.rates[kind])]
            row += [f"{r.ratio(first, kind):.2f}", f"{median(r.per_cpu[kind]):,.1f}"]
            rows.append([*row, f"{r.ratio(alone.get(r.name, r), kind, 'per_cpu'):.2f}"])
        parts += [f"{title}, beside busy processes", Table(headings, rows, "><>|>>>>>"), ""]
    parts.append(f"{_medians(rounds)}; ratio to the first beside as many busy processes")
    return Report([vars(r) for r in results], [*parts, *_versions(results)])


def of_batches(
    comparison: BatchComparison, model: str, n_prompt: int, n_new: int, rounds: int, threads: int
) -> Report:
    """Peers that decode several texts at once."""
    rows, lines = [], []
    for r in comparison.results:
        line = {name: getattr(r, name) for name in ("name", "batch", "rates", "missing")}
        lines.append(line)
        if r.missing:
            continue
        ratio, reference = comparison.ratio(r), comparison.reference(r)
        n, gap = r.agreement(reference)
        line |= {"ratio": ratio, "same_texts": n, "gap": gap}
        same = "reference" if r is reference else f"{n} same"
        row = [r.batch, r.name, *_spread(r.rates), f"{ratio:.2f}"]
        rows.append([*row, same, f"{gap:.4f}" if gap else ""])
    headings = ["texts", "peer", "median", "range", "ratio", "greedy texts", "gap"]
    parts: list[str | Table] = [
        f"{count(n_new, 'token')} after a prompt of {n_prompt}, of so many texts at once: tokens/s"
        " of all together",
        Table(headings, rows, "><|>>><>"),
        f"\n{_medians(rounds)}; ratio to the first peer of as many texts and the same width;",
        "greedy texts against minillm's first there, and how far its two largest logits are apart",
        "where another text parts from it, at most",
        *_versions(comparison.results),
    ]
    about = _sizes(n_prompt, n_new, rounds, threads)
    return Report({"model": model} | about | {"results": lines}, parts)


def of_another(
    lines: Sequence[Line], other: str, n_prompt: int, n_new: int, rounds: int, threads: int
) -> Report:
    """This minillm's peers against those of another."""
    rows = [
        [
            line.model,
            line.peer,
            line.kind,
            f"{line.this:,.1f}",
            f"{line.other:,.1f}",
            f"{line.ratio:.3f}",
            _range(*line.middle_half, rounds, ".3f"),
            "same" if line.same_tokens else "differ",
        ]
        for line in lines
        if not line.missing
    ]
    headings = ["model", "peer", "", "this", "other", "ratio", "middle half", "greedy tokens"]
    parts: list[str | Table] = [
        f"this minillm and {other}: tokens/s of prefill ({n_prompt} tokens) and decode",
        f"(the {n_new} tokens after them)",
        Table(headings, rows, "<<<|>>>><"),
        f"\n{_medians(rounds)}; ratio this / other, round by round",
        *(f"{x.model}, {x.peer}, {x.kind}: missing ({x.missing})" for x in lines if x.missing),
    ]
    about = _sizes(n_prompt, n_new, rounds, threads)
    return Report({"other": other} | about | {"lines": [vars(x) for x in lines]}, parts)


def of_ladders(rungs: Sequence[Rung], rounds: int) -> Report:
    """The rungs, each beside what its group is measured by."""
    groups: dict[str, list[Rung]] = {}
    for rung in rungs:
        groups.setdefault(rung.group, []).append(rung)
    values, parts = [], list[str | Table]()
    for group, members in groups.items():
        measures, rows = [r for r in members if r.name in MEASURES], []
        for rung in members:
            shares = {r.name: rung.share(r) for r in measures}
            told = {name: getattr(rung, name) for name in ("group", "name", "threads", "rates")}
            values.append(told | {"shares": shares})
            rate = f"{median(rung.rates) / 1e9:,.2f}"
            rows.append([rung.name, rate, *(f"{share:.2f}" for share in shares.values())])
        unit = "GFLOP/s" if BLAS in shares else "numbers/ns"
        headings = ["", unit, *(f"of {name}" for name in shares)]
        parts += [group, Table(headings, rows, "<>>>"[: len(headings)]), ""]
    return Report(values, [*parts, _medians(rounds)])


# ---- what several of them say


def _medians(rounds: int) -> str:
    return f"medians of {count(rounds, 'interleaved round')}"


def _spread(values: Sequence[float], form: str = ",.1f") -> list[str]:
    """Median and range, two cells."""
    return [f"{median(values):{form}}", _range(min(values), max(values), len(values), form)]


def _range(low: float, high: float, n: int, form: str) -> str:
    """A range of n values: one alone has none."""
    return f"{low:{form}}-{high:{form}}" if n > 1 else ""


def _quotient(number: float | None, unit: float | None = 1e6, form: str = ",.0f") -> str:
    """number / unit (a million: MB), and a question mark where one is unknown."""
    return f"{number / unit:{form}}" if number and unit else "?"


def _limits(comparisons: Sequence[PeerComparison]) -> tuple[str, str]:
    """What the machine read, GB/s, and multiplied, GFLOP/s, in the median."""
    read, multiply = (
        median(rate for c in comparisons for rate in getattr(c, name)) / 1e9
        for name in ("bandwidth", "flops")
    )
    return f"{read:.1f}", f"{multiply:,.0f}"


def _held_headings(due: str) -> list[str]:
    headings = [due, "KV", "libraries", "above", f"of {due} + KV"]
    return [*headings, "whole", "of llama.cpp"]


def _held(comparison: PeerComparison, n: int, weights: int | None = None) -> list[list[str]]:
    """What each peer held at its peak, as rows of a table. n: positions of the cache; weights: how
    many bytes they should take, if not what a token reads of them."""
    bits = {r.name: PEERS[r.name.partition("@")[0]].bits for r in comparison.measured}
    llama = {bits[r.name]: r for r in comparison.measured if r.name.startswith("llama.cpp")}
    rows = []
    for r in comparison.measured:
        due, KV, other = weights or r.weight_bytes, r.cache_bytes * n, llama.get(bits[r.name])
        row = [r.name, *(_quotient(size, form=",.1f") for size in (due, KV))]
        row += [_quotient(r.libraries), _quotient(r.model_bytes)]
        row += [_quotient(r.model_bytes, due + KV, ".2f"), _quotient(r.peak_bytes)]
        rows.append([*row, _quotient(r.peak_bytes, other.peak_bytes if other else None, ".2f")])
    return rows


def _tokens(comparison: PeerComparison, result: PeerResult) -> str:
    """Where greedy tokens part from those of the reference."""
    if result is comparison.reference:
        return "reference"
    pairs = zip(result.tokens, comparison.reference.tokens)
    first = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
    return "same" if first is None else f"differ from {first}"


def _versions(results: Sequence[Any]) -> list[str]:
    """Versions, or why a peer is missing; what is the same for several is said once."""
    said: dict[str, dict[str, None]] = {}
    for r in results:
        versions = ", ".join(f"{name} {version}" for name, version in r.versions.items())
        said.setdefault(f"missing ({r.missing})" if r.missing else versions, {})[r.name] = None
    return [f"{', '.join(names)}: {what}" for what, names in said.items()]


def _sizes(n_prompt: int, n_new: int, rounds: int, threads: int) -> dict[str, int]:
    return {"prompt": n_prompt, "new": n_new, "rounds": rounds, "threads": threads}


def _values(comparison: PeerComparison) -> dict[str, Any]:
    first, results = comparison.measured[0], []
    for r in comparison.results:
        derived: dict[str, Any] = {}
        if not r.missing:
            for kind in KINDS:
                derived[f"{kind}_ratio"] = r.ratio(first, kind)
                derived[f"{kind}_share"] = comparison.share(r, kind)
            derived["first_token_s"] = comparison.n_prompt / median(r.prefill)
            derived["same_tokens"] = r.tokens == comparison.reference.tokens
            derived["model_bytes"] = r.model_bytes
        results.append(vars(r) | derived)
    return {
        "prompt": comparison.n_prompt,
        "new": comparison.n_new,
        "bandwidth": comparison.bandwidth,
        "flops": comparison.flops,
        "flop_per_token": comparison.flop_per_token,
        "results": results,
    }
