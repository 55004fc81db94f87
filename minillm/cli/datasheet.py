"""A datasheet of a model on a machine, from its config alone: times, memory, what binds, levers.

minillm datasheet smollm2
minillm datasheet config.json --machine h100 --html > page.html
minillm datasheet tales --measure --plot tales.png
minillm datasheet --save-machine this.json           measure this machine and keep it
minillm datasheet --errors --save predictions        how wrong such predictions are

Time and memory are predicted from what a pass has to read and to compute. --measure lets the engine
run as well, where it and the weights are there, and says how far off each prediction was. --errors
measures several models, fits constants for each engine and kind on two of them, and tests them
on the others; with --save-machine they are kept, and used by what is predicted with that file.
"""

from __future__ import annotations

import argparse
import os
import shlex
import textwrap
from pathlib import Path

from ..errors import InputError
from .common import (
    PICTURES,
    check_output,
    check_stem,
    harmless,
    say,
    say_written,
    table,
    terminal_width,
    write,
    write_json,
)

KINDS = ("float32", "float16", "int8", "int4")
SAVED = (".md", ".json", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        help="a folder, a config.json, a GGUF file, a bundled or a hub name (default: tales)",
    )
    parser.add_argument(
        "--machine",
        metavar="FILE",
        help="a file of --save-machine or of minillm lab, or a name, as a100; ? lists them"
        " (default: this one)",
    )
    parser.add_argument("--save-machine", metavar="FILE", help="write the machine into a file")
    parser.add_argument(
        "--engine",
        nargs="+",
        default=["minillm"],
        metavar="NAME",
        help="minillm, llama.cpp, transformers; several with --errors (default: minillm)",
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        metavar="KIND",
        help="how matrices are stored; levers begin from the first (default: as the file has them,"
        f" then {' '.join(KINDS)})",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="how many threads (default: all)")
    parser.add_argument("--measure", action="store_true", help="measure what can be, too")
    parser.add_argument("--errors", action="store_true", help="how wrong predictions are, instead")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="of --errors: names of models, of which constants are fitted on the first two",
    )
    parser.add_argument(
        "--contexts",
        type=int,
        nargs="+",
        default=[32, 128, 448],
        metavar="N",
        help="of --measure and --errors: prompts of so many tokens (default: 32 128 448)",
    )
    for name, default, what in (
        ("new", 48, "tokens to decode after each"),
        ("rounds", 5, "rounds, of which the fastest counts"),
    ):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=default,
            metavar="N",
            help=f"{what} (default: %(default)s)",
        )
    parser.add_argument("--html", action="store_true", help="print a page with its figure")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", metavar="FILE.png", help="draw it")
    parser.add_argument("--save", metavar="STEM", help="write STEM.md, STEM.json and STEM.png")


def run(args: argparse.Namespace) -> None:
    from ..bench.datasheet import PEERS, Datasheet, described
    from ..bench.run import require_some
    from ..clock import machines
    from ..errors import require_one_of
    from ..twins.threads import checked_threads
    from ..weights import KINDS as known

    if args.machine == "?":
        return list_machines(args.json)
    if args.html and args.json:
        raise InputError("--html and --json are two forms of one page: leave out one of them")
    check_output("--plot", args.plot, PICTURES)
    check_output("--save-machine", args.save_machine)
    check_stem("--save", args.save, SAVED)
    for name in ("contexts", "new", "rounds"):
        value = getattr(args, name)
        if min(value if isinstance(value, list) else [value]) < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1")
    if args.threads is not None:
        checked_threads(args.threads)
    for kind in args.kinds or ():
        require_one_of("--kinds", kind, known)
    for engine in args.engine:
        require_one_of("--engine", engine, PEERS)
    if args.measure or args.errors:
        require_some([name for engine in args.engine for name in PEERS[engine].values()])
    if args.errors:
        return errors(args)
    if len(args.engine) > 1 or args.models:
        raise InputError("several engines and --models go with --errors")
    config, stored = described(args.model or "tales")
    wanted = args.kinds or [kind for kind in (stored, *KINDS) if kind in known]
    if args.measure:
        require_weights([args.model or "tales"])
    machine = machines.find(args.machine) if args.machine else measured_machine(args, wanted)
    if args.save_machine:
        machine.save(args.save_machine)
        if args.model is None:
            return write(f"{args.save_machine}: {harmless(machine.name)}, {machine.source}")
        say_written(args.save_machine)
    if args.measure and not machine.measured:
        raise InputError(f"--measure is of this machine: leave out --machine {args.machine}")
    rates = machine.limits[-1].row
    kinds = dict.fromkeys(kind for kind in wanted if args.kinds or kind in rates)
    if not args.kinds and stored not in kinds:
        say(f"{stored}, in which its file has matrices, is left out: the machine has no rate of it")
    sheet = Datasheet(
        name_of(args.model or "tales"), config, machine, args.engine[0], [*kinds], args.threads
    )
    if args.measure:
        sheet.measured = measured(sheet, args)
    show(sheet, args)


def require_weights(models) -> None:
    """Raise InputError, before anything is measured, for a model that is not there."""
    from ..bench.predictions import SHAPES
    from ..loading import open_checkpoint

    for name in models:
        if name.lower().endswith(".json"):
            raise InputError(f"{name}: a config has no weights to measure; leave out --measure")
        if name not in SHAPES:
            open_checkpoint(name)


def measured_machine(args: argparse.Namespace, kinds=()):
    """This machine, on one thread and on all; a file that is to be kept has every kind."""
    from ..clock.machines import measure_machine
    from ..machine.progress import progress_bar
    from ..twins.choose import twin
    from ..twins.threads import n_threads
    from ..weights import KINDS as every

    ops = twin()
    most = args.threads or n_threads(ops)
    with progress_bar("steps") as update:
        return measure_machine(ops, every if args.save_machine else kinds, (1, most), update)


def name_of(model: str) -> str:
    """What a model is called: not where it lies. A config.json is called by its folder, too."""
    from ..checkpoints.find import CONFIG

    path = Path(model).resolve() if Path(model).exists() else Path(model)
    return str(Path(path.parent.name, path.name)) if path.name == CONFIG else path.name


def again(value: str) -> str:
    """What names the same once more, here: a file or a folder below this one by its path from here,
    another as name_of, whatever is no path as it is."""
    if not os.path.exists(value):
        return value
    path, here = Path(os.path.abspath(value)), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else name_of(value)


def measured(sheet, args: argparse.Namespace) -> list:
    """What can be measured of it, with the engine's constants."""
    from ..bench import predictions

    model = args.model or "tales"
    limits = predictions.limits_now(sheet.config, sheet.kinds, sheet.limits.threads)
    with predictions.model_of(model) as folder:
        what = sheet.name, folder, limits, [sheet.engine], sheet.kinds, args.contexts
        points = predictions.measured(*what, args.new, args.rounds)
    if why := all(point.missing for point in points) and points[0].missing:
        raise InputError(f"{sheet.engine} cannot be measured: {why}")
    for point in points:
        point.constants = sheet.machine.fitted.get(point.key)
    return points


def show(sheet, args: argparse.Namespace) -> None:
    from ..bench.datasheet_report import DatasheetReport

    report = DatasheetReport(sheet, command(args))
    if args.json:
        write_json(report.to_dict())
    elif args.html:
        write(report.html(drawing(sheet)))
    else:
        write(harmless(in_words(report)))
    keep(report, lambda: _page(sheet), args)


def in_words(report) -> str:
    """What a page says, for a terminal."""
    width, said = terminal_width(100), [report.title]
    for section in report.sections():
        said += [section.title] if section.title else []
        said += [textwrap.fill(section.text, width)] if section.text else []
        if section.rows:
            align = "<" + ">" * (len(section.headings) - 1)
            said += [table(section.headings, section.rows, align)]
    return "\n\n".join([*said, report.command])


def _page(sheet):
    from .. import plots

    return plots.datasheet_page(sheet)


def drawing(sheet) -> str:
    """The figure as SVG, without what stands before the element."""
    from io import StringIO

    file = StringIO()
    _page(sheet).savefig(file, format="svg", metadata={"Date": None})
    return "<svg" + file.getvalue().partition("<svg")[2]


def keep(report, figure, args: argparse.Namespace) -> None:
    """Write what --plot and --save ask for."""
    paths = [p for p in (args.plot, args.save and f"{args.save}.png") if p]
    if paths:
        from .. import plots

        drawn = figure()
        for path in paths:
            plots.save(drawn, path)
    if args.save:
        report.save(Path(args.save))
    say_written(args.plot, *(f"{args.save}{ending}" for ending in SAVED if args.save))


def errors(args: argparse.Namespace) -> None:
    """Measure how wrong predictions are."""
    from matplotlib.figure import Figure

    from .. import plots
    from ..bench import predictions
    from ..twins.choose import twin
    from ..twins.threads import n_threads

    if args.model or args.measure or args.machine or args.html:
        raise InputError("--errors takes --models, and none of MODEL, --machine, --measure, --html")
    models = args.models or predictions.MODELS
    if len({*models}) < max(3, len(models)):
        raise InputError("--errors needs three models, each once: two to fit on, and one to test")
    require_weights(models)
    threads = args.threads or n_threads(twin())
    report, found = predictions.errors(
        models,
        args.engine,
        args.kinds or KINDS,
        args.contexts,
        fitted_on=models[:2],
        n_new=args.new,
        rounds=args.rounds,
        threads=threads,
        command=command(args),
    )
    if args.json:
        write_json(report.to_dict())
    else:
        headings = predictions.HEADINGS
        write(table(headings, report.rows(), "<<<><|>>><"))
        write("\n" + table(predictions.SUMMARY, report.summary_rows(), "<<|>>>"))

    def figure():
        drawn = Figure(figsize=(7, 6), layout="constrained")
        plots.predicted_against_measured(report, drawn.subplots())
        return drawn

    keep(report, figure, args)
    if args.save_machine:
        measured_machine(args).with_fitted(found).save(args.save_machine)
        say_written(args.save_machine)


def command(args: argparse.Namespace) -> str:
    """The command that makes this again, without where files lie."""
    parts = ["minillm", "datasheet", *([again(args.model)] if args.model else [])]
    for name in ("machine", "engine", "kinds", "threads", "models", "contexts", "new", "rounds"):
        value = getattr(args, name)
        if name in ("contexts", "new", "rounds") and not (args.measure or args.errors):
            continue
        if value == ["minillm"]:
            continue
        if value is not None:
            values = value if isinstance(value, list) else [value]
            parts += [f"--{name}", *(again(str(v)) for v in values)]
    parts += [f"--{name}" for name in ("measure", "errors") if getattr(args, name)]
    return shlex.join(parts)


def list_machines(as_json: bool) -> None:
    """Print the machines whose figures are published, and where."""
    from ..clock.machines import published

    if as_json:
        return write_json({name: m.to_dict() for name, m in published().items()})
    rows = [
        (
            name,
            m.name,
            f"{m.limits[0].bandwidth[max(m.limits[0].bandwidth)] / 1e9:,.0f}",
            f"{m.limits[0].rows['float32'] / 1e12:,.1f}",
            f"{m.limits[0].rows['float16'] / 1e12:,.0f}",
        )
        for name, m in published().items()
    ]
    write(table(("name", "machine", "GB/s", "TFLOP/s", "in 16 bits"), rows, "<<>>>") + "\n")
    for name, m in published().items():
        write(textwrap.fill(f"{name}: {m.source}", terminal_width(100), subsequent_indent="  "))
    write("\npredicted only: no engine was measured on them")
