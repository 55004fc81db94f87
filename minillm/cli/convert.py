"""Write a model in another form: a folder as Hugging Face lays it out, or a GGUF file.

minillm convert tales tales.gguf
minillm convert smollm2 answers/ --dtype float32
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import require_new, write

GGUF_TYPES = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "q8_0": "int8",
    "q4_0": "int4",
    "q4_1": "int4_min",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="IN",
        help="a folder, a GGUF file, a bundled name or a hub name",
    )
    parser.add_argument("target", metavar="OUT", type=Path, help="a folder, or FILE.gguf")
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help=(
            "what matrices become: float32 (F32), float16 (F16), bfloat16 (BF16), and in a GGUF"
            " file int8 (Q8_0), int4 (Q4_0), int4_min (Q4_1) (default: as they are stored; what"
            " becomes another type, as OUT cannot hold it, is told)"
        ),
    )
    parser.add_argument("--force", action="store_true", help="write over what is there")


def run(args: argparse.Namespace) -> None:
    from ..loading import convert, open_checkpoint

    require_new(args.target, args.force)
    dtype = args.dtype and GGUF_TYPES.get(args.dtype.lower(), args.dtype)
    source, path = open_checkpoint(args.source), args.target
    model = convert(source, path, dtype, show_progress=True)
    was, now = source.stored, open_checkpoint(path).stored
    form = now if now == was else f"{now}, which were {was}"
    files = [path] if path.is_file() else [f for f in path.iterdir() if f.is_file()]
    size = sum(f.stat().st_size for f in files)
    write(f"{path}: {model.n_parameters:,} parameters, {size / 1e6:,.1f} MB, matrices as {form}")
