"""Measure a laptop for a class, or put the files of a class together.

minillm lab                         measure this machine, show the file, ask, write lab.json
minillm lab anna.json --yes         without being asked
minillm lab merge *.json --plot class.png      one roofline and the tables of all

The file says what the processor is, what it can do, and what one model takes on it, predicted and
measured: no user, no name of the machine, no path. All of it is shown before it is written.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from ..errors import InputError
from .common import (
    PICTURES,
    asked,
    check_output,
    harmless,
    require_new,
    say_written,
    table,
    write,
    write_json,
)

KINDS = ("float32", "int8")
ROUNDS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="where to write (default: lab.json); or the word merge, and the files of a class",
    )
    parser.add_argument("--model", default="tales", help="a bundled model (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="how many threads (default: all)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        metavar="N",
        help="of measuring (default: %(default)s)",
    )
    parser.add_argument("--yes", action="store_true", help="write the file without asking")
    parser.add_argument("--force", action="store_true", help="write over what is there")
    parser.add_argument("--json", action="store_true", help="of merge: print JSON")
    parser.add_argument("--plot", metavar="FILE.png", help="of merge: draw the roofline")


def run(args: argparse.Namespace) -> int | None:
    if args.files[:1] == ["merge"]:
        merge(args)
        return None
    if len(args.files) > 1:
        files = shlex.join(f for f in args.files if f.lower().endswith(".json")) or "FILE..."
        raise InputError(f"several files: to put them together, minillm lab merge {files:.200}")
    if args.json or args.plot:
        raise InputError("--json and --plot are of minillm lab merge FILE...")
    return measure(args)


def measure(args: argparse.Namespace) -> int:
    """Measure, show, ask, write; 1 where the answer was no."""
    from ..bench import lab, predictions
    from ..bench.datasheet import Datasheet
    from ..checkpoints.find import PACKAGES, bundled_names
    from ..clock.machines import measure_machine
    from ..errors import require_one_of
    from ..loading import config_of
    from ..machine.files import write_atomically
    from ..machine.load import Load
    from ..machine.progress import progress_bar
    from ..twins.choose import twin
    from ..twins.threads import checked_threads, n_threads

    path = Path(*args.files or ["lab.json"])
    check_output("FILE", path, (".json",))
    require_new(path, args.force)
    require_one_of("--model", args.model, [*bundled_names(), *PACKAGES])
    if args.rounds < 1:
        raise InputError(f"--rounds is {args.rounds}; it must be at least 1")
    if not (args.yes or (sys.stdin and sys.stdin.isatty())):
        raise InputError("the file is shown, and asked about, on a terminal: else add --yes")
    most = checked_threads(args.threads) if args.threads is not None else n_threads(twin())
    others = Load()
    with progress_bar("steps") as update:
        machine = measure_machine(twin(), KINDS, (1, most), update)
    sheet = Datasheet(args.model, config_of(args.model), machine, kinds=KINDS)
    limits = predictions.limits_now(sheet.config, KINDS, most)
    with predictions.model_of(args.model) as folder:
        what = args.model, folder, limits, ["minillm"], KINDS, [32, 128]
        sheet.measured = predictions.measured(*what, rounds=args.rounds)
    entry = lab.to_dict(sheet, others.share())
    write(harmless("\n".join(lab.shown(entry))))
    write(
        f"this is all that {harmless(str(path))} will hold, there with every digit: no user, no"
        " name of the machine, no path"
    )
    write("\n".join(["", *lab.summary(sheet)]))
    if not args.yes and asked(f"write {path}? [y/N] ").strip().lower() not in ("y", "yes"):
        write("nothing was written")
        return 1
    write_atomically(path, (json.dumps(entry, indent=1) + "\n").encode())
    say_written(path)
    return 0


def merge(args: argparse.Namespace) -> None:
    """Print the machines of a class and all their passes as tables, and draw them."""
    from ..bench import lab

    check_output("--plot", args.plot, PICTURES)
    alone = {"model": "tales", "threads": None, "rounds": ROUNDS, "yes": False, "force": False}
    if given := [name for name, default in alone.items() if getattr(args, name) != default]:
        raise InputError(f"--{given[0]} is of measuring: minillm lab merge has no use for it")
    if not (files := args.files[1:]):
        raise InputError("minillm lab merge needs files: those that minillm lab wrote")
    labs = lab.read_all(files)
    if args.plot:
        from matplotlib.figure import Figure

        from .. import plots

        figure = Figure(figsize=(8, 6), layout="constrained")
        plots.class_roofline(labs, figure.subplots())
        plots.save(figure, args.plot)
        say_written(args.plot)
    if args.json:
        return write_json(lab.values(labs))
    write(harmless(table(lab.MACHINES, lab.machines(labs), "<>>>")))
    write(harmless("\n" + table(lab.HEADINGS, lab.table(labs), "<<<<>|>>>")))
