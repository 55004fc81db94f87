"""What every lever buys and costs: speed, memory and quality, in one table.

minillm compare fables.txt
minillm compare story.txt --levers int8 ngram int8+ngram batch:8 low-rank:64 --plot ledger.png
minillm compare story.txt --random-124m --levers int8 batch:8 --save ledger
minillm compare story.txt --levers threads:1 threads:2 threads:4      the speed-up, and Amdahl's law
minillm compare val.txt --runs ideas/* --save ideas      trainings and their seeds
mpiexec -n 4 python -m minillm compare story.txt --levers low-rank:{16,32,64,128}      shared out

Processes that share a machine share its cores and its memory, too: then speeds are slower than
alone, quality is the same.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..samples import own_or_sample
from .common import (
    PICTURES,
    add_compute,
    add_model,
    check_output,
    check_stem,
    join,
    load,
    say_written,
    table,
    text_of_file,
    write,
    write_json,
)

SAVED = (".md", ".json", ".png")
RANDOM = "GPT-2 124M, random weights"
LEAST = {"prompt_tokens": 1, "max_new_tokens": 2, "rounds": 1, "quality_tokens": 0}
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
    runs = (
        "instead of a model and its levers: folders of training runs, each of which scores all of"
        " the file; those that differ in their seed alone are one line, named up to -seed"
    )
    parser.add_argument("--runs", nargs="+", type=Path, metavar="DIR", help=runs)
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
    from ..bench.ledger import gathered
    from ..bench.ledger_report import LedgerReport

    if args.levers == ["?"]:
        list_levers()
        return None
    check(args)
    if args.runs:
        compare_runs(args)
        return None
    ranks = join()
    entries, interrupted = measured(args, ranks)
    entries = gathered(entries, ranks)
    if ranks.rank:
        return None
    report = LedgerReport(
        entries,
        command=command(args),
        processes=ranks.size,
        model=RANDOM if args.random_124m else Path(args.model).name,
        file=args.file.name,
        **sizes(args),
    )
    show(report, args)
    if args.plot or args.save:
        draw(report, args)
    save(report, args)
    return 130 if interrupted else 2 if any(e.missing for e in entries) else 0


def compare_runs(args: argparse.Namespace) -> None:
    from .. import plots
    from ..bench import runs
    from ..twins.choose import twin
    from ..twins.threads import n_threads, set_threads

    if args.threads is not None:
        set_threads(args.threads)
    measures = {n: value for n, value in sizes(args).items() if n != "quality_tokens"}
    text = text_of_file(args.file)
    lines = runs.compare_runs(args.runs, text, kernels=args.kernels, **measures)
    report = runs.RunsReport(
        lines,
        command=command(args),
        title=args.runs[0].resolve().parent.name,
        file=args.file.name,
        threads=n_threads(twin(args.kernels)),
        **measures,
    )
    if args.json:
        write_json(report.to_dict())
    else:
        write("\n".join([table(runs.HEADINGS, report.rows(), "<<>>>>>>>"), *report.verdicts()]))
    for path in pictures(args):
        plots.save(plots.runs_page(lines), path)
    save(report, args)


def pictures(args: argparse.Namespace) -> list[str]:
    """The files that show the result."""
    return [str(path) for path in (args.plot, args.save and f"{args.save}.png") if path]


def save(report, args: argparse.Namespace) -> None:
    """Write page and values, where they are wanted, and say what is there."""
    if args.save:
        report.save(args.save)
    say_written(args.plot, *(f"{args.save}{ending}" for ending in SAVED if args.save))


def list_levers() -> None:
    from ..bench.levers import LEVERS

    rows = [
        (name, lever.value.__name__ if lever.value else "", lever.proof or "no", lever.summary)
        for name, lever in LEVERS.items()
    ]
    write(table(("lever", "value", "exact", "what it is"), rows, "<<<<"))


def check(args: argparse.Namespace) -> None:
    """InputError for what can be known to be wrong before anything is loaded."""
    from ..errors import InputError

    for name, least in LEAST.items():
        if (value := getattr(args, name)) < least:
            option = name.replace("_", "-")
            raise InputError(f"--{option} is {value}; it must be at least {least}")
    apart = args.random_124m or args.dtype or args.precision or args.levers is not DEFAULT
    if args.runs and apart:
        raise InputError("--runs takes none of --random-124m, --dtype, --precision and --levers")
    if args.random_124m:
        args.quality_tokens = 0
    check_output("--plot", args.plot, PICTURES)
    check_stem("--save", args.save, SAVED)


def sizes(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "n_prompt": args.prompt_tokens,
        "n_new": args.max_new_tokens,
        "rounds": args.rounds,
        "quality_tokens": args.quality_tokens,
    }


def measured(args: argparse.Namespace, ranks) -> tuple[list, bool]:
    """This process's entries, and whether Ctrl-C left some of them unfinished."""
    from ..bench.ledger import ledger, random_124m, shared

    text = text_of_file(args.file)
    entries: list = []
    with random_124m() if args.random_124m else nullcontext(args.model) as model:
        model, tokenizer = load(argparse.Namespace(**vars(args) | {"model": model}))
        try:
            mine = shared(args.levers, ranks)
            chosen = args.levers is not DEFAULT
            ledger(model, tokenizer, text, mine, entries=entries, all_apply=chosen, **sizes(args))
        except KeyboardInterrupt:
            if ranks.size > 1:
                raise
            print("\nminillm: interrupted; this is what was measured", file=sys.stderr)
            return entries, True
    return entries, False


def show(report, args: argparse.Namespace) -> None:
    from ..bench.ledger_report import HEADINGS

    if args.json:
        write_json(report.to_dict())
        return
    write("\n".join([table(HEADINGS, report.rows(), "<>>>>>>>>><"), *map(str, report.fits)]))
    for e in report.entries:
        if e.missing:
            print(f"minillm: {e.levers}: {e.missing}", file=sys.stderr)


def draw(report, args: argparse.Namespace) -> None:
    from .. import plots

    title = f"{report.model}: what each lever buys, and what it costs"
    figure = plots.ledger_page(report.entries, report.fits, title)
    for path in pictures(args):
        plots.save(figure, path)


def command(args: argparse.Namespace) -> str:
    """The command that measures this again, with all that it depends on."""
    parts = [
        "minillm",
        "compare",
        args.file.name,
        *(["--random-124m"] if args.random_124m else []),
        *([] if args.random_124m or args.runs else ["--model", Path(args.model).name]),
    ]
    for option in (
        "dtype",
        "precision",
        "kernels",
        "threads",
        "prompt_tokens",
        "max_new_tokens",
        "rounds",
        "quality_tokens",
    ):
        if getattr(args, option) is not None and not (args.runs and option == "quality_tokens"):
            parts += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    if args.runs:
        names = [f"{run.parent.name}/{run.name}" for run in map(Path.resolve, args.runs)]
        return shlex.join([*parts, "--runs", *names])
    return shlex.join([*parts, "--levers", *args.levers])
