"""Draw where the time of a generation goes: a timing diagram, a table beside the machine's limits,
pictures, a trace.

minillm clock "Once upon a time"
minillm clock "The king" --dtype int8 --plot clock.png --trace clock.json
minillm clock "The king" --record king.recording
minillm clock "The king" --every-step --kernels numpy
minillm clock "The king" --draft tales-draft     draft and verify cycles on the same time line
minillm clock "The king" --engine llama.cpp --model smollm2 --beside     inside another engine
minillm clock --predict 32,500 --dtype int8      measured / predicted, the memory measured in turn
minillm clock --train small                      where the time of a training step goes
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from pathlib import Path
from statistics import median

from ..errors import InputError, count, short
from .common import (
    PICTURES,
    add_compute,
    add_model,
    add_text,
    check_output,
    dtype_of,
    load,
    require_new,
    say_written,
    table,
    terminal_width,
    text_of,
    write,
    write_json,
    writes_unicode,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_text(parser, "the prompt")
    add_model(parser)
    add_compute(parser)
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=16,
        metavar="N",
        help="how many moments (default: %(default)s)",
    )
    parser.add_argument(
        "--every-step",
        action="store_true",
        help="time every step of the readable forward, not the faster one that generates; of"
        " another engine all steps that it has, not phases alone",
    )
    parser.add_argument(
        "--engine", metavar="NAME", help="look into llama.cpp or transformers with the model"
    )
    parser.add_argument(
        "--beside", action="store_true", help="with --engine: minillm beside it, in turn"
    )
    parser.add_argument(
        "--draft",
        metavar="HOW",
        help="guess tokens, which the model only checks: as in `minillm generate`",
    )
    parser.add_argument(
        "--limits",
        metavar="FILE",
        help="take the machine's limits from FILE; where there is none, write it",
    )
    parser.add_argument(
        "--no-limits", action="store_true", help="measure no limits: no predictions, no roofline"
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="write pictures: time line, phases by token, roofline, growth",
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write a trace that ui.perfetto.dev and chrome://tracing open",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        help="generate once more, and write a recording of it (docs/recording.md)",
    )
    parser.add_argument(
        "--force", action="store_true", help="of --record: write over what is there"
    )
    parser.add_argument(
        "--predict",
        metavar="N,N",
        help="no prompt: check the predictions of decode cycles at these contexts",
    )
    parser.add_argument(
        "--train",
        choices=("small", "124m", "llama"),
        help="no prompt: where the time of a training step of this shape goes, in each precision",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from ..clock import Limits
    from ..clock.beside import beside
    from ..clock.diagram import diagram
    from ..clock.export import write_trace
    from ..machine.load import Load
    from ..machine.progress import progress_bar

    if args.train:
        return training_step(args)
    if args.predict:
        return predict(args)
    text = text_of(args)
    check_output("--plot", args.plot, PICTURES)
    check_output("--trace", args.trace)
    check_output("--limits", args.limits)
    check_output("--record", args.record)
    if args.record and args.draft:
        raise InputError(f"--record is of plain decoding: leave out --draft {args.draft}")
    if args.record:
        require_new(Path(args.record), args.force)
    if args.engine and args.draft:
        raise InputError(f"--engine is of plain decoding: leave out --draft {args.draft}")
    if args.engine and args.precision:
        raise InputError(
            f"--engine has a precision of its own: leave out --precision {args.precision}"
        )
    if args.engine and args.kernels and not (args.beside or args.record):
        raise InputError(
            f"--kernels is of minillm's functions, not of {args.engine}'s: leave out"
            f" {args.kernels}, or put minillm --beside"
        )
    if args.beside and not args.engine:
        raise InputError("--beside puts minillm beside another engine: add --engine llama.cpp")
    if args.limits and Path(args.limits).exists():
        Limits.load(args.limits)  # raises before anything is measured
    if args.engine:
        model, own, tokenizer = load_engine(args)
    else:
        model, tokenizer = load(args)
        own = model
    load_of_others = Load()
    with progress_bar("steps", show=not args.json) as update:
        several = {args.engine: model, "minillm": own} if args.beside else {"": model}
        reports = in_turn(several, tokenizer, text, args, update)
    report, looked = next(iter(reports.values())), None
    drawn_in = {"colour": wants_colour(), "unicode": writes_unicode()}
    if not args.json:  # at once: the limits take seconds
        write(report.verdict.sentences["answer"] + "\n")
        write(diagram(report, terminal_width(100), **drawn_in))
    with progress_bar("steps", show=not args.json) as update:
        if args.engine:
            from ..engines.price import price

            ids = tokenizer.encode_prompt(text)
            looked = price(model, ids, max(32, args.max_new_tokens), args.every_step)
        kinds = [each.kind for each in reports.values()]
        limits = None if args.no_limits else limits_of(model, args, update, kinds)
        for each in reports.values():
            each.limits = limits.without_waiting() if limits and each.engine else limits
            each.busy = load_of_others.share()
        growth = None
        if args.plot and not args.engine:  # which is of minillm's own
            from ..clock.growth import measure_growth

            growth = measure_growth(update=update)
    if args.trace:
        write_trace(report, model.new_cache(capacity=1).nbytes, args.trace)
        say_written(args.trace)
    if args.record:
        from ..record import record

        record(
            own,
            tokenizer,
            text,
            engine=model if args.engine else None,
            limits=report.limits,
            name=args.model,
            every_step=args.every_step,
            max_new_tokens=args.max_new_tokens,
            do_sample=False,
        ).write(args.record)
        say_written(args.record)
    if args.plot:
        from .. import plots

        plots.save(plots.clock_page(report, growth), args.plot)
        say_written(args.plot)
    if args.json:
        found = report.to_dict() | {"growth": growth.to_dict() if growth else None}
        if looked:
            found["engine"] = looked.to_dict()
        if args.beside:
            found["beside"] = reports["minillm"].to_dict()
        write_json(found)
        return
    headings, lines = report.table()
    write("\n" + table(headings, lines, "<>>>>>>>><"[: len(headings)]))
    notes = [*report.summary(), *(growth.summary() if growth else [])]
    notes += looked.summary() if looked else []
    if args.beside:
        mark = "█" if drawn_in["unicode"] else "#"
        notes += ["", *beside(reports, mark)]
    write("\n".join(textwrap.fill(note, terminal_width(sys.maxsize)) for note in notes))
    write("\n" + textwrap.fill(str(report.verdict), terminal_width(100)))


def in_turn(models: dict, tokenizer, text: str, args: argparse.Namespace, update) -> dict:
    """{name: ClockReport} of several models, the fastest of three runs each, in turn: what disturbs
    one disturbs all. One alone runs once."""
    runs = [
        {name: timed(model, tokenizer, text, args, update) for name, model in models.items()}
        for _ in range(3 if len(models) > 1 else 1)
    ]
    return {name: min((r[name] for r in runs), key=lambda r: r.wall) for name in models}


def timed(model, tokenizer, text: str, args: argparse.Namespace, update):
    """Generate once to warm up (kernels compile, memory is touched), then under the clock."""
    import numpy as np

    from ..clock import Clock, ClockReport
    from ..costs import FLOAT
    from ..decoding import Options
    from ..decoding.drafts import named_draft
    from ..decoding.generate import moments
    from ..engines import Engine
    from ..loading import load as load_model

    ids = tokenizer.encode_prompt(text)
    draft = named_draft(args.draft, model, tokenizer, load_model) if args.draft else None
    few = min(8 if draft else 2, args.max_new_tokens)
    warm = Options(max_new_tokens=few, do_sample=False)
    options = Options(max_new_tokens=args.max_new_tokens, do_sample=False)
    list(moments(model, ids, warm, Clock(args.every_step), draft, tokenizer))
    clock = Clock(args.every_step)
    emitted: dict = {}  # cycle -> ids
    for number, moment in enumerate(moments(model, ids, options, clock, draft, tokenizer)):
        for cycle in (*moment.before, moment.cycle):
            emitted.setdefault(cycle, [])
        emitted[moment.cycle].append(moment.id)
        update("generating", number + 1, args.max_new_tokens)
    texts = [tokenizer.readable(ids) for ids in emitted.values()]
    engine, cached = "", FLOAT
    if isinstance(model, Engine):
        engine, cached = model.name, np.dtype(model.cache_dtype).itemsize
    return ClockReport(clock, model.config, model.stored, None, texts, engine, cached)


def training_step(args: argparse.Namespace) -> None:
    """Print the parts of a training step in time, one way to compute it beside the other."""
    from ..bench.parts import WAYS, step_parts
    from ..twins.choose import twin
    from ..twins.threads import n_threads, set_threads

    if args.text is not None:
        raise InputError(f"--train needs no prompt: leave out {short(args.text)}")
    if args.threads is not None:
        set_threads(args.threads)
    ways = [step_parts(args.train, *way) for way in WAYS]
    if args.json:
        return write_json([vars(way) for way in ways])
    rows = []
    for part in dict.fromkeys(part for way in ways for part in way.seconds):
        took = [way.seconds.get(part, 0.0) for way in ways]
        pairs = [(f"{1e3 * t:,.0f}", f"{t / way.whole:.0%}") for t, way in zip(took, ways)]
        rows.append([part, *(cell for pair in pairs for cell in pair)])
    for what, shown in (
        ("the step, ms", [1e3 * way.whole for way in ways]),
        ("tokens/s", [way.tokens for way in ways]),
        ("GFLOP/s", [way.flops / 1e9 for way in ways]),
        ("memory, about, MB", [way.bytes / 1e6 for way in ways]),
    ):
        rows.append([what, *(cell for number in shown for cell in (f"{number:,.0f}", ""))])
    headings = [f"{way.precision}{', recompute' if way.recompute else ''}" for way in ways]
    threads = count(n_threads(twin("numba")), "thread")
    write(f"parts of a training step of {args.train} in ms, with {threads}")
    write(table(["", *(cell for h in headings for cell in (h, ""))], rows, "<" + ">>" * len(ways)))
    write("\nmedians of 3 steps after one to warm up, one way after another")


def load_engine(args: argparse.Namespace):
    """Return another engine with the model, minillm's own of the same file, as it is stored there
    (None where nobody asks), and the tokenizer."""
    from dataclasses import replace

    from ..engines import engine
    from ..loading import load_model, tokenizer_of
    from ..twins.choose import twin
    from ..twins.threads import set_threads

    if args.threads is not None:
        set_threads(args.threads)
    other = engine(args.engine)(args.model, args.threads, args.dtype)
    other.ops = twin(args.kernels)
    own = None
    if args.beside or args.record:
        own = load_model(replace(other.checkpoint, as_stored=True), kernels=args.kernels)
    return other, own, tokenizer_of(other.checkpoint)


def predict(args: argparse.Namespace) -> None:
    """Print measured and predicted decode times, of minillm's own fused step."""
    from ..clock.check import check_predictions
    from ..loading import load_model
    from ..machine.progress import progress_bar
    from ..twins.threads import set_threads

    others = ("engine", "beside", "draft", "plot", "trace", "record", "every_step", "no_limits")
    if given := [name for name in others if getattr(args, name)]:
        raise InputError(f"--predict goes without --{given[0].replace('_', '-')}: leave out one")
    if args.text is not None:
        raise InputError(f"--predict needs no prompt: leave out {short(args.text)}")
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*(,\s*[0-9]{1,9}\s*)*", args.predict):
        raise InputError(
            f"--predict {args.predict}: give contexts as whole numbers with commas between, like"
            " 32,500"
        )
    contexts = [int(part) for part in args.predict.split(",")]
    if args.threads is not None:
        set_threads(args.threads)
    model = load_model(args.model, dtype_of(args), args.kernels)
    with progress_bar("rounds", show=not args.json) as update:
        checks = check_predictions(
            model, limits_of(model, args, update), contexts, model.stored, update=update
        )
    if args.json:
        write_json(
            [
                {"past": c.past, "measured": c.measured.tolist(), "predicted": c.predicted.tolist()}
                for c in checks
            ]
        )
        return
    rows = [
        (
            c.past,
            f"{1e3 * median(c.measured):.3f}",
            f"{1e3 * median(c.predicted):.3f}",
            *(f"{q:.2f}" for q in c.ratio),
        )
        for c in checks
    ]
    write(
        table(
            ("context", "measured ms", "predicted ms", "ratio 25 %", "median", "75 %"),
            rows,
            ">>>>>>",
        )
    )


def limits_of(model, args: argparse.Namespace, update, kinds=()):
    """The limits of the file that --limits names, else measured now (and kept there); kinds: of
    storage, besides the model's."""
    from ..clock import Limits, measure

    if args.limits and Path(args.limits).exists():
        found = Limits.load(args.limits)
        if missing := {model.stored, *kinds} - found.row.keys():
            raise InputError(
                f"{args.limits} has the rates of {', '.join(found.row)}, but none of"
                f" {', '.join(sorted(missing))}: leave it out, or name a new file"
            )
        return found
    weights = sum(p.nbytes for p in model.parameters.values())
    limits = measure(model.ops, [model.stored, *kinds], update, [weights])
    if args.limits:
        limits.save(args.limits)
        say_written(args.limits)
    return limits


def wants_colour() -> bool:
    """Whether to colour: on a terminal that can, unless NO_COLOR (no-color.org) is set."""
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
