"""One process of its own for a student's code: `python -m minillm.exercises.child FOLDER SEED
NAME...`.

Answers {"ready": true} and then, for each exercise, its Result, in lines of JSON. What the code
prints is kept aside. This contains accidents (endless loops, exits, crashes, memory without end);
it is no sandbox: the code may do whatever its user may do.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from .. import quota
from . import exercise
from .compare import Problem
from .exercise import Result, raised
from .folder import file_of

MEMORY = 1 << 30  # bytes that the code may take beyond what the process has at its start
PROCESSOR = (
    900  # seconds of processor time, for all exercises together, should nobody be left to stop it
)
PRINTED = 100_000  # characters that the code may print
SHOWN = 2_000  # of these, how many are handed on


class PrintsWithoutEnd(BaseException):
    """More was printed than PRINTED. Not an Exception, so that code which catches these does not go
    on."""


class Printed(io.StringIO):
    """What was printed, up to a limit."""

    def write(self, text: str) -> int:
        if self.tell() + len(text) > PRINTED:
            raise PrintsWithoutEnd
        return super().write(text)


def load(file: Path) -> dict[str, object]:
    """Run a student's file and return what it defines."""
    namespace: dict[str, object] = {"__name__": file.stem, "__file__": str(file)}
    exec(compile(file.read_bytes(), str(file), "exec"), namespace)
    return namespace


def checked(folder: Path, name: str, seed: int) -> Result:
    """Return the result of one exercise, whatever its code does short of ending the process."""
    e, printed = exercise(name), Printed()
    file = file_of(folder, e)
    if not file.exists():
        return e.found(
            Problem("missing", f"there is no {file.name}: minillm exercises start writes it")
        )
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            result = e.check(load(file), seed)
        except PrintsWithoutEnd:
            result = e.found(
                Problem("stopped", f"it prints without end (more than {PRINTED:,} characters)")
            )
        except (Exception, SystemExit) as error:
            result = e.found(raised(error, str(file)))
    result.printed = printed.getvalue()[:SHOWN]
    return result


def allowed() -> int:
    """How many bytes the code may take: MEMORY, or half of a hub's, so that a notebook beside it
    lives on."""
    return min(MEMORY, (quota.memory() or 2 * MEMORY) // 2)


def limit_resources() -> None:
    """Let no more than `allowed` be added to what the process holds (Linux), and PROCESSOR seconds
    pass (Linux and macOS)."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(
            resource.RLIMIT_CPU, (PROCESSOR, resource.getrlimit(resource.RLIMIT_CPU)[1])
        )
        with open("/proc/self/statm") as statm:
            held = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(
            resource.RLIMIT_AS, (held + allowed(), resource.getrlimit(resource.RLIMIT_AS)[1])
        )


def answering() -> Callable[[dict], None]:
    """Return a function that answers a line of JSON; from now on, other output goes nowhere."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def answer(value: dict) -> None:
        print(json.dumps(value), file=out, flush=True)

    return answer


def main() -> None:
    folder, seed, *names = sys.argv[1:]
    answer = answering()
    limit_resources()
    answer({"ready": True})
    for name in names:
        answer(asdict(checked(Path(folder), name, int(seed))))


if __name__ == "__main__":
    main()
