"""Measure decode and prefill beside other engines, in turn, in one run, and beside what the machine
can do.

minillm bench                                GPT-2 124M's shape, every peer that is installed
minillm bench --peers 8-bit --context 900    decode after a prompt of 900 tokens
minillm bench --processor haswell            compiled as for a processor without AVX-512 and VNNI
minillm bench --model tales --rounds 9 --json --plot rates.png
minillm bench --model tales --prompt 32,128,448
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
from typing import TYPE_CHECKING

from ..errors import InputError, count, short
from .common import PICTURES, check_output, say_written, table, write, write_json

if TYPE_CHECKING:
    from ..bench import PeerComparison
    from ..bench.report import Report

RANDOM = "GPT-2 124M, random"
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
    from ..bench import against, ladders, report, start
    from ..twins.threads import checked_threads

    if args.rounds is None:
        args.rounds = 5 if args.against is None else against.ROUNDS
    prompts = _numbers("prompt", args.prompt)
    _check_modes(args, prompts)
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
    rounds, threads = args.rounds, args.threads
    if args.train:
        _show(_training(args), args)
    elif args.ladders:
        _show(report.of_ladders(ladders.run(rounds, threads), rounds), args)
    elif args.start:
        found = start.run(args.model or "smollm2", rounds, threads)
        _show(report.of_starts(found, rounds), args)
    else:
        _models(args, prompts)


def _models(args: argparse.Namespace, prompts: list[int]) -> None:
    """The modes in which peers read a prompt and decode."""
    from .. import bench
    from ..bench import against, batch, busy, report, stored
    from ..checkpoints.find import find_model
    from ..families.gpt2.config import GPT2Config
    from ..model import GPT2

    batches = _numbers("batch", args.batch) if args.batch is not None else None
    if batches and max(batches) > 512:
        raise InputError(f"--batch is {short(args.batch)}; at most 512 texts decode at once")
    name, n_prompt = args.model or RANDOM, prompts[0]
    sizes, dtype = (n_prompt, args.new, args.rounds, args.threads), args.cache_dtype
    with tempfile.TemporaryDirectory(prefix="minillm-bench-") as temporary:
        folder = find_model(args.model) if args.model else Path(temporary)
        usual = batch.USUAL if batches else "all" if folder.is_dir() else STORED
        peers = args.peers or (busy.PEERS if args.busy else usual)
        if not args.model:
            GPT2.random(GPT2Config(), seed=0).save_pretrained(folder)
        if batches:
            together = batch.run(folder, peers, batches, *sizes, dtype)
            return _show(report.of_batches(together, name, *sizes), args)
        if args.busy:
            titles = {
                "decode": f"decode of {count(args.new, 'token')} after a prompt of {n_prompt}",
                "prefill": f"prefill of {count(n_prompt, 'token')}",
            }
            beside = busy.run(folder, peers, args.busy, *sizes, dtype)
            return _show(report.of_busy(beside, titles, args.rounds), args)
        if args.against is not None:
            models = {name: folder} | ({} if args.model else {"tales": find_model("tales")})
            lines = against.against(args.against, models, peers, *sizes, dtype)
            return _show(report.of_another(lines, args.against, *sizes), args)
        if args.stored or len(prompts) > 1:
            types = stored.checked_types(args.stored)
            found = stored.run(folder, peers, types, prompts, *sizes[1:], dtype)
            return _show(report.of_lengths(found, name, args.new, args.rounds), args)
        comparison = bench.run(folder, peers, *sizes, dtype)
    _show(report.of_peers(comparison, name, args.rounds), args)
    if args.plot:
        _draw(comparison, args.plot)


def _training(args: argparse.Namespace) -> Report:
    from ..bench import busy, report, trainers

    if args.model:
        raise InputError("--train takes no --model: its shapes are fixed")
    (B, T), peers = trainers.SHAPES[args.train][1], args.peers or "all"
    title = f"training step (forward, backward, AdamW) of {args.train}, batch {B} x {T}"
    if args.busy:
        found = busy.train(args.train, peers, args.busy, args.rounds, args.threads)
        return report.of_busy(found, {"training": title}, args.rounds)
    comparison = trainers.run(args.train, peers, args.rounds, args.threads)
    return report.of_training(comparison, title, args.rounds)


def _show(report: Report, args: argparse.Namespace) -> None:
    if args.json:
        return write_json(report.values)
    for part in report.parts:
        write(part if isinstance(part, str) else table(*part))


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


def _draw(comparison: PeerComparison, path: str) -> None:
    from matplotlib.figure import Figure

    from .. import plots

    figure = Figure(figsize=(11, 1.5 + 0.4 * len(comparison.measured)), layout="constrained")
    for kind, ax in zip(("decode", "prefill"), figure.subplots(1, 2)):
        plots.rates(comparison, kind, ax)
    plots.save(figure, path)
    say_written(path)
