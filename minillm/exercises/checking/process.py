"""Students' code from outside: a process of its own runs it, in a copy of their folder, and a new
one goes on where one died. What is right is known here only."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from types import CodeType

import numpy as np

from ...errors import InputError
from ...machine.child import NO_ANSWER, Child, Ended, how_it_ended
from ..catalogue import EXERCISES
from ..student.folder import file_of
from . import reach, source
from .call import Outcome, Problem, one_line
from .exercise import Exercise, Result
from .wire import few, packed, unpacked

PACKAGE = Path(__file__).resolve().parents[3]
INSIDE = "minillm.exercises.checking.inside"
STARTING = 120  # seconds for Python and NumPy to start, on a slow disk
ENDING = 5  # seconds for a process to end what it has started
CALLS = 1_000  # of a function that the student's was given, in a check
COPIED = 16 << 20  # bytes of a student's folder that are copied
FILES = 1_000  # of it
SHOWN = 2_000  # characters of what the code prints


class StudentProcess(Child):
    """`python -m minillm.exercises.checking.inside MODULE ARGUMENTS`. Its first answer is that it
    is ready; {"ended": code} says how the code that it ran came to its end."""

    ending = ENDING if sys.platform.startswith("linux") else 0.0  # elsewhere it is killed

    def __init__(self, *arguments: object, cwd: Path | None = None):
        folders = [PACKAGE, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        path = os.pathsep.join(map(os.path.abspath, filter(None, folders)))
        command = [sys.executable, "-P", "-m", INSIDE, *map(str, arguments)]
        super().__init__(command, threads=1, environment={"PYTHONPATH": path}, cwd=cwd)
        try:
            self.answer(STARTING)
        except Ended:
            self.close()
            raise

    def answer(self, seconds: float | None = None, of: float | None = None) -> dict:
        answer = super().answer(seconds, of)
        if "ended" in answer:
            raise Ended(how_it_ended(answer["ended"]))
        return answer

    def ended(self) -> bool:
        """Whether the work asked for has come to its end, so that the next can be asked for."""
        try:
            return super().answer(ENDING).keys() == {"ended"}
        except Ended:
            return False


class There:
    """A file, in a process of its own (see run.Student): what that says is read, and never
    believed."""

    found = frozenset()

    def __init__(self, child: StudentProcess, e: Exercise, file: Path, copy: Path):
        self._child, self._left, self._of, self._calls = child, e.seconds, e.seconds, 0
        self._name, self._source = e.name, file.read_bytes()  # before its code can change it
        self.problem, self.value, self.parameters, self.signature = None, None, [], ""
        answer = self._ask({"file": str(copy / file.name), "name": e.name})
        try:
            if "raised" in answer:
                self.problem = Outcome.read(answer, (), ()).raised
            else:
                self.value = unpacked(answer["value"])
                self.signature = one_line(answer["signature"])
                if answer["parameters"] is None:
                    self.parameters = None
                else:
                    self.parameters = [(str(n), o is True) for n, o in answer["parameters"]]
        except (KeyError, TypeError, ValueError):
            raise Ended(NO_ANSWER) from None

    def _ask(self, message: dict) -> dict:
        self._child.say(message)
        start = monotonic()
        try:
            return self._child.answer(self._left, self._of)
        finally:
            self._left -= monotonic() - start

    @cached_property
    def code(self) -> CodeType | None:
        return source.code_of(self._source, self._name)

    @cached_property
    def codes(self) -> list[CodeType]:
        return [*reach.nested(compile(self._source, self._name, "exec"))]

    def call(self, args: dict, changes: Sequence[str], compiled: int = 0) -> Outcome:
        functions: list[Callable] = []
        message = {"args": packed(args, functions), "changes": changes, "compiled": compiled}
        answer = self._ask(message)
        while "function" in answer:
            self._calls += 1
            if self._calls > CALLS:
                raise Ended(f"it called what it was given more than {CALLS:,} times")
            answer = self._ask(applied(functions, answer))
        try:
            return Outcome.read(answer, args, changes)
        except ValueError:
            raise Ended(NO_ANSWER) from None


def applied(functions: list[Callable], asked: dict) -> dict:
    """Return what a function that the student's was given makes of its arguments, or raises."""
    try:
        args, kwargs = unpacked(asked["args"]), unpacked(asked["kwargs"])
        function = functions[asked["function"]]
        parameters = inspect.signature(function).parameters
        own = {name for name, p in parameters.items() if p.default is p.empty}
        if more := kwargs.keys() - own:
            raise TypeError(f"it was given an unknown argument {more.pop()!r}")
        few(args, kwargs)
        with np.errstate(all="ignore"):
            return {"value": packed(function(*args, **kwargs), [])}
    except Exception as error:  # the student's arguments may be anything
        return {"error": type(error).__name__, "says": one_line(error)}


@contextmanager
def copied(folder: Path, first: Path | None = None) -> Iterator[Path]:
    """A copy of a folder's files, for code that may change or delete what it finds: COPIED bytes or
    FILES at most, nothing below it, and of the exercises only `first`."""
    with TemporaryDirectory(prefix="minillm-", ignore_cleanup_errors=True) as copy:
        others = (p for p in folder.iterdir() if not re.match(r"\d+_\w+\.py", p.name))
        left = COPIED
        for file in filter(None, [first, *islice(others, FILES)]):
            with suppress(OSError):
                if file.is_file() and (left := left - file.stat().st_size) >= 0:
                    shutil.copyfile(file, Path(copy, file.name))
        yield Path(copy).resolve()


def check_folder(folder: Path, names: Iterable[str], seed: int = 0) -> Iterator[Result]:
    """Yield the result of each exercise in turn, each within its `seconds`; relative paths in the
    code are of a copy of its folder."""
    if seed < 0:
        raise InputError(f"seed {seed}: it must be 0 or more")
    folder = folder.resolve()
    with ExitStack() as running:
        child = None
        for name in names:
            e = EXERCISES[name]
            file = file_of(folder, e)
            result = e.missing_library()
            if result is None and not file.exists():
                says = f"there is no {file.name}: minillm exercises start writes it"
                result = e.found(Problem("missing", says))
            if result is None:
                child = child or running.enter_context(StudentProcess())
                with copied(folder, file) as copy:
                    result, goes_on = _checked(child, e, file, copy, seed)
                if not goes_on:
                    child = running.close()
            yield result


def _checked(
    child: StudentProcess, e: Exercise, file: Path, copy: Path, seed: int
) -> tuple[Result, bool]:
    """The result of one exercise, whatever its code does, and whether the process can go on."""

    def own(text: str) -> str:
        return text.replace(str(copy), str(file.parent))

    printed, goes_on = "", False
    try:
        result = e.judge(There(child, e, file, copy), seed)
        printed = str(child.ask({}, ENDING).get("printed", ""))
        goes_on = child.ended()
    except Ended as ended:
        result = e.found(Problem("stopped", str(ended)))
    except Exception as error:  # whatever it said becomes a line about this student
        says = f"what it gave cannot be compared ({type(error).__name__}: {one_line(error)})"
        result = e.found(Problem("wrong", says))
    result.message = own(result.message)
    shown = own(printed)[:SHOWN]
    result.printed = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in shown)
    return result, goes_on
