"""Copy the course's notebooks into a folder of your own and open them in Jupyter.

Nothing of yours is overwritten: a notebook that is there already stays as it is. To have the
original of one again, move yours away first.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

from ..errors import InputError, count, not_installed
from .common import write

# asks the network nothing
QUIET = (
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("minillm-course"),
        help="(default: %(default)s)",
    )
    parser.add_argument("--no-open", action="store_true", help="only copy")


def run(args: argparse.Namespace) -> int:
    from ..exercises.course import copy_chapters

    if not args.no_open and importlib.util.find_spec("jupyterlab") is None:
        raise InputError(f"{not_installed('jupyterlab')} (--no-open only copies)")
    copied, kept = copy_chapters(args.folder)
    kept_too = f"; {len(kept)} were there and stay as they are" if kept else ""
    write(f"{args.folder}: {count(len(copied), 'notebook')} copied{kept_too}")
    first = min([*copied, *kept])
    if args.no_open:
        write(f"begin with {first}, in Jupyter or any editor that opens notebooks")
        return 0
    write(f"opening {first} in Jupyter; Ctrl-C here ends it")
    return subprocess.run(
        [sys.executable, "-m", "jupyterlab", *QUIET, str(first)], check=False
    ).returncode
