"""Score a text file: bits per byte and perplexity, with the protocol stated.

minillm score fables.txt
minillm score story.txt --model tales-draft --dtype int8 --stride 256
mpiexec -n 4 python -m minillm score library.txt      windows shared out: the same numbers
"""

from __future__ import annotations

import argparse

from ..errors import InputError, count
from ..samples import own_or_sample
from .common import add_compute, add_model, join, load, text_of_file, write, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=own_or_sample,
        help="a UTF-8 text file (the sample: fables.txt); every <|endoftext|> ends a document",
    )
    add_model(parser)
    add_compute(parser)
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="positions seen at once (default: all the model has)",
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="from one window's start to the next (default: the window)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from ..decoding.scoring import score_long

    for name in ("window", "stride"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    ranks = join()
    text = text_of_file(args.file)
    model, tokenizer = load(args)
    score = score_long(model, tokenizer, text, args.window, args.stride, ranks=ranks)
    edges = [int(2**n) for n in range(20) if 2**n < score.window] + [score.window]
    by_position = [
        (
            first,
            end - 1,
            float(score.nats[(score.positions >= first) & (score.positions < end)].mean()),
        )
        for first, end in zip([0, *edges], edges)
        if ((score.positions >= first) & (score.positions < end)).any()
    ]
    if args.json:
        write_json(
            {
                "model": args.model,
                "file": str(args.file),
                "bytes": score.n_bytes,
                "tokens": len(score.nats),
                "window": score.window,
                "stride": score.stride,
                "bits_per_byte": score.bits_per_byte,
                "perplexity": score.perplexity,
                "nats_by_position": [
                    {"first": a, "last": b, "nats": nats} for a, b, nats in by_position
                ],
            }
        )
        return
    write(f"{score.bits_per_byte:.4f} bits a byte, perplexity {score.perplexity:.2f} a token")
    predicted = count(len(score.nats), "predicted token")
    write(
        f"{predicted}, {count(score.n_bytes, 'byte')}; window {score.window}, stride {score.stride}"
    )
    write("nats a token by position in the window:")
    for first, last, nats in by_position:
        write(f"  {first:>5} to {last:<5} {nats:.4f}")
