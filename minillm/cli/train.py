"""Train a GPT-2 or a Llama on text: from nothing, or on from a model.

minillm train --data fables.txt --out run --preset tiny
minillm train --out run --resume
minillm train --data fables.txt --out llama --preset tiny --family llama --n-kv-head 2
minillm train --data my.txt --out tuned --from tales --lora-rank 8 --steps 300 --lr 1e-3
mpiexec -n 2 python -m minillm train --data stories/ --out run --preset small
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path

from ..errors import InputError
from ..samples import own_or_sample
from ..training.settings import Plan, Settings, presets, settings
from .common import add_compute, join, say_next, write, write_json_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=own_or_sample,
        metavar="PATH",
        help="a folder of .txt files (train.txt and val.txt, or any), or one (say, fables.txt)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="the run's folder; becomes a model that --model takes",
    )
    parser.add_argument("--preset", help=f"settings to begin with: {', '.join(presets())}")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a TOML file with settings, which win over the preset's",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in --out, with its settings",
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        help="begin with this model and its tokenizer (fine-tuning)",
    )
    parser.add_argument(
        "--tokenizer", metavar="MODEL", help="take this model's tokenizer instead of training one"
    )
    parser.add_argument("--json", action="store_true", help="print every report as a line of JSON")
    add_settings(parser, Settings, "each wins over --config and --preset")
    add_compute(parser, precision=False)


def add_settings(parser: argparse.ArgumentParser, kind: type[Plan], what: str) -> None:
    """One flag for each setting of `kind`; what is not given is None, and left to whatever else
    decides."""
    group = parser.add_argument_group("settings", what)
    for f in dataclasses.fields(kind):
        of = {"int": int, "float": float, "str": str}.get(str(f.type).removesuffix(" | None"))
        if of is None:
            how: dict = {"action": argparse.BooleanOptionalAction}
        elif f.metadata["choices"]:
            how = {"choices": f.metadata["choices"]}
        else:
            how = {"type": of, "metavar": of.__name__.upper()}
        default = "" if f.default in (None, "") else f" (default: {f.default})"
        group.add_argument(
            f"--{f.name.replace('_', '-')}", default=None, help=f.metadata["what"] + default, **how
        )


def given(args: argparse.Namespace, kind: type[Plan]) -> dict:
    """The settings that have been given as flags."""
    return {
        f.name: value
        for f in dataclasses.fields(kind)
        if (value := getattr(args, f.name)) is not None
    }


def run(args: argparse.Namespace) -> None:
    from ..training.pretrain import pretrain

    flags = given(args, Settings)
    if args.dtype is not None:
        raise InputError(
            f"--dtype {args.dtype}: training computes in float32; --precision bfloat16 is"
            " faster where the processor has products of bfloat16"
        )
    ranks = join()
    if args.threads is not None:
        from ..twins.threads import set_threads

        set_threads(args.threads)
    pretrain(
        args.out,
        args.data,
        lambda **known: settings(args.preset, args.config, **known | flags),
        start=args.start,
        tokenizer=args.tokenizer,
        resume=args.resume,
        kernels=args.kernels,
        world=ranks,
        echo=write_json_line if args.json else show,
    )
    if not ranks.rank:
        model = shlex.quote(str(args.out))
        say_next(args.out, f'minillm generate "{Settings.sample_prompt}" --model {model}')


def show(record: dict) -> None:
    """One line for a validation; a sample as it is."""
    if "sample" in record:
        write(f"\n{record['sample'].rstrip()}\n")
        return
    parts = [f"step {record['step']:>6}"]
    for name, value in record.items():
        if name != "step":
            parts.append(
                f"{name.replace('_', ' ')} {value:.4f}"
                if isinstance(value, float)
                else f"{name} {value}"
            )
    write("   ".join(parts))
