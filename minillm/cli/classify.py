"""Learn to tell labelled texts apart, and say which label a text has.

minillm classify train --data moods.tsv --out runs/moods --from tales --plot moods.png
minillm classify train --data reviews/ --out runs/lstm --model lstm
minillm classify predict runs/moods "What a lovely day"
minillm classify compare --data reviews/ --out runs/all --seeds 5      every kind of model
minillm classify clock                                                 how time grows with length

A tenth of the texts, always the same, is held out for the result.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ..errors import InputError
from ..machine.files import lines_of
from ..samples import own_or_sample
from ..tasks.settings import KINDS, ClassifySettings
from .common import (
    PICTURES,
    add_compute,
    check_output,
    say_next,
    say_written,
    table,
    text_of,
    write,
    write_json,
    write_json_line,
)
from .train import add_settings, given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    train = actions.add_parser("train", help="learn from labelled texts")
    add_data(train, nargs=None)
    train.add_argument(
        "--test",
        type=own_or_sample,
        metavar="PATH",
        help="held-out texts of your own, instead of a part of --data",
    )
    train.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="the run's folder, which predict takes",
    )
    train.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        help="begin with this model and its tokenizer (fine-tuning)",
    )
    train.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in --out, with its settings",
    )
    add_output(train, "draw the run and the confusion matrix")
    add_settings(
        train, ClassifySettings, "what is not given is what the kind of model learns best with"
    )
    add_compute(train, precision=False)

    predict = actions.add_parser("predict", help="say which label a text has")
    predict.add_argument("folder", type=Path, metavar="RUN", help="the folder that train wrote")
    predict.add_argument(
        "text", nargs="?", help="the text; every line of standard input if left out or -"
    )
    predict.add_argument("--file", type=own_or_sample, help="take every line of this file")
    predict.add_argument("--encoding", help="of the file (default: utf-8)")
    predict.add_argument("--json", action="store_true", help="print a line of JSON for each text")
    add_compute(predict, precision=False)

    compare = actions.add_parser("compare", help="train every kind of model with several seeds")
    add_data(compare, nargs="+")
    compare.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="for the runs; those that are there already are not repeated",
    )
    kinds = ("fine-tuned", *KINDS)
    compare.add_argument(
        "--models", nargs="+", choices=kinds, default=kinds, help="default: all of %(choices)s"
    )
    compare.add_argument(
        "--from",
        dest="start",
        default="tales",
        metavar="MODEL",
        help="what is fine-tuned (default: %(default)s)",
    )
    compare.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="how many (default: %(default)s)"
    )
    compare.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="default: %(default)s",
    )
    compare.add_argument("--json", action="store_true", help="print JSON")
    add_compute(compare, precision=False)

    clock = actions.add_parser(
        "clock", help="time a step of training as texts grow longer: recurrence and attention"
    )
    clock.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        default=[16, 32, 64, 128, 256, 512],
        metavar="T",
        help="default: %(default)s",
    )
    clock.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[1, 16],
        metavar="B",
        help="texts at once (default: %(default)s)",
    )
    clock.add_argument(
        "--n-embd", type=int, default=128, metavar="C", help="width of both (default: %(default)s)"
    )
    clock.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    add_output(clock, "draw the times")
    add_compute(clock, precision=False)


def add_data(parser: argparse.ArgumentParser, nargs: str | None) -> None:
    parser.add_argument(
        "--data",
        type=own_or_sample,
        nargs=nargs,
        metavar="PATH",
        help=(
            "a .tsv or .csv file with the columns text and label (the sample: moods.tsv); or a"
            " folder with a folder for each label and a text a file; or one with a file for each"
            " label and a text a line"
        ),
    )
    parser.add_argument("--encoding", default="utf-8", help="of the files (default: %(default)s)")


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--plot", type=Path, metavar="FILE", help=what)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    if args.dtype is not None:
        raise InputError(
            f"--dtype {args.dtype}: classifiers compute in float32; train --precision bfloat16 is"
            " the faster way"
        )
    check_output("--plot", getattr(args, "plot", None), PICTURES)
    if args.threads is not None:
        from ..twins.threads import set_threads

        set_threads(args.threads)
    {"train": train, "predict": predict, "compare": compare, "clock": clock}[args.action](args)


def train(args: argparse.Namespace) -> None:
    from ..machine.distributed import world
    from ..tasks.classify import train_classifier
    from ..training.trainer import METRICS, read_metrics

    ranks = world()
    _, result, seconds = train_classifier(
        args.out,
        args.data,
        test=args.test,
        start=args.start,
        encoding=args.encoding,
        resume=args.resume,
        kernels=args.kernels,
        world=ranks,
        echo=write_json_line if args.json else show,
        **given(args, ClassifySettings),
    )
    if ranks.rank:
        return
    if args.json:
        write_json_line(result.to_dict() | {"seconds": round(seconds, 1)})
    else:
        write("\n" + summary(result))
    if args.plot:
        from .. import plots

        page = plots.classification_page(result, read_metrics(args.out / METRICS), args.out.name)
        plots.save(page, args.plot)
    say_written(args.plot)
    say_next(args.out, f"minillm classify predict {shlex.quote(str(args.out))} TEXT")


def show(record: dict) -> None:
    """The line of one evaluation."""
    if "run" in record:
        write(f"step {record['step']}: the run is {record['run']}")
        return
    write(
        f"epoch {record['epoch']:>5.2f}   step {record['step']:>5}   loss {record['loss']:.4f}   "
        f"held-out loss {record['held_out_loss']:.4f}   accuracy {record['accuracy']:.2%}"
    )


def summary(result) -> str:
    """Accuracy and confusion matrix."""
    n, right = int(result.confusion.sum()), int(result.confusion.trace())
    heads = ("true \\ predicted", *result.labels, "right")
    rows = [
        (label, *(f"{count:,}" for count in row), f"{row[i] / max(row.sum(), 1):.1%}")
        for i, (label, row) in enumerate(zip(result.labels, result.confusion))
    ]
    return f"accuracy {right / n:.2%}: {right:,} of {n:,} held-out texts\n\n" + table(
        heads, rows, "<" + ">" * (len(rows) + 1)
    )


def predict(args: argparse.Namespace) -> None:
    import numpy as np

    from ..machine.files import read_text
    from ..tasks.classify import load_classifier

    classifier = load_classifier(args.folder, args.kernels)
    one = args.file is None and args.text not in (None, "-")
    if args.encoding and not args.file:
        raise InputError("--encoding is of the file that --file names")
    text = read_text(args.file, args.encoding or "utf-8") if args.file else text_of(args)
    texts = [text] if one else [line for line in lines_of(text) if line.strip()]
    if not (text.strip() and texts):
        raise InputError(f"{args.file or 'the text'} is empty: there is nothing to classify")
    probabilities = np.exp(classifier.log_probabilities(texts))
    for text, row in zip(texts, probabilities):
        best = classifier.labels[int(row.argmax())]
        if args.json:
            values = {label: round(float(p), 6) for label, p in zip(classifier.labels, row)}
            write_json_line({"text": text, "label": best, "probabilities": values})
        elif one:
            order = np.argsort(-row)
            write(
                table(
                    ("label", "P(label | text)"),
                    [(classifier.labels[i], f"{row[i]:.2%}") for i in order],
                    "<>",
                )
            )
        else:
            write(f"{best}\t{row.max():.4f}\t{text}")


def compare(args: argparse.Namespace) -> None:
    from ..tasks.trials import accuracies, compare

    if not args.data:
        raise InputError("--data is needed: a .tsv or .csv file, or a folder")
    if args.seeds < 1:
        raise InputError(f"--seeds is {args.seeds}; it must be at least 1")
    runs = compare(
        args.data,
        args.out,
        args.models,
        range(1, args.seeds + 1),
        start=args.start,
        encoding=args.encoding,
        kernels=args.kernels,
        precision=args.precision,
        echo=(lambda run: None) if args.json else (lambda run: write(str(run))),
    )
    if args.json:
        write_json([run.to_dict() for run in runs])
        return
    heads = ("data", "model", "parameters", "accuracy", "spread", "lowest", "highest", "seconds")
    write("\n" + table(heads, [accuracies(group) for group in runs_by_model(runs)], "<<|>>>>>>"))


def runs_by_model(runs) -> list:
    groups: dict = {}
    for run in runs:
        groups.setdefault((run.data, run.model), []).append(run)
    return list(groups.values())


def clock(args: argparse.Namespace) -> None:
    from ..clock.limits import describe_machine
    from ..tasks.trials import times_by_length

    for name in ("lengths", "rows"):
        if min(getattr(args, name)) < 1:
            raise InputError(f"--{name} has {min(getattr(args, name))}; it must be at least 1")
    for name in ("n_embd", "rounds"):
        if getattr(args, name) < 1:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least 1"
            )
    times = times_by_length(args.lengths, args.rows, args.n_embd, args.rounds, args.kernels)
    if args.json:
        write_json(
            {
                "machine": describe_machine(),
                "n_embd": args.n_embd,
                "times": [t.to_dict() for t in times],
            }
        )
    else:
        heads = (
            "model",
            "rows",
            "length",
            "ms a step",
            "us a position",
            "threads: times one",
            "recurrent",
        )
        rows = [
            (
                t.model,
                t.rows,
                t.length,
                f"{1e3 * t.step:.1f}",
                f"{1e6 * t.step / (t.rows * t.length):.1f}",
                f"{t.one_thread / t.step:.2f}",
                f"{t.recurrent:.0%}" if t.recurrent else "",
            )
            for t in times
        ]
        write(table(heads, rows, "<>>>>>>"))
    if args.plot:
        from .. import plots

        plots.save(plots.length_page(times), args.plot)
        say_written(args.plot)
