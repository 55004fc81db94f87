"""The command line: one file a subcommand, which parses, calls the library and prints."""

from __future__ import annotations

import argparse
import ast
import gc
import os
import sys
from _thread import interrupt_main
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from threading import Timer
from types import ModuleType
from typing import Any

from .. import __version__
from ..errors import InputError, not_imported, one_line
from ..machine.files import read_text, require_unpacked
from .common import log_on_stderr, say_when_compiling

# Command -> its file, which is imported when it is called, or when all are listed
ROOMS = {
    "generate": "generate",
    "chat": "chat",
    "ask": "ask",
    "explore": "explore",
    "probs": "probs",
    "tokenize": "tokenize",
    "score": "score",
    "info": "info",
    "convert": "convert",
    "verify": "verify",
    "clock": "clock",
    "bench": "bench",
    "compare": "compare",
    "datasheet": "datasheet",
    "diverge": "diverge",
    "lab": "lab",
    "train": "train",
    "plot": "plot",
    "classify": "classify",
    "exercises": "exercises",
    "course": "course",
    "warmup": "warmup",
}
LIKE = 0.75  # how like a name is that may have been meant: --temperature is no --trace
INTERRUPTED, CLOSED_PIPE = 130, 141  # what a shell reports for SIGINT and SIGPIPE


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line; a command's arguments are added when it is the
    one that was called."""

    command: ModuleType | None = None  # of a subcommand
    actions: argparse._SubParsersAction | None = None  # its own subcommands

    def add_subparsers(self, **how):
        self.actions = super().add_subparsers(**how)
        return self.actions

    def error(self, message: str):
        if self.actions and message.endswith("required: ACTION"):
            message += f", one of {', '.join(self.actions.choices)}"
        self.exit(2, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")

    def parse_known_args(self, args=None, namespace=None):
        command, self.command = self.command, None
        if command:
            command.add_arguments(self)
            self.set_defaults(run=command.run)
        known, rest = super().parse_known_args(args, namespace)
        if len(rest) == 1 and rest[0][:1] != "-" and getattr(known, "text", "") is None:
            known.text = (
                rest.pop()
            )  # which argparse misses where options part it from what precedes
        if rest:  # said here, a subcommand's name is in the message
            words = [w for w in (getattr(known, "text", None), *rest) if w]
            flags = [w.partition("=")[0] for w in rest if w.startswith("-") and w != "-"]
            hint = ""
            if flags:
                hint = nearest(flags[0], self._option_string_actions)
            elif hasattr(known, "text") and len(words) > 1:
                hint = f'; a text of several words needs quotes: "{" ".join(words)}"'
            self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
        return known, rest

    def _get_value(self, action, arg_string):
        """One argument as its type says; what nothing can be made of is refused for all alike."""
        if action.nargs == argparse.PARSER:  # a command and its words, which has a parser for them
            return arg_string
        if not arg_string and action.dest != "text":  # Path("") would be this folder
            raise argparse.ArgumentError(action, "it is empty")
        if (
            action.type in (None, str)
            and not is_text(arg_string)
            and not os.path.exists(arg_string)
        ):
            raise argparse.ArgumentError(action, f"{arg_string!r:.60} is not UTF-8 text")
        return super()._get_value(action, arg_string)

    def _check_value(self, action, value):
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += nearest(str(value), map(str, action.choices))
            if action.metavar == "COMMAND" and " " in value:
                error.message = f'{value!r} is no command; minillm generate "{value}" continues it'
            raise


def is_text(argument: str) -> bool:
    """Whether all of it could be read: what is not UTF-8 comes as halves of surrogate pairs."""
    return not any("\ud800" <= c <= "\udfff" for c in argument)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message that names what may have been meant; empty where nothing is like it."""
    near = get_close_matches(word, known, 1, LIKE)
    return f"; did you mean {near[0]}?" if near else ""


def parser(called: str = "") -> Parser:
    """Return the parser of the whole command line, which knows one command only where it is known
    which is called."""
    main_parser = Parser(
        prog="minillm", description="GPT-2 from scratch: read it, run it, check it, time it."
    )
    main_parser.add_argument("--version", action="version", version=f"minillm {__version__}")
    commands = main_parser.add_subparsers(dest="command", metavar="COMMAND")
    main_parser.set_defaults(run=lambda args: main_parser.print_help())
    for name in [called] if called in ROOMS else ROOMS:
        command = import_module(f".{ROOMS[name]}", __name__)
        about = about_of(command)
        sub = commands.add_parser(name, help=summary_of(about), description=about)
        sub.formatter_class, sub.command = argparse.RawDescriptionHelpFormatter, command
    return main_parser


def about_of(command: ModuleType) -> str:
    """A module's docstring, which `python -OO` leaves in the file alone."""
    text = command.__doc__ or ast.get_docstring(ast.parse(read_text(command.__file__ or "")))
    return (text or "").strip()


def summary_of(about: str) -> str:
    """The first sentence, which may fill more than one line."""
    return about.partition("\n\n")[0].replace("\n", " ")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a check failed, 2 unusable input."""
    before = sys.unraisablehook
    sys.unraisablehook = unraisable = Unraisable(before)
    try:
        return outcome(argv)
    except BaseException as error:
        if not by_ctrl_c(error):
            raise
        unraisable.ended = True
        return INTERRUPTED
    finally:
        if unraisable.ended:
            with suppress(KeyboardInterrupt):  # a second one has nothing more to end
                print(file=sys.stderr)
                gc.collect()  # now, while it is listened to
        sys.unraisablehook = before


class Unraisable:
    """What happens where Python cannot raise, as in a __del__ of LLVM's objects: a Ctrl-C comes
    once more a moment later; and of what a Ctrl-C left half made, nothing is told."""

    def __init__(self, tell: Callable[[Any], object]):
        self.tell, self.ended = tell, False

    def __call__(self, what: Any) -> None:
        if self.ended:
            return
        if by_ctrl_c(what.exc_value):
            Timer(0.01, interrupt_main).start()
        else:
            self.tell(what)


def by_ctrl_c(error: BaseException | None) -> bool:
    """Whether it is a KeyboardInterrupt, or came up while one was on its way, as in LLVM."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return any(isinstance(one, KeyboardInterrupt) for one in seen)


def outcome(argv: list[str] | None) -> int:
    """Run one command; what a person can mend is one line, and an exit code."""
    gc.set_threshold(100_000)  # what a start makes stays: a tenth of it would be seeking garbage
    for stream in ("stdout", "stderr"):  # None where they were closed (`>&-`): then nobody reads
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    try:
        with log_on_stderr():
            require_unpacked()
            argv = sys.argv[1:] if argv is None else argv
            args = parser(*argv[:1]).parse_args(argv)
            say_when_compiling()
            code = args.run(args)
        sys.stdout.flush()
        return code or 0
    except BrokenPipeError:  # the reader has gone (`| head -1`): nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except InputError as error:
        return failed(str(error))
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == __name__.partition(".")[0]:
            raise
        return failed(not_imported(error))
    except MemoryError as error:
        return failed(f"not enough memory ({str(error) or 'for Python itself'})")
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            why = "a file is there, where a folder is needed: give another name"
        return failed((f"{error.filename}: " if error.filename else "") + why)


def failed(why: str) -> int:
    """Say why in one line, once for all processes of mpiexec, and return the exit code."""
    from ..machine.distributed import fail

    fail(f"minillm: {one_line(why)}", 2)
    return 2
