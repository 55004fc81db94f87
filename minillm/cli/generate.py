"""Continue a text, token by token.

minillm generate "Once upon a time"
minillm generate "The king" --temperature 0 --max-new-tokens 100 --stats
echo "There was a fox" | minillm generate --stop "." --json
minillm generate "The king" --draft ngram --stats
minillm generate "The king" --draft tales-draft --temperature 0 --stats
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from time import perf_counter

from .common import add_compute, add_model, add_text, count, load, text_of, write, write_json

TEMPERATURE, MIN_P = (
    1.0,
    0.05,
)  # of the command line, where people look for stories; the library's default is greedy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..decoding.options import DEFAULT_NEW_TOKENS

    add_text(parser, "the prompt")
    add_model(parser)
    add_compute(parser)
    length = f"tokens to add (default {DEFAULT_NEW_TOKENS})"
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help=length)
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="most tokens in all, the prompt counted"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help=f"0 is greedy (default {TEMPERATURE}; with beams 0)",
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="choose among the K likeliest tokens"
    )
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="choose among the likeliest that together reach P"
    )
    min_p = (
        "choose among those at least P times as likely as the likeliest (default %(default)s; 0 for"
        " all)"
    )
    parser.add_argument("--min-p", type=float, default=MIN_P, metavar="P", help=min_p)
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="R", help="above 1: repeat less"
    )
    parser.add_argument("--num-beams", type=int, default=1, metavar="N", help="search with N beams")
    parser.add_argument(
        "--length-penalty",
        type=float,
        default=1.0,
        metavar="X",
        help="of beam search: above 0 favours longer",
    )
    parser.add_argument("--seed", type=int, help="the same seed gives the same text")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end before TEXT; may be given often",
    )
    parser.add_argument(
        "--cache-dtype",
        choices=("float32", "float16"),
        help="of the KV cache: float16 halves its memory",
    )
    parser.add_argument(
        "--on-full", choices=("error", "slide"), default="error", help="when the positions run out"
    )
    parser.add_argument(
        "--chunk",
        type=int,
        metavar="N",
        help="read the prompt N positions at a time (the same tokens)",
    )
    parser.add_argument(
        "--no-cache",
        dest="use_cache",
        action="store_false",
        help="compute everything anew for each token",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="W",
        help="attend to the newest W positions only (--no-cache: read them anew)",
    )
    draft = (
        "guess tokens, which the model only checks: a model, ngram, skip:N layers, or int8, int4,"
        " ... of the same model"
    )
    parser.add_argument("--draft", metavar="HOW", help=draft)
    parser.add_argument(
        "--draft-tokens",
        type=int,
        metavar="K",
        help="how many to guess at once (default 4; ngram up to 32)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument(
        "--stats", action="store_true", help="print tokens/s of prefill and decode (on stderr)"
    )


def run(args: argparse.Namespace) -> None:
    from .. import generate
    from ..decoding.drafts import named_draft
    from ..decoding.options import Options

    prompt = text_of(args)
    start = perf_counter()
    model, tokenizer = load(args)
    loaded = perf_counter()
    temperature = args.temperature
    if temperature is None:
        temperature = TEMPERATURE if args.num_beams == 1 else 0.0
    options = {f.name: getattr(args, f.name) for f in fields(Options) if hasattr(args, f.name)} | {
        "temperature": temperature
    }
    draft = named_draft(args.draft, model, tokenizer, args.draft_tokens) if args.draft else None
    moments, began = [], False
    try:
        for moment in generate(model, tokenizer, prompt, stop=args.stop, draft=draft, **options):
            text, began = moment.text if began else prompt + moment.text, True
            if not args.json:
                write(text, end="")
            moments.append(moment)
    finally:
        if began and not args.json:
            write("")
    figures = stats(moments, loaded - start)
    if args.json:
        begin = moments[0].cycle.start
        tokens = [
            {"id": m.id, "text": m.text, "logprob": m.logprob, "time_ns": m.time - begin}
            for m in moments
        ]
        write_json(
            {
                "model": args.model,
                "prompt": prompt,
                "text": "".join(m.text for m in moments),
                "finish": moments[-1].finish,
                "options": options,
                "tokens": tokens,
                "stats": figures,
            }
        )
    if args.stats and not args.json:
        for kind in ("prefill", "decode", *(("draft", "verify") if draft else ())):
            f = figures[kind]
            rate = (
                f"{f['tokens_per_s']:,.1f} tokens/s" if f["tokens_per_s"] else "nothing to measure"
            )
            print(
                f"{kind:<8} {count(f['tokens'], 'token'):>12} in {f['seconds']:.3f} s: {rate}",
                file=sys.stderr,
            )
        if draft:
            kept, checked = figures["guesses"]["kept"], figures["guesses"]["checked"]
            share = f"{kept / checked:.0%}" if checked else "none"
            overall = len(moments) * 1e9 / (moments[-1].time - moments[0].cycle.start)
            print(
                f"guesses  {kept:>5} kept of {checked} ({share}); all in all {overall:,.1f}"
                " tokens/s",
                file=sys.stderr,
            )
        print(f"load     {figures['load_seconds']:.3f} s", file=sys.stderr)


def stats(moments, load_seconds: float) -> dict:
    """Return tokens, seconds and tokens/s of each kind of cycle: the time of the model's passes and
    the choices."""
    from ..decoding.speculative import acceptance

    cycles = list(
        dict.fromkeys(c for m in moments for c in (*m.before, m.cycle))
    )  # several tokens may share one
    figures: dict = {"load_seconds": load_seconds}
    ends = [*(c.start for c in cycles[1:]), max(moments[-1].time, cycles[-1].end)]
    for kind in ("prefill", "decode", "draft", "verify"):
        chosen = [(c, end) for c, end in zip(cycles, ends) if c.kind == kind]
        tokens = sum(c.positions for c, _ in chosen)
        seconds = sum(end - c.start for c, end in chosen) / 1e9
        figures[kind] = {
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_s": tokens / seconds if seconds else None,
        }
    kept, checked = acceptance(moments)
    figures["guesses"] = {"kept": kept, "checked": checked}
    return figures
