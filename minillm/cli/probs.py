"""Show P(next | text) as a ranked table, and how likely the text itself is.

minillm probs "The cat sat on the"
minillm probs "The cat sat on the" --next " mat" --next " hat" --next " throne"
"""

from __future__ import annotations

import argparse
import math

from ..errors import InputError
from .common import (
    add_compute,
    add_model,
    add_text,
    load,
    table,
    text_of,
    token_name,
    write,
    write_json,
)

BAR = 30  # characters of the longest bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_text(parser, "the text")
    add_model(parser)
    add_compute(parser)
    parser.add_argument(
        "--top",
        type=int,
        default=10,
        metavar="N",
        help="how many tokens to list (default: %(default)s)",
    )
    parser.add_argument(
        "--next",
        action="append",
        default=[],
        metavar="TEXT",
        help="P of this continuation, a word with the space before it (' mat'); may be given often",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from ..decoding.scoring import continuation_logprob, next_logprobs, score

    text = text_of(args)
    if args.top < 0:
        raise InputError(f"--top is {args.top}; it must be 0 or more")
    model, tokenizer = load(args)
    ids = tokenizer.encode_prompt(text)
    if not ids:
        raise InputError("the text is empty: give at least one character")
    whole = score(model, ids)
    following = next_logprobs(model, ids)
    best = (-following).argsort(kind="stable")[: args.top]
    words = []
    for word in args.next:
        word_ids = tokenizer.encode(word)
        words.append((word, word_ids, continuation_logprob(model, ids, word_ids)))
    n_bytes = len(tokenizer.decode_bytes(ids[1:]))
    unnamed = {*tokenizer.ids_without_token(model.config.sizes.V)}
    if args.json:
        write_json(
            {
                "model": args.model,
                "text": text,
                "ids": ids,
                "logprobs": [None, *map(float, whole.logprobs)],
                "logprob": whole.logprob,
                "cross_entropy": whole.cross_entropy if len(ids) > 1 else None,
                "perplexity": whole.perplexity if len(ids) > 1 else None,
                "next": [
                    {
                        "id": int(i),
                        "token": None if i in unnamed else tokenizer.decode([i]),
                        "p": math.exp(following[i]),
                    }
                    for i in best
                ],
                "continuations": [
                    {"text": w, "ids": i, "p": math.exp(lp), "logprob": lp} for w, i, lp in words
                ],
            }
        )
        return
    rows: list[tuple] = [(ids[0], token_name(tokenizer, ids[0]), "given", "", "")]
    for i, logprob, rank in zip(ids[1:], whole.logprobs, whole.ranks):
        rows.append(
            (i, token_name(tokenizer, i), f"{logprob:.4f}", percent(math.exp(logprob)), rank)
        )
    write(table(("id", "token", "log P", "P", "rank"), rows, "><|>>>"))
    if len(ids) > 1:
        write(
            f"\nlog P of the text {whole.logprob:.4f} nats over {len(ids) - 1} predicted tokens;"
            f" cross-entropy {whole.cross_entropy:.4f} nats a token,"
            f" {-whole.logprob / math.log(2) / n_bytes:.4f} bits a byte; perplexity"
            f" {whole.perplexity:.2f}"
        )
    if args.top:
        longest = math.exp(following[best[0]])
        rows = []
        for rank, i in enumerate(best, 1):
            p = math.exp(following[i])
            rows.append(
                (
                    rank,
                    token_name(tokenizer, i),
                    percent(p),
                    f"{following[i]:.4f}",
                    "#" * round(BAR * p / longest),
                )
            )
        write("\nP(next | text)\n" + table(("rank", "token", "P", "log P", ""), rows, "><|>><"))
    if words:
        rows = [
            (
                repr(w),
                percent(math.exp(lp)),
                f"{lp:.4f}",
                " ".join(token_name(tokenizer, i) for i in word_ids),
            )
            for w, word_ids, lp in sorted(words, key=lambda entry: -entry[2])
        ]
        write(
            "\nP(continuation | text)\n"
            + table(("continuation", "P", "log P", "tokens"), rows, "<>><")
        )
        within = next((w for w in args.next if text[-1].isalnum() and w[0].isalnum()), None)
        if within:
            write(f'{within!r} goes on within a word; as the next word it is --next " {within}"')


def percent(p: float) -> str:
    return f"{100 * p:.3f} %" if p >= 1e-5 else f"{100 * p:.1e} %"
