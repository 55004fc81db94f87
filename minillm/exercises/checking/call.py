"""One call of a student's function: what it returned, changed or raised. Nothing is judged here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .wire import describe, packed, unpacked

TODO = "todo"
RAISED = (TODO, "raised", "stopped", "missing")  # the kinds of problem that a call can end in
SAID = 400  # characters of an error's text


@dataclass(frozen=True)
class Problem:
    """What is wrong, and in one sentence how: kind is missing, signature, raised, shape, dtype, not
    finite, mutated, wrong, not as asked, slow or stopped; todo and skipped where nothing was
    written yet or nothing can be checked."""

    kind: str
    says: str


@dataclass
class Outcome:
    """What one call gave: values by where they stand, the inputs it changed, or what it raised.

    error: type and text of that, by which two are the same. cast: a number that is not finite
    became an integer. work: how many numbers went through each function that it was given.
    """

    values: dict | None = None
    mutated: tuple[str, ...] = ()
    raised: Problem | None = None
    error: str = ""
    cast: bool = False
    work: tuple[int, ...] = ()

    def packed(self) -> dict:
        """Return it as what JSON holds."""
        return {
            "values": packed(self.values),
            "mutated": self.mutated,
            "raised": self.raised and [self.raised.kind, self.raised.says],
            "error": self.error,
            "cast": self.cast,
        }

    @classmethod
    def read(cls, data: Mapping, names: Iterable[str], changes: Iterable[str]) -> Outcome:
        """The inverse of `packed`, for a function with these arguments: ValueError for whatever no
        call can give."""
        places = {"", *(f"{name} afterwards" for name in changes)}
        try:
            values, raised = unpacked(data["values"]), data["raised"] and Problem(*data["raised"])
            mutated, cast = tuple(data["mutated"]), data["cast"] is True
            error = str(data["error"])[: 4 * SAID]
            if raised and raised.kind in RAISED:
                return cls(raised=Problem(raised.kind, one_line(raised.says)), error=error)
            if not raised and {*mutated} <= {*names} and values.keys() == places:
                return cls(values, mutated, None, "", cast)
        except (AttributeError, KeyError, RecursionError, TypeError) as wrong:
            raise ValueError(f"no outcome: {wrong}") from None
        raise ValueError("no outcome")


def one_line(text: object) -> str:
    """A student's text without line ends and what would move the cursor, cut where it is long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 2 * SAID]).split())
    return line if len(line) <= SAID else f"{line[: SAID - 4]} ..."


def called(function: Callable, args: dict, changes: Iterable[str] = (), file: str = "") -> Outcome:
    """Call `function`, which is meant to change the arguments `changes`; an error names the line of
    `file`."""
    before, cast = {name: _contents(value) for name, value in args.items()}, []
    try:
        with np.errstate(all="warn"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", "invalid value encountered in cast", RuntimeWarning)
            warnings.showwarning = lambda *args, **kwargs: cast.append(True)
            result = function(**args)
    except (Exception, SystemExit) as error:
        return Outcome(
            raised=raised(error, file), error=f"{type(error).__name__}: {_text(error)}"[: 4 * SAID]
        )
    mutated = tuple(n for n in args if n not in changes and _contents(args[n]) != before[n])
    after = {f"{name} afterwards": args[name] for name in changes}
    return Outcome({"": result, **after}, mutated, cast=bool(cast))


def raised(error: BaseException, file: str = "") -> Problem:
    """An exception in a sentence, with the line of the student's file."""
    if isinstance(error, NotImplementedError):
        return Problem(TODO, one_line(_text(error)))
    if isinstance(error, SystemExit):
        return Problem(
            "stopped",
            f"it called sys.exit({describe(error.code)}): a function returns, and does not end the"
            " program",
        )
    if isinstance(error, MemoryError):
        return Problem("stopped", "it asked for more memory than an exercise may have")
    line, frame = None, error.__traceback__
    if isinstance(error, SyntaxError):
        line = error.lineno
    while frame is not None:
        if file and frame.tb_frame.f_code.co_filename == file:
            line = frame.tb_lineno
        frame = frame.tb_next
    text = one_line(error.msg if isinstance(error, SyntaxError) else _text(error))
    return Problem(
        "raised", f"{type(error).__name__}: {text}" + (f" (line {line})" if line else "")
    )


def _text(error: BaseException) -> str:
    """What an error says, if it can."""
    try:
        return str(error)
    except BaseException:  # it may raise itself
        return "an error without a text"


def _contents(value) -> list:
    """What the arrays in an argument hold, to see whether it was changed."""
    if isinstance(value, np.ndarray):
        return [(value.shape, value.tobytes())]
    if isinstance(value, (dict, list)):
        return [
            c for v in (value.values() if isinstance(value, dict) else value) for c in _contents(v)
        ] + [len(value)]
    return []
