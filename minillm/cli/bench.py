"""Measure decode and prefill beside other engines, in turn, in one run.

minillm bench                                GPT-2 124M's shape, random weights
minillm bench --model tales --rounds 9 --json
"""

from __future__ import annotations

import argparse
import tempfile
from statistics import median

from ..errors import InputError
from .common import table, write, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..bench.peers import PEERS

    parser.add_argument("--model", help="a folder or a bundled name (default: GPT-2 124M's shape from a random seed)")
    parser.add_argument("--peers", default=",".join(PEERS), help="which, the first being the measure (default: %(default)s)")
    for name, default, what in (
        ("prompt", 32, "prompt tokens"),
        ("new", 64, "tokens to decode"),
        ("rounds", 5, "rounds, of which the median counts"),
        ("threads", 2, "threads for each peer"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what} (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from .. import bench
    from ..checkpoints import find_folder
    from ..config import GPT2Config
    from ..model import GPT2

    for name in ("prompt", "new", "rounds", "threads"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    with tempfile.TemporaryDirectory(prefix="minillm-bench-") as temporary:
        folder = find_folder(args.model) if args.model else temporary
        if not args.model:
            GPT2.random(GPT2Config(), seed=0).save_pretrained(folder)
        results = bench.run(folder, args.peers.split(","), args.prompt, args.new, args.rounds, args.threads)
    measured = [r for r in results if not r.missing]
    if args.json:
        what = {"model": args.model or "GPT-2 124M, random", "prompt": args.prompt, "new": args.new}
        write_json(what | {"results": [vars(r) for r in results]})
        return
    rows = []
    for r in measured:
        row = [r.name]
        for kind in ("decode", "prefill"):
            rates = getattr(r, kind)
            row += [f"{median(rates):,.1f}", f"{min(rates):,.1f}-{max(rates):,.1f}", f"{r.ratio(measured[0], kind):.2f}"]
        row += [f"{r.peak_bytes / 1e6:,.0f}" if r.peak_bytes else "?", r.threads]
        row.append("same" if r.tokens == measured[0].tokens else f"differ from {_first_difference(r.tokens, measured[0].tokens)}")
        rows.append(row)
    headings = ("peer", "decode", "range", "ratio", "prefill", "range", "ratio", "peak MB", "threads", "tokens")
    if rows:
        write(f"tokens/s: decode {args.new} after a prompt of {args.prompt}, prefill {args.prompt}")
        write(table(headings, rows, "<>>>>>>>><"))
        write(f"median of {args.rounds} interleaved rounds; ratio to {measured[0].name}, round by round")
    for r in results:
        write(f"{r.name}: " + (f"missing ({r.missing})" if r.missing else ", ".join(f"{k} {v}" for k, v in r.versions.items())))


def _first_difference(ours: list[int], theirs: list[int]) -> int:
    return next(i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b)
