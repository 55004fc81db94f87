"""What every lever buys and costs: speed, memory and quality, in one table.

minillm compare fables.txt
minillm compare story.txt --levers int8 ngram int8+ngram batch:8 low-rank:64 --plot ledger.png
minillm compare story.txt --random-124m --levers int8 batch:8 --save ledger
minillm compare story.txt --levers threads:1 threads:2 threads:4      the speed-up, and Amdahl's law
mpiexec -n 4 python -m minillm compare story.txt --levers low-rank:{16,32,64,128}      shared out

Processes that share a machine share its cores and its memory, too: then speeds are slower than
alone, quality is the same.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path

from ..errors import count
from ..samples import own_or_sample
from .common import (
    PICTURES,
    add_compute,
    add_model,
    check_output,
    join,
    load,
    table,
    text_of_file,
    write,
    write_json,
)

SAVED = (".md", ".json", ".png")
HEADINGS = (
    "levers",
    "prefill/s",
    "decode/s",
    "speed-up",
    "weights",
    "cache",
    "bits/byte",
    "change",
    "KL bits",
    "exact by",
)
DEFAULT = [
    "no-cache",
    "chunk:16",
    "batch:8",
    "threads:1",
    "ngram",
    "window:32",
    "window:32+no-cache",
    "int8",
    "int4",
    "int8-body",
    "skip:1",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=own_or_sample,
        help="a UTF-8 text file (the sample: fables.txt): its beginning is continued and scored",
    )
    add_model(parser)
    add_compute(parser)
    levers = (
        "NAME or NAME:VALUE, joined by + to combine; ? lists them (default: "
        + " ".join(DEFAULT)
        + ")"
    )
    parser.add_argument("--levers", nargs="+", default=DEFAULT, metavar="LEVER", help=levers)
    parser.add_argument(
        "--prompt-tokens", type=int, default=64, metavar="N", help="default %(default)s"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=64, metavar="N", help="default %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default %(default)s")
    quality = "how many tokens are scored; 0 leaves quality out (default %(default)s)"
    parser.add_argument("--quality-tokens", type=int, default=1024, metavar="N", help=quality)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw speed against quality")
    random = (
        "instead of a model: GPT-2 124M's shape with random weights, for speed and memory; no"
        " quality"
    )
    parser.add_argument("--random-124m", action="store_true", help=random)
    save = "write STEM.md (table, machine and command), STEM.json and STEM.png"
    parser.add_argument("--save", type=Path, metavar="STEM", help=save)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int | None:
    from dataclasses import asdict
    from itertools import zip_longest

    from ..bench.amdahl import amdahl
    from ..bench.ledger import Entry, ledger
    from ..bench.levers import LEVERS
    from ..clock.limits import describe_machine
    from ..errors import InputError
    from ..machine.files import write_atomically

    if args.levers == ["?"]:
        write(
            table(
                ("lever", "value", "exact", "what it is"),
                [lever_row(name, lever) for name, lever in LEVERS.items()],
                "<<<<",
            )
        )
        return None
    for name, least in (
        ("prompt_tokens", 1),
        ("max_new_tokens", 2),
        ("rounds", 1),
        ("quality_tokens", 0),
    ):
        if getattr(args, name) < least:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least {least}"
            )
    if args.random_124m:
        args.quality_tokens = 0
    check_output("--plot", args.plot, PICTURES)
    for ending in SAVED if args.save else ():
        check_output("--save", f"{args.save}{ending}")
    ranks = join()
    text = text_of_file(args.file)
    sizes = {"n_prompt": args.prompt_tokens, "n_new": args.max_new_tokens, "rounds": args.rounds}
    entries: list[Entry] = []
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="minillm-compare-") as temporary:
        if args.random_124m:
            save_random(temporary)
        model, tokenizer = load(
            argparse.Namespace(**vars(args) | {"model": temporary}) if args.random_124m else args
        )
        try:
            mine = args.levers[ranks.rank :: ranks.size]
            ledger(
                model,
                tokenizer,
                text,
                mine,
                quality_tokens=args.quality_tokens,
                entries=entries,
                all_apply=args.levers is not DEFAULT,
                **sizes,
            )
        except KeyboardInterrupt:
            if ranks.size > 1:
                raise
            interrupted = True
            print("\nminillm: interrupted; this is what was measured", file=sys.stderr)
    every = ranks.all_gather(entries)  # each with "plain" first
    entries = [
        entries[0],
        *(e for turn in zip_longest(*(part[1:] for part in every)) for e in turn if e),
    ]
    if ranks.rank:
        return None
    fits = amdahl(entries)
    name = "GPT-2 124M, random weights" if args.random_124m else Path(args.model).name
    measured = [
        asdict(e) | {"prefill_median": e.rate("prefill"), "decode_median": e.rate("decode")}
        for e in entries
    ]
    about = {
        "command": command(args),
        "processes": ranks.size,
        "model": name,
        "file": args.file.name,
        **sizes,
    }
    about |= {"quality_tokens": args.quality_tokens, "machine": describe_machine()}
    result = about | {"levers": measured, "amdahl": [fit.to_dict() for fit in fits]}
    if args.json:
        write_json(result)
    else:
        write(
            "\n".join([table(HEADINGS, [row(e) for e in entries], "<>>>>>>>><"), *map(str, fits)])
        )
        for e in entries:
            if e.missing:
                print(f"minillm: {e.levers}: {e.missing}", file=sys.stderr)
    if args.plot or args.save:
        from .. import plots

        figure = plots.ledger_page(
            entries, fits, f"{name}: what each lever buys, and what it costs"
        )
        for path in (args.plot, args.save and f"{args.save}.png"):
            if path:
                figure.savefig(path, dpi=150)
    if args.save:
        page = markdown(args.save.name, name, about, entries, fits)
        write_atomically(Path(f"{args.save}.md"), page.encode())
        write_atomically(Path(f"{args.save}.json"), (json.dumps(result, indent=1) + "\n").encode())
    return 130 if interrupted else 2 if any(e.missing for e in entries) else 0


def save_random(folder: str) -> None:
    """Write GPT-2 124M's shape with random weights, and a tokenizer with enough for a prompt."""
    import minillm

    minillm.GPT2.random(minillm.GPT2Config(), seed=0).save_pretrained(folder)
    minillm.load("tales")[1].save(folder)


def command(args: argparse.Namespace) -> str:
    """The command that measures this again, with all that it depends on."""
    parts = [
        "minillm",
        "compare",
        args.file.name,
        *(["--random-124m"] if args.random_124m else ["--model", Path(args.model).name]),
    ]
    for option in (
        "dtype",
        "kernels",
        "threads",
        "prompt_tokens",
        "max_new_tokens",
        "rounds",
        "quality_tokens",
    ):
        if getattr(args, option) is not None:
            parts += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    return shlex.join([*parts, "--levers", *args.levers])


def markdown(stem: str, name: str, about: dict, entries, fits) -> str:
    """The ledger as a page: figure, table, what was measured, on which machine, how."""
    machine = about["machine"]
    quality = (
        f"Quality: {count(about['quality_tokens'], 'token')} of {about['file']}."
        if about["quality_tokens"]
        else ""
    )
    lines = [f"# The ledger: {name}", "", f"![decode speed of each lever]({stem}.png)", ""]
    lines += [
        "| " + " | ".join(HEADINGS) + " |",
        "| --- |" + " ---: |" * (len(HEADINGS) - 2) + " --- |",
    ]
    lines += ["| " + " | ".join(map(str, row(e))) + " |" for e in entries]
    lines += [
        "",
        *(f"- {e.levers}: {e.missing}" for e in entries if e.missing),
        *(f"- {fit}" for fit in fits),
        "",
    ]
    lines += [
        (
            f"{count(about['n_new'], 'token')} after a prompt of {about['n_prompt']}, greedy; medians of"
            f" {count(about['rounds'], 'round')}, in each"
        ),
        (
            "of which every lever has its turn; speed-up: decode / plain, the median over rounds."
            f" {quality}"
        ),
        "Exact by: a test in tests/decoding/test_levers.py.",
        f"{machine['processor']}, {count(entries[0].threads, 'thread')}; {machine['time'][:10]};",
        ", ".join(f"{what} {version}" for what, version in machine["versions"].items()) + ".",
    ]
    return "\n".join([*lines, "", f"    {about['command']}", ""])


def row(e) -> tuple:
    """One line of the table; a dash for what was not measured."""

    def number(value, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        e.levers,
        number(e.rate("prefill"), ",.0f"),
        number(e.rate("decode"), ",.1f"),
        number(e.speed_up, ".2f"),
        *("-" if e.missing else f"{n / 1e6:,.1f} MB" for n in (e.weight_bytes, e.cache_bytes)),
        number(e.bits_per_byte, ".4f"),
        number(e.change, "+.2%"),
        number(e.divergence, ".4f"),
        "-" if e.missing else e.proof or "no",
    )


def lever_row(name: str, lever) -> tuple:
    return name, lever.value.__name__ if lever.value else "", lever.proof or "no", lever.summary
