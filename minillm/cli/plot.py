"""Show the curve of a training run, or of several in one picture: loss, and validation in bits per
byte.

minillm plot run                               a table
minillm plot run --plot run.png
minillm plot adamw muon --plot both.png --over tokens
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from .common import PICTURES, check_output, say_written, table, write, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="the folder of a training run"
    )
    parser.add_argument("--plot", metavar="FILE.png", help="draw the curves")
    parser.add_argument(
        "--over",
        choices=("steps", "tokens"),
        default="steps",
        help="what the curves are drawn over (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from ..training.curves import read_curve

    check_output("--plot", args.plot, PICTURES)
    curves = [read_curve(folder) for folder in args.runs]
    if args.over == "tokens" and (unknown := [c.name for c in curves if not c.tokens_per_step]):
        raise InputError(
            f"--over tokens: the settings of {unknown[0]} do not say how many tokens a step has"
        )
    if args.json:
        write_json(
            [
                {
                    "run": c.name,
                    "tokens_per_step": c.tokens_per_step,
                    "steps": c.steps.tolist(),
                    "loss": c.loss.tolist(),
                    "smoothed": c.smoothed.tolist(),
                    "validations": c.validations,
                }
                for c in curves
            ]
        )
    elif args.plot is None:
        write("\n\n".join(_table(curve) for curve in curves))
    if args.plot is not None:
        from matplotlib.figure import Figure

        from .. import plots

        figure = Figure(figsize=(11, 4.5), layout="constrained")
        plots.training_curves(curves, args.over, figure.subplots(1, 2))
        plots.save(figure, args.plot)
        say_written(args.plot)


def _table(curve) -> str:
    """A row a validation; without any, some ten reports."""
    smoothed = dict(zip(curve.steps.tolist(), curve.smoothed))
    names = [
        name
        for name in ("val_loss", "bits_per_byte", "accuracy")
        if any(name in v for v in curve.validations)
    ]
    round_steps = [i * (len(curve.steps) - 1) // 9 for i in range(10)]
    rows = curve.validations or [{"step": int(s)} for s in curve.steps[round_steps]]
    cells = []
    for record in {row["step"]: row for row in rows}.values():
        step = record["step"]
        tokens = [f"{step * curve.tokens_per_step:,}"] if curve.tokens_per_step else []
        near = max((s for s in smoothed if s <= step), default=min(smoothed))
        values = [f"{record[name]:.4f}" if name in record else "" for name in names]
        cells.append([step, *tokens, f"{smoothed[near]:.4f}", *values])
    headings = [
        "step",
        *(["tokens"] if curve.tokens_per_step else []),
        "loss, smoothed",
        *(n.replace("_", " ") for n in names),
    ]
    return f"{curve.name}\n{table(headings, cells, '>' * len(headings))}"
