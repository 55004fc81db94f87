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
from collections.abc import Sequence
from functools import partial
from time import perf_counter

from ..errors import InputError, count
from .common import add_compute, add_model, add_text, load, text_of, write, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_text(parser, "the prompt")
    add_model(parser)
    add_compute(parser)
    add_options(parser)
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end before TEXT; may be given often",
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


def add_options(
    parser: argparse.ArgumentParser, without: Sequence[str] = (), **defaults: int
) -> None:
    """One flag for each of decoding.Options; what is not given is None, and left to the model, or
    to the command, which tells its `defaults`."""
    from ..decoding.options import DEFAULT_NEW_TOKENS, ROWS

    defaults = {"max_new_tokens": DEFAULT_NEW_TOKENS} | defaults
    group = parser.add_argument_group(
        "decoding", "what is not given is as the model's generation_config.json says, or greedy"
    )
    kinds: dict = {
        "int": {"type": int, "metavar": "N"},
        "float": {"type": float, "metavar": "X"},
        "bool": {"action": argparse.BooleanOptionalAction},
    }
    for name, row in ROWS.items():
        how = row.get("how", kinds.get(row["kind"]))
        if how is not None and name not in without:
            flag = row.get("flag", f"--{name.replace('_', '-')}")
            default = f" (default: {defaults[name]})" if name in defaults else ""
            group.add_argument(flag, dest=name, help=row["what"] + default, **how)


def given_options(args: argparse.Namespace) -> dict:
    """The options of decoding that were given, by name."""
    from ..decoding.options import ROWS

    return {n: v for n in ROWS if (v := getattr(args, n, None)) is not None}


def run(args: argparse.Namespace) -> None:
    from .. import generate
    from ..decoding.cycle import positions_for
    from ..decoding.drafts import named_draft
    from ..decoding.options import ROWS, Options
    from ..loading import load as load_model

    if args.draft_tokens is not None and args.draft is None:
        raise InputError(f"--draft-tokens {args.draft_tokens} is for a draft: give --draft, too")
    prompt = text_of(args)
    start = perf_counter()
    model, tokenizer = load(args)
    loaded = perf_counter()
    draft = (
        named_draft(args.draft, model, tokenizer, load_model, args.draft_tokens)
        if args.draft
        else None
    )
    options = given_options(args)
    ids = tokenizer.encode_prompt(prompt)
    story = partial(generate, model, tokenizer, ids, stop=args.stop, draft=draft)
    stream, applied = story(**options), Options(**options).on(model)
    if args.stats or args.json:  # kernels are loaded, and memory touched, before anything is timed
        few = min(8 if draft else 2, applied.new_tokens(len(ids), positions_for(model, applied)))
        list(story(**options | {"max_new_tokens": few}))
    started = perf_counter()
    moments, began = [], False
    try:
        for moment in stream:
            text, began = moment.text if began else prompt + moment.text, True
            if not args.json:
                write(text, end="")
            moments.append(moment)
    finally:
        if began and not args.json:
            write("")
    figures = {"load_seconds": loaded - start, "start_seconds": started - loaded, **stats(moments)}
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
                "options": {n: v for n in ROWS if (v := getattr(applied, n)) is not None},
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
        start_up = f"kernels are loaded, and {count(few, 'token')} tried"
        print(f"start    {figures['start_seconds']:.3f} s: {start_up}", file=sys.stderr)


def stats(moments) -> dict:
    """Return tokens, seconds and tokens/s of each kind of cycle: the time of the model's passes and
    the choices."""
    from ..decoding.speculative import acceptance

    # several tokens may share one
    cycles = list(dict.fromkeys(c for m in moments for c in (*m.before, m.cycle)))
    figures: dict = {}
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
