"""Show what a model is: its config, its parameters and the memory that it takes; draw it.

minillm info tales
minillm info tales --svg model.svg --here h.3.attn.scores
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from .common import add_compute, check_output, dtype_of, table, write, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        default="tales",
        help="a folder, a GGUF file, a bundled name or a hub name (default: %(default)s)",
    )
    add_compute(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--svg", metavar="FILE.svg", help="draw the model instead")
    parser.add_argument(
        "--here", metavar="STEP", help="of --svg: mark a step, a layer (h.3) or a phase"
    )
    parser.add_argument(
        "--language",
        choices=("en", "zh"),
        default="en",
        help="of --svg: what is written on it (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    from ..loading import load_model, open_checkpoint

    if args.svg is not None:
        _draw(args)
        return
    checkpoint = open_checkpoint(args.model)
    model = load_model(checkpoint, dtype_of(args), args.kernels)
    config = model.config
    groups: dict[str, list] = {}  # the blocks are alike: one line for all
    for name, array in model.parameters.items():
        layer, local = model.family.local_name(name)
        alike = name if layer is None else f"{model.family.layers}*.{local}"
        groups.setdefault(alike, []).append(array)
    weights = sum(array.nbytes for array in model.parameters.values())
    cache = model.new_cache()
    per_token = cache.nbytes // cache.capacity
    if args.json:
        write_json(
            {
                "folder": str(checkpoint.path),
                "config": dataclasses.asdict(config),
                "parameters": {name: list(array.shape) for name, array in model.parameters.items()},
                "n_parameters": model.n_parameters,
                "n_tensors": len(model.parameters),
                "bytes": {
                    "weights": weights,
                    "cache_per_token": per_token,
                    "cache_full": cache.nbytes,
                },
            }
        )
        return
    write(f"{checkpoint.path}\n")
    for field in dataclasses.fields(config):
        value, means = getattr(config, field.name), field.metadata.get("none")
        write(f"{field.name:<32} {value}{f': {means}' if value is None and means else ''}")
    rows = [
        (
            name,
            " x ".join(map(str, arrays[0].shape)),
            len(arrays),
            f"{sum(a.size for a in arrays):,}",
            f"{100 * sum(a.size for a in arrays) / model.n_parameters:.1f} %",
        )
        for name, arrays in groups.items()
    ]
    write("\n" + table(("parameter", "shape", "how many", "numbers", "share"), rows, "<<>>>"))
    write(f"\n{model.n_parameters:,} parameters in {len(model.parameters)} tensors")
    write(f"weights in memory   {weights / 1e6:10.1f} MB, matrices as {model.stored}")
    write(
        f"KV cache            {per_token:10,} bytes a token, {cache.nbytes / 1e6:.1f} MB at"
        f" {config.sizes.P} positions"
    )


def _draw(args: argparse.Namespace) -> None:
    """Write the drawing of the model into a file."""
    from ..loading import config_of
    from ..machine.files import write_atomically
    from ..page.drawing import drawing, words_of

    check_output("--svg", args.svg, (".svg",))
    picture = drawing(config_of(args.model), args.here, words_of(args.language))
    write_atomically(Path(args.svg), picture.encode())
    write(f"{args.svg}: {len(picture):,} characters")
