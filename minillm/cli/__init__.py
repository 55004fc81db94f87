"""The command line: one file a subcommand, which parses, calls the library and prints."""

from __future__ import annotations

import argparse
import os
import sys

from .. import __version__
from ..distributed import fail
from ..errors import InputError
from . import bench, classify, clock, compare, course, exercises, generate, info, probs, score, tokenize, train, verify, warmup

COMMANDS = (generate, probs, tokenize, score, info, verify, clock, bench, compare, train, classify, exercises, course, warmup)
INTERRUPTED, CLOSED_PIPE = 130, 141  # what a shell reports for SIGINT and SIGPIPE


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> Parser:
    """Return the parser of the whole command line."""
    main_parser = Parser(prog="minillm", description="GPT-2 from scratch: read it, run it, check it, time it.")
    main_parser.add_argument("--version", action="version", version=f"minillm {__version__}")
    commands = main_parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        name, summary = command.__name__.rpartition(".")[2], command.__doc__.strip().splitlines()[0]
        sub = commands.add_parser(name, help=summary, description=command.__doc__)
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return main_parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a check failed, 2 unusable input."""
    for stream in ("stdout", "stderr"):  # None where they were closed (`>&-`): then nobody reads
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    try:
        args = parser().parse_args(argv)
        code = args.run(args)
        sys.stdout.flush()
        return code or 0
    except BrokenPipeError:  # the reader has gone (`| head -1`): nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except InputError as error:
        fail(f"minillm: {error}", 2)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"minillm: {where}{error.strerror or error}", 2)
        return 2
