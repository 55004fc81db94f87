"""Compile kernels now, so that no later command has to wait.

minillm warmup               everything
minillm warmup train clock   what these commands need

Kernels are kept in the package's folder, or in the user's cache folder where that cannot be
written.
"""

from __future__ import annotations

import argparse
from time import perf_counter

from ..errors import count
from .common import write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "commands", nargs="*", metavar="COMMAND", help="only for these commands (default: all)"
    )


def run(args: argparse.Namespace) -> None:
    from ..machine.progress import progress_bar
    from ..warm_up import warm_up

    start = perf_counter()
    with progress_bar("parts") as update:
        compiled = warm_up(args.commands, update)
    seconds = perf_counter() - start
    whose = f"kernels of {', '.join(args.commands)}" if args.commands else "all kernels"
    write(f"{whose} are ready: {count(compiled, 'kernel')} compiled in {seconds:.1f} s")
