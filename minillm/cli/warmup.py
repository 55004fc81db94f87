"""Compile all kernels now, so that no later command has to wait.

They are kept in the package's folder, or in the user's cache folder where that cannot be written.
"""

from __future__ import annotations

import argparse
from time import perf_counter

from .common import write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> None:
    from ..progress import progress_bar
    from ..twins import warm_up

    start = perf_counter()
    with progress_bar("precisions") as update:
        warm_up(update)
    write(f"all kernels are compiled ({perf_counter() - start:.1f} s)")
