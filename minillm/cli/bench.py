"""Measure decode and prefill beside other engines, in turn, in one run, and beside what the machine
can do.

minillm bench                                GPT-2 124M's shape, every peer that is installed
minillm bench --peers 8-bit --context 900    decode after a prompt of 900 tokens
minillm bench --processor haswell            compiled as for a processor without AVX-512 and VNNI
minillm bench --model tales --rounds 9 --json --plot rates.png
minillm bench --model smollm2                each matrix as the file has it, beside llama.cpp
minillm bench --model smollm2 --stored Q4_1,Q4_0,Q8_0,F16,F32 --prompt 32,512,900
minillm bench --train small                  the training step against torch (or 124m, llama)
minillm bench --batch 8,32,64,128            so many texts at once, beside llama.cpp
minillm bench --busy 4 --model tales         decode and prefill beside four busy processes
minillm bench --busy 4 --train small         the training step beside them
minillm bench --start                        until chat, generate, probs and others say a word
minillm bench --ladders                      kernels rung by rung, beside BLAS and the peak
minillm bench --against ../minillm-0.1       this minillm beside another: is it slower?
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ..errors import InputError, count, short
from .common import PICTURES, check_output, say_written, table, write, write_json

if TYPE_CHECKING:
    from ..bench import PeerComparison, PeerResult
    from ..bench.batch import BatchComparison

RANDOM = "GPT-2 124M, random"
MEMORY = (
    "memory at its peak in the whole run: MB; libraries: of it before there was a model (imports,"
    " Numba's own start)"
)
HELD, WHOLE = ["KV", "libraries", "above"], ["whole", "of llama.cpp"]
STORED = "llama.cpp-stored,minillm-stored"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        help=(
            "a folder, a GGUF file or a bundled name (default: GPT-2 124M's shape from a random"
            " seed)"
        ),
    )
    which = (
        "llama.cpp-Q8_0, say, or groups: all, minillm, transformers, llama.cpp, ctranslate2,"
        " 32-bit, 16-bit, 8-bit, 4-bit, stored"
    )
    parser.add_argument(
        "--peers",
        help=(
            f"by commas, the first being the measure: {which}; an unknown name lists all (default:"
            " all; of a GGUF file the two that take it as it is; of several texts minillm's and"
            " llama.cpp's of each width; beside busy neighbours those of 32 bits; against another"
            " minillm its own of float32 and int8)"
        ),
    )
    parser.add_argument(
        "--prompt",
        "--context",
        default="32",
        metavar="N[,N...]",
        help=(
            "tokens of the prompt: read in prefill, and the context that decode starts from; of"
            " several lengths all have their turn in each round (default: %(default)s)"
        ),
    )
    parser.add_argument(
        "--stored",
        metavar="TYPE[,TYPE...]",
        help=(
            "with a GGUF file: the file in each of these types, Q4_1,Q4_0,Q8_0,F16,F32, say, as"
            " llama.cpp writes it anew; and the memory that the model takes"
        ),
    )
    for names, default, what in (
        (("--new",), 64, "tokens to decode"),
        (("--threads",), 2, "threads for each peer"),
    ):
        parser.add_argument(
            *names, type=int, default=default, metavar="N", help=f"{what} (default: %(default)s)"
        )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="rounds, of which the median counts (default: 5; against another minillm 15)",
    )
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help=(
            "instead: each peer of this minillm and of another one, a checkout or an environment"
            " with Python, in turn; without --model 124M's shape, and tales"
        ),
    )
    parser.add_argument(
        "--train",
        choices=("small", "124m", "llama"),
        help="compare the training step instead, of this shape",
    )
    parser.add_argument(
        "--batch",
        metavar="N[,N...]",
        help=(
            "instead: decode so many texts at once, a token of each a cycle; tokens/s of all"
            " together, ratio to the first peer of the same width"
        ),
    )
    parser.add_argument(
        "--busy",
        type=int,
        metavar="N",
        help=(
            "instead: decode and prefill (with --train the training step) alone and beside N busy"
            " processes, with one and with all threads"
        ),
    )
    parser.add_argument(
        "--cache-dtype",
        choices=("float32", "float16"),
        help="the KV cache of minillm and llama.cpp (default: each one's own, float32 and float16)",
    )
    parser.add_argument(
        "--processor",
        choices=("generic", "haswell"),
        help=(
            "compile minillm for this one instead: any of its kind, or one with AVX2 alone; other"
            " engines are as installed, or as in the folder of this name in $MINILLM_PEERS"
        ),
    )
    parser.add_argument(
        "--start",
        action="store_true",
        help="instead: the time from a command's start to its first word, of several commands",
    )
    parser.add_argument(
        "--ladders",
        action="store_true",
        help="instead: the rungs of kernels/ladders beside BLAS and the peak",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--plot", metavar="FILE.png", help="draw the rates and the machine's limits"
    )


def run(args: argparse.Namespace) -> None:
    from .. import bench
    from ..bench import against, batch, busy, stored
    from ..checkpoints.find import find_model
    from ..families.gpt2.config import GPT2Config
    from ..model import GPT2
    from ..twins.threads import checked_threads

    if args.rounds is None:
        args.rounds = 5 if args.against is None else against.ROUNDS
    prompts = _numbers("prompt", args.prompt)
    _check_modes(args, prompts)
    args.prompt = prompts[0]
    for name in ("new", "rounds", "threads"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    checked_threads(args.threads)
    check_output("--plot", args.plot, PICTURES)
    if args.processor:  # for every process that is started from here
        os.environ.update(bench.for_processor(args.processor))
    if args.busy is not None and not 1 <= args.busy <= 64:
        raise InputError(f"--busy is {args.busy}; it must be from 1 to 64")
    if args.against is not None:
        bench.program(args.against)  # raises, before a model is made
        args.peers = args.peers or against.PEERS
    if args.train:
        args.peers = args.peers or "all"
        return _training(args)
    if args.ladders:
        return _ladders(args)
    if args.start:
        return _start(args)
    batches = _numbers("batch", args.batch) if args.batch is not None else None
    if batches and max(batches) > 512:
        raise InputError(f"--batch is {short(args.batch)}; at most 512 texts decode at once")
    sizes = (args.prompt, args.new, args.rounds, args.threads)
    with tempfile.TemporaryDirectory(prefix="minillm-bench-") as temporary:
        folder = find_model(args.model) if args.model else Path(temporary)
        usual = batch.USUAL if batches else "all" if folder.is_dir() else STORED
        args.peers = args.peers or (busy.PEERS if args.busy else usual)
        if not args.model:
            GPT2.random(GPT2Config(), seed=0).save_pretrained(folder)
        if batches:
            found = batch.run(folder, args.peers, batches, *sizes, args.cache_dtype)
            return _batch(found, args)
        if args.busy:
            titles = {
                "decode": f"decode of {count(args.new, 'token')} after a prompt of {args.prompt}",
                "prefill": f"prefill of {count(args.prompt, 'token')}",
            }
            return _busy(
                busy.run(folder, args.peers, args.busy, *sizes, args.cache_dtype), titles, args
            )
        if args.against is not None:
            models = {args.model or RANDOM: folder}
            if not args.model:
                models["tales"] = find_model("tales")
            lines = against.against(args.against, models, args.peers, *sizes, args.cache_dtype)
            return _against(lines, args)
        if args.stored or len(prompts) > 1:
            how = (stored.checked_types(args.stored), prompts, *sizes[1:], args.cache_dtype)
            return _stored(stored.run(folder, args.peers, *how), args)
        comparison = bench.run(folder, args.peers, *sizes, args.cache_dtype)
    if args.json:
        write_json({"model": args.model or RANDOM} | _values(comparison))
    else:
        _write_tables(comparison, args.rounds)
    if args.plot:
        _draw(comparison, args.plot)


def _check_modes(args: argparse.Namespace, prompts: list[int]) -> None:
    """Raise InputError for options of which each wants a table of its own."""
    modes = ("against", "batch", "busy", "ladders", "plot", "start", "stored", "train")
    given = [f"--{mode}" for mode in modes if getattr(args, mode) not in (None, False)]
    given += ["several prompts"] if len(prompts) > 1 else []
    if len(given) > 1 and given not in (["--busy", "--train"], ["--stored", "several prompts"]):
        raise InputError(f"{given[0]} does not go together with {given[1]}")


def _numbers(option: str, text: str) -> list[int]:
    """The numbers in "32,900"."""
    try:
        if min(numbers := [int(n) for n in text.split(",")]) >= 1:
            return numbers
    except ValueError:
        pass
    raise InputError(
        f"--{option} is {short(text)}; it is a number of at least 1, or several: 32,900"
    )


def _stored(found: list, args: argparse.Namespace) -> None:
    if args.json:
        what = {"model": args.model, "new": args.new, "rounds": args.rounds}
        of = [
            {"type": t.type, "file_bytes": t.file_bytes, "runs": [*map(_values, t.comparisons)]}
            for t in found
        ]
        return write_json(what | {"types": of})
    rows, held = [], []
    for in_type in found:
        for comparison in in_type.comparisons:
            first = comparison.measured[0]
            for r in comparison.measured:
                row = [in_type.type, comparison.n_prompt, r.name]
                for kind in ("decode", "prefill"):
                    row += [f"{median(getattr(r, kind)):,.1f}", f"{r.ratio(first, kind):.2f}"]
                    row += ["{:.2f}-{:.2f}".format(*r.middle_half(first, kind))]
                    row += [f"{comparison.share(r, kind):.0%}"]
                rows.append([*row, _tokens(comparison, r)])
        n = max(c.n_prompt for c in in_type.comparisons) + args.new
        held += [[in_type.type, *row] for row in _held(comparison, n, in_type.file_bytes)]
    write(f"{args.model}: tokens/s of decode ({args.new} tokens after a prompt) and of prefill")
    headings = ["type", "prompt", "peer", "decode", "ratio", "middle half", "of read"]
    headings += ["prefill", "ratio", "middle half", "of GEMM", "greedy tokens"]
    write(table(headings, rows, "<><|>>>>>>>><"))
    write(f"\n{MEMORY}")
    write(table(["type", "peer", "file", *HELD, "of file + KV", *WHOLE], held, "<<|>>>>>>>"))
    write(
        f"\nmedians of {count(args.rounds, 'interleaved round')}; ratio to the first of a type,"
        " round by round; of read, of GEMM: of what the"
    )
    for in_type in found:
        read, multiply = (
            median(rate for c in in_type.comparisons for rate in getattr(c, name)) / 1e9
            for name in ("bandwidth", "flops")
        )
        write(f"machine did meanwhile, {in_type.type}: {read:.1f} GB/s, {multiply:,.0f} GFLOP/s")
        _write_versions(in_type.comparisons[0].results)


def _start(args: argparse.Namespace) -> None:
    from ..bench import start

    starts = start.run(args.model or "smollm2", args.rounds, args.threads)
    if args.json:
        return write_json([vars(one) for one in starts])
    rows = [
        [
            one.name + (", fresh" if one.fresh else ""),
            f"{median(one.seconds):.2f}",
            f"{min(one.seconds):.2f}-{max(one.seconds):.2f}",
            f"{median(one.processor):.2f}" if one.processor else "?",
            " ".join(one.arguments),
        ]
        for one in starts
        if not one.missing
    ]
    write("seconds from the start of a process to its first character, and of processor time")
    write(table(["", "median", "range", "processor", "command"], rows, "<>>><"))
    write(f"\nmedians of {count(args.rounds, 'round')}, after one to warm up")
    if any(one.fresh for one in starts):
        write("fresh: as just installed, where kernels are compiled first; started once")
    for one in starts:
        if one.missing:
            write(f"{one.name}: missing ({one.missing})")


def _training(args: argparse.Namespace) -> None:
    from ..bench import busy, trainers

    if args.model:
        raise InputError("--train takes no --model: its shapes are fixed")
    B, T = trainers.SHAPES[args.train][1]
    title = f"training step (forward, backward, AdamW) of {args.train}, batch {B} x {T}"
    if args.busy:
        found = busy.train(args.train, args.peers, args.busy, args.rounds, args.threads)
        return _busy(found, {"training": title}, args)
    comparison = trainers.run(args.train, args.peers, args.rounds, args.threads)
    if args.json:
        derived = {
            r.name: {"ratio": comparison.ratio(r), "share": comparison.share(r)}
            for r in comparison.measured
        }
        write_json(
            vars(comparison)
            | {"results": [vars(r) | derived.get(r.name, {}) for r in comparison.results]}
        )
        return
    megabytes = lambda n: f"{n / 1e6:,.0f}" if n else "?"  # noqa: E731
    write(f"{title}: tokens/s")
    rows = [
        [
            r.name,
            f"{median(r.rates):,.0f}",
            f"{min(r.rates):,.0f}-{max(r.rates):,.0f}",
            f"{comparison.ratio(r):.2f}",
            f"{median(r.rates) * comparison.flop_per_token / 1e9:,.0f}",
            f"{comparison.share(r):.0%}",
            megabytes(r.peak_bytes),
            megabytes(r.step_bytes),
            f"{r.loss:.5f}",
            r.threads,
        ]
        for r in comparison.measured
    ]
    headings = (
        "peer",
        "median",
        "range",
        "ratio",
        "GFLOP/s",
        "of GEMM",
        "peak MB",
        "of it the step",
        "last loss",
        "threads",
    )
    write(table(headings, rows, "<>>>>>>>>>"))
    gemm, first = median(comparison.flops) / 1e9, comparison.measured[0].name
    write(
        f"\nmedians of {count(args.rounds, 'interleaved round')}; ratio to {first}, round by round;"
        " float32 GEMM, measured between:"
    )
    write(
        f"{gemm:,.0f} GFLOP/s; of the peak, the step: without what the libraries took before there"
        " was a model"
    )
    for r in comparison.results:
        write(
            f"{r.name}: "
            + (
                f"missing ({r.missing})"
                if r.missing
                else ", ".join(f"{k} {v}" for k, v in r.versions.items())
            )
        )


def _busy(results: list, titles: dict[str, str], args: argparse.Namespace) -> None:
    """titles: of each kind of work that was measured."""
    if args.json:
        return write_json([vars(result) for result in results])
    measured = [result for result in results if not result.missing]
    alone = {r.name: r for r in measured if (r.threads, r.busy) == (1, 0)}
    headings = ["busy", "peer", "threads", "tokens/s", "range", "ratio"]
    headings += ["tokens/s of processor", "of one thread alone"]
    for kind, title in titles.items():
        rows = []
        for r in measured:
            rates, first = r.rates[kind], next(o for o in measured if o.busy == r.busy)
            row = [r.busy, r.name, r.threads, f"{median(rates):,.1f}"]
            row += [f"{min(rates):,.1f}-{max(rates):,.1f}", f"{r.ratio(first, kind):.2f}"]
            row += [f"{median(r.per_cpu[kind]):,.1f}"]
            rows.append([*row, f"{r.ratio(alone.get(r.name, r), kind, 'per_cpu'):.2f}"])
        write(f"{title}, beside busy processes")
        write(table(headings, rows, "><>|>>>>>") + "\n")
    write(
        f"medians of {count(args.rounds, 'interleaved round')}; ratio to the first beside as many"
        " busy processes"
    )
    _write_versions(results)


def _batch(comparison: BatchComparison, args: argparse.Namespace) -> None:
    rows, lines = [], []
    for r in comparison.results:
        line = {name: getattr(r, name) for name in ("name", "batch", "rates", "missing")}
        lines.append(line)
        if r.missing:
            continue
        ratio, reference = comparison.ratio(r), comparison.reference(r)
        n, gap = r.agreement(reference)
        line |= {"ratio": ratio, "same_texts": n, "gap": gap}
        row = [r.batch, r.name, f"{median(r.rates):,.1f}"]
        row += [f"{min(r.rates):,.1f}-{max(r.rates):,.1f}", f"{ratio:.2f}"]
        row += ["reference" if r is reference else f"{n} same", f"{gap:.4f}" if gap else ""]
        rows.append(row)
    if args.json:
        what = {"model": args.model or RANDOM, "prompt": args.prompt, "new": args.new}
        what |= {"rounds": args.rounds, "threads": args.threads}
        return write_json(what | {"results": lines})
    write(
        f"{count(args.new, 'token')} after a prompt of {args.prompt}, of so many texts at once:"
        " tokens/s of all together"
    )
    headings = ["texts", "peer", "median", "range", "ratio", "greedy texts", "gap"]
    write(table(headings, rows, "><|>>><>"))
    write(
        f"\nmedians of {count(args.rounds, 'interleaved round')}; ratio to the first peer of as"
        " many texts and the same width;"
    )
    write(
        "greedy texts against minillm's first there, and how far its two largest logits are apart"
    )
    write("where another text parts from it, at most")
    _write_versions(comparison.results)


def _against(lines: list, args: argparse.Namespace) -> None:
    if args.json:
        what = {"other": args.against, "prompt": args.prompt, "new": args.new}
        what |= {"rounds": args.rounds, "threads": args.threads}
        return write_json(what | {"lines": [vars(line) for line in lines]})
    rows = [
        [
            line.model,
            line.peer,
            line.kind,
            f"{line.this:,.1f}",
            f"{line.other:,.1f}",
            f"{line.ratio:.3f}",
            "{:.3f}-{:.3f}".format(*line.middle_half),
            "same" if line.same_tokens else "differ",
        ]
        for line in lines
        if not line.missing
    ]
    write(f"this minillm and {args.against}: tokens/s of prefill ({args.prompt} tokens) and decode")
    write(f"(the {args.new} tokens after them)")
    headings = ("model", "peer", "", "this", "other", "ratio", "middle half", "greedy tokens")
    write(table(headings, rows, "<<<|>>>><"))
    write(f"\nmedians of {args.rounds} interleaved rounds; ratio this / other, round by round")
    for line in lines:
        if line.missing:
            write(f"{line.model}, {line.peer}, {line.kind}: missing ({line.missing})")


def _ladders(args: argparse.Namespace) -> None:
    from ..bench import ladders

    rungs = ladders.run(args.rounds, args.threads)
    shares = [
        {
            r.name: rung.share(r)
            for r in rungs
            if r.group == rung.group and r.name in ladders.MEASURES
        }
        for rung in rungs
    ]
    if args.json:
        told = ("group", "name", "threads", "rates")
        return write_json(
            [
                {name: getattr(r, name) for name in told} | {"shares": of}
                for r, of in zip(rungs, shares)
            ]
        )
    for group in dict.fromkeys(rung.group for rung in rungs):
        members = [(rung, of) for rung, of in zip(rungs, shares) if rung.group == group]
        unit = "GFLOP/s" if ladders.BLAS in members[0][1] else "numbers/ns"
        rows = [
            [r.name, f"{median(r.rates) / 1e9:,.2f}", *(f"{share:.2f}" for share in of.values())]
            for r, of in members
        ]
        headings = ("", unit, *(f"of {name}" for name in members[0][1]))
        write(f"{group}\n{table(headings, rows, '<>>>'[: len(headings)])}\n")
    write(f"medians of {count(args.rounds, 'interleaved round')}")


def _write_tables(comparison: PeerComparison, rounds: int) -> None:
    measured, first = comparison.measured, comparison.measured[0]

    def rates(result, kind) -> list:
        values, cost = getattr(result, kind), comparison.cost(result, kind)
        row = [result.name, f"{median(values):,.1f}", f"{min(values):,.1f}-{max(values):,.1f}"]
        row += [f"{result.ratio(first, kind):.2f}", f"{cost / 1e6:,.1f}"]
        return [
            *row,
            f"{median(values) * cost / 1e9:,.1f}",
            f"{comparison.share(result, kind):.0%}",
        ]

    write(
        f"decode of {count(comparison.n_new, 'token')} after a prompt of {comparison.n_prompt}:"
        " tokens/s"
    )
    headings = ["peer", "median", "range", "ratio", "MB/token", "GB/s", "of read", "greedy tokens"]
    write(
        table(
            headings, [[*rates(r, "decode"), _tokens(comparison, r)] for r in measured], "<>>>>>><"
        )
    )
    write(f"\nprefill of {count(comparison.n_prompt, 'token')}: tokens/s; time to the first token")
    headings = ["peer", "median", "range", "ratio", "MFLOP/token", "GFLOP/s", "of GEMM"]
    headings += ["first ms", "threads"]
    rows = [
        [
            *rates(r, "prefill"),
            f"{1e3 * comparison.n_prompt / median(r.prefill):,.1f}",
            r.threads,
        ]
        for r in measured
    ]
    write(table(headings, rows, "<>>>>>>>>"))
    held = _held(comparison, comparison.n_prompt + comparison.n_new)
    write(f"\n{MEMORY}")
    write(table(["peer", "weights", *HELD, "of weights + KV", *WHOLE], held, "<>>>>>>>"))
    read, multiply = median(comparison.bandwidth) / 1e9, median(comparison.flops) / 1e9
    write(
        f"\nmedians of {count(rounds, 'interleaved round')}; ratio to {first.name}, round by round;"
        " greedy tokens against"
    )
    write(
        f"{comparison.reference.name}; measured between: reading {read:.1f} GB/s, float32 GEMM"
        f" {multiply:,.0f} GFLOP/s"
    )
    _write_versions(comparison.results)


def _held(comparison: PeerComparison, n: int, weights: int | None = None) -> list[list[str]]:
    """What each peer held at its peak, as rows of a table. n: positions of the cache; weights: how
    many bytes they should take, if not what a token reads of them."""
    from ..bench.peers import PEERS

    def shown(number, unit: float | None = 1e6, form: str = ",.0f") -> str:
        return f"{number / unit:{form}}" if number and unit else "?"

    bits = {r.name: PEERS[r.name.partition("@")[0]].bits for r in comparison.measured}
    llama = {bits[r.name]: r for r in comparison.measured if r.name.startswith("llama.cpp")}
    rows = []
    for r in comparison.measured:
        due, KV, other = weights or r.weight_bytes, r.cache_bytes * n, llama.get(bits[r.name])
        row = [r.name, *(shown(size, form=",.1f") for size in (due, KV))]
        row += [shown(r.libraries), shown(r.model_bytes), shown(r.model_bytes, due + KV, ".2f")]
        row += [
            shown(r.peak_bytes),
            shown(r.peak_bytes, other.peak_bytes if other else None, ".2f"),
        ]
        rows.append(row)
    return rows


def _tokens(comparison: PeerComparison, result: PeerResult) -> str:
    if result is comparison.reference:
        return "reference"
    pairs = zip(result.tokens, comparison.reference.tokens)
    first = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
    return "same" if first is None else f"differ from {first}"


def _write_versions(results: list) -> None:
    said: dict[str, dict[str, None]] = {}  # what is the same for several is said once
    for r in results:
        what = (
            f"missing ({r.missing})"
            if r.missing
            else ", ".join(f"{k} {v}" for k, v in r.versions.items())
        )
        said.setdefault(what, {})[r.name] = None
    for what, names in said.items():
        write(f"{', '.join(names)}: {what}")


def _values(comparison: PeerComparison) -> dict:
    what = {"prompt": comparison.n_prompt, "new": comparison.n_new}
    limits = {
        "bandwidth": comparison.bandwidth,
        "flops": comparison.flops,
        "flop_per_token": comparison.flop_per_token,
    }
    results = []
    for result in comparison.results:
        derived: dict[str, object] = {}
        if not result.missing:
            for kind in ("decode", "prefill"):
                derived[f"{kind}_ratio"] = result.ratio(comparison.measured[0], kind)
                derived[f"{kind}_share"] = comparison.share(result, kind)
            derived["first_token_s"] = comparison.n_prompt / median(result.prefill)
            derived["same_tokens"] = result.tokens == comparison.reference.tokens
            derived["model_bytes"] = result.model_bytes
        results.append(vars(result) | derived)
    return what | limits | {"results": results}


def _draw(comparison: PeerComparison, path: str) -> None:
    from matplotlib.figure import Figure

    from .. import plots

    figure = Figure(figsize=(11, 1.5 + 0.4 * len(comparison.measured)), layout="constrained")
    for kind, ax in zip(("decode", "prefill"), figure.subplots(1, 2)):
        plots.rates(comparison, kind, ax)
    plots.save(figure, path)
    say_written(path)
