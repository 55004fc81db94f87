"""Find where two models part on one text: the moment and the first step that differ beyond
rounding, how far apart they are before the text shows it, and both texts.

minillm diverge tales tales:int8 "Once upon a time"        as stored in 8 bits
minillm diverge tales@numpy tales@numba "The king"         by other functions
minillm diverge tales ./tuned "The king" --json            weights that were changed
minillm diverge tales tales@transformers "The king"        another engine (or @llama.cpp)
minillm diverge tales tales "The king" --seed 1,2          other draws

A model is MODEL[:DTYPE][@KERNELS]. A step counts as different if it is so from the same inputs, by
more than both sides' rounding, which is measured: minillm/bench/rounding.py has the rule.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter

from ..errors import InputError, count, short
from .common import add_text, text_of, warn_of_no_number, write, write_json
from .generate import add_options, given_options
from .verify import kind_of

# options of generate that a comparison moment by moment has no use for
OTHERS = (
    *("seed", "max_length", "num_beams", "num_return_sequences", "length_penalty"),
    *("early_stopping", "window", "on_full", "chunk", "use_cache", "cache_dtype"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = (
        "a folder, a GGUF file, a bundled name or a hub name, and after it :DTYPE and @KERNELS if"
        " need be: tales:int8@numba, or an engine, tales@transformers"
    )
    parser.add_argument("a", metavar="A", help=what)
    parser.add_argument("b", metavar="B", help="the other one")
    add_text(parser, "the prompt")
    add_options(parser, without=OTHERS)
    parser.add_argument(
        "--seed",
        metavar="N[,N]",
        help="draw tokens: with one seed for both, or with A's and B's (default: the likeliest)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="how many threads")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from ..bench.diverge import diverge
    from ..twins.threads import set_threads

    seeds, options = seeds_of(args.seed), given_options(args)
    if args.seed is None and (options.get("do_sample") or options.get("temperature")):
        raise InputError("to draw tokens, give --seed N, or --seed N,N for A and B")
    warn_of_no_number()
    if args.threads is not None:
        set_threads(args.threads)
    try:
        text = text_of(args)
        (a, tokenizer), (b, other) = map(load_spelled, (args.a, args.b))
    except InputError as error:
        if args.text is None:  # most often it is B that was left out
            raise InputError(f"minillm diverge takes A, B and a text: {error}") from None
        raise
    if tokenizer.tokens != other.tokens:
        raise InputError(
            f"{args.a} and {args.b} have different vocabularies: a text is other ids to each"
        )
    ids = tokenizer.encode_prompt(text)
    found = diverge(a, b, ids, tokenizer, seeds, **options)
    if args.json:
        texts = {
            name: tokenizer.readable(text) if text else None
            for name, text in (("a", found.ids_a), ("b", found.ids_b), ("crossed", found.crossed))
        }
        write_json({"a": args.a, "b": args.b, "texts": texts, **found.to_dict()})
        return
    write("\n".join(said(found, args, tokenizer)))


def load_spelled(spelling: str):
    """MODEL[:DTYPE][@KERNELS] -> (model, tokenizer); what is a path as a whole is one."""
    import minillm

    from ..engines import ENGINES
    from ..loading import tokenizer_of
    from ..twins.choose import NAMES

    name, parts = spelling, {}
    for sign in "@:":
        head, _, tail = name.rpartition(sign)
        if head and not os.path.exists(name):
            name, parts[sign] = head, tail
    kernels, dtype = parts.get("@"), parts.get(":")
    if kernels in ENGINES:
        other = ENGINES[kernels](name, dtype=dtype)
        return other, tokenizer_of(other.checkpoint)
    if kernels is not None and kernels not in NAMES and not os.path.isdir(kernels):
        raise InputError(
            f"{short(spelling)}: @ is followed by one of {', '.join((*NAMES, *ENGINES))}, or a"
            " folder of exercises, and :DTYPE stands before it"
        )
    return minillm.load(name, dtype, kernels)


def seeds_of(text: str | None) -> tuple[int | None, int | None]:
    """--seed: none, one for both, or A's and B's."""
    if text is None:
        return None, None
    if not re.fullmatch(r"[0-9]{1,18}(,[0-9]{1,18})?", text):
        raise InputError(f"--seed {text}: give one whole number, or A's and B's like 1,2")
    seeds = [int(part) for part in text.split(",")]
    return seeds[0], seeds[-1]


def said(found, args: argparse.Namespace, tokenizer) -> list[str]:
    """What was found, in words."""
    new = found.ids_a[found.n_prompt :]
    lines = [first_said(found, tokenizer)]
    for c in found.changed:
        lines.append(
            f"  {c.name} differs in {c.count:,} of {c.size:,} numbers, most at {list(c.index)}:"
            f" A {c.value_a:.9g}, B {c.value_b:.9g}"
        )
    if found.steps and found.steps[0].name != "next":
        if not found.changed:
            lines.append("  its weights are the same in both: what computes it differs")
        kinds = Counter(kind_of(s.name) for s in found.steps)
        rest = ", ".join(f"{kind} {n}" if n > 1 else kind for kind, n in kinds.items())
        lines.append(
            f"  {len(found.steps)} of {found.formed} steps of this moment differ from the same"
            f" inputs: {rest}"
        )
    before = found.apart[: found.parting] if found.parting is not None else found.apart
    if before:
        worst = max(range(len(before)), key=before.__getitem__)
        lines.append(
            f"the same for {count(len(before), 'token')}:"
            f" {tokenizer.readable(new[: len(before)])!r}; probabilities "
            + (
                f"apart by {before[0]:.2g} at first, by {before[worst]:.2g} at most (moment"
                f" {worst})"
                if before[worst]
                else "the same to the bit"
            )
        )
    if found.parting is None:
        lines.append("the texts are the same" if found.ids_a == found.ids_b else "one ends earlier")
    else:
        choices = " and ".join(
            f"{tokenizer.readable([i])!r} {p:.4%} by A, {q:.4%} by B"
            for i, (p, q) in found.candidates.items()
        )
        lines.append(
            f"they part at moment {found.parting}: {choices}; probabilities apart by"
            f" {found.apart[-1]:.2g}"
        )
    lines.append(f"A {args.a}: {tokenizer.readable(found.ids_a)}")
    if found.ids_a != found.ids_b:
        lines.append(f"B {args.b}: {tokenizer.readable(found.ids_b)}")
    if found.crossed:
        goes = "goes on as B" if found.crossed == found.ids_b else "goes on"
        lines.append(f"A, given B's token, {goes}: {tokenizer.readable(found.crossed)}")
    return lines


def first_said(found, tokenizer) -> str:
    """The first step that differs beyond rounding, in words."""
    if found.moment is None:
        close = "" if found.parting is None else ": rounding decided where the texts part"
        return f"no step differs beyond rounding{close}"
    first = found.steps[0]
    if first.name == "next":
        return f"no step differs beyond rounding before moment {found.moment}: the draws do"
    token = tokenizer.readable([found.ids_a[first.position]])
    return f"the first to differ beyond rounding, at moment {found.moment} ({token!r}): {first}"
