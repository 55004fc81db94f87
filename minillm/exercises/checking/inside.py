"""One process of its own for a student's code: `python -m minillm.exercises.checking.inside [MODULE
ARGUMENTS]`.

Without a module it answers, in lines of JSON, what the functions of files give (see process.There):
it knows no right answers, and judges nothing. With one it runs that instead. On Linux the code runs
in a process forked off for it, and whatever that leaves behind is ended with it. This contains
accidents (endless loops, exits, crashes, memory without end); it is no sandbox: the code may do
whatever its user may do.
"""

from __future__ import annotations

import builtins
import ctypes
import io
import os
import runpy
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from types import ModuleType

from ...machine import quota
from ...machine.child import answering, listening
from ...machine.memory import address_space
from ...moved import OldName
from .call import Outcome, Problem, raised
from .run import Here
from .wire import few, packed, unpacked

MEMORY = 1 << 30  # bytes that the code may take beyond what the process has at its start
PROCESSOR = 300  # seconds of processor time, should nobody be left to stop it
PRINTED = 100_000  # characters that the code may print
FORKS = sys.platform.startswith("linux")
END_WITH_PARENT, ADOPT_ORPHANS = 1, 36  # of prctl: PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
POLL = 2  # milliseconds between looks at whether it has ended


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
    """Run a student's file and return what it defines: a module like others, in which classes find
    where they are defined."""
    sys.modules[file.stem] = module = ModuleType(file.stem)
    module.__file__ = str(file)
    exec(compile(file.read_bytes(), str(file), "exec"), vars(module))
    return vars(module)


def allowed() -> int:
    """How many bytes the code may take: MEMORY, or half of a hub's, so that a notebook beside it
    lives on."""
    return min(MEMORY, (quota.memory() or 2 * MEMORY) // 2)


def limit_resources() -> None:
    """Let no more than `allowed` be added to what the process holds (Linux), and PROCESSOR seconds
    pass (Linux and macOS)."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(
            resource.RLIMIT_CPU, (PROCESSOR, resource.getrlimit(resource.RLIMIT_CPU)[1])
        )
        if (held := address_space()) is not None:
            resource.setrlimit(
                resource.RLIMIT_AS, (held + allowed(), resource.getrlimit(resource.RLIMIT_AS)[1])
            )


# ---- one file


def serve(request: dict, listen: Callable[[], dict], answer: Callable[[dict], None]) -> None:
    """Load a file and answer what its function gives, until told to stop."""
    file, printed = Path(request["file"]), Printed()

    student: Here

    def given(number: int) -> Callable:
        """A function that the check gives to the student's: computed there, not here."""

        def function(*args, **kwargs):
            few(args, kwargs)
            answer({"function": number, "args": packed(args), "kwargs": packed(kwargs)})
            reply = listen()
            if "error" in reply:
                raise getattr(builtins, reply["error"], RuntimeError)(reply["says"])
            return unpacked(reply["value"])

        return function

    def contained(run: Callable[[], dict]) -> dict:
        try:
            with redirect_stdout(printed), redirect_stderr(printed):
                return run()
        except PrintsWithoutEnd:
            says = f"it prints without end (more than {PRINTED:,} characters)"
            return Outcome(raised=Problem("stopped", says)).packed()
        except BaseException as error:
            return Outcome(raised=raised(error, str(file)), error=type(error).__name__).packed()

    def loaded() -> dict:
        nonlocal student
        student = Here(load(file), request["name"])
        return {
            "value": packed(student.value),
            "parameters": student.parameters,
            "signature": student.signature,
        }

    def called() -> dict:
        args = unpacked(request["args"], given)
        return student.call(args, request["changes"], request["compiled"]).packed()

    with chdir(file.parent):
        answer(contained(loaded))
        while request := listen():
            answer(contained(called))
    answer({"printed": printed.getvalue()})


# ---- a process for it, and the end of all that it leaves behind


def prctl(option: int, value: int) -> None:
    """Ask Linux for something that Python has no name for."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def apart(work: Callable[[], object], asked_by: int) -> int:
    """Do `work`, on Linux in a process forked off, within limits; end it where whoever writes to
    the file `asked_by` is gone or gives up, and then all that it has started, also what hides in a
    session of its own; return how it ended, as subprocess does."""
    if not FORKS:
        work()
        return 0
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            prctl(END_WITH_PARENT, signal.SIGKILL)
            limit_resources()
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    hung_up, status = select.poll(), None
    hung_up.register(asked_by, 0)
    while status is None and not hung_up.poll(POLL):
        ended, how = os.waitpid(pid, os.WNOHANG)
        status = how if ended else None
    while True:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        try:
            while (one := os.waitpid(-1, os.WNOHANG))[0]:
                status = one[1] if one[0] == pid else status
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        except OSError:  # none is left, or this Linux does not name them
            return os.waitstatus_to_exitcode(status or 0)
        for child in children.split():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(int(child), signal.SIGKILL)
        time.sleep(POLL / 1000)


def main() -> None:
    (listen, asked_by), module = listening(), sys.argv[1:2]
    if FORKS:
        prctl(ADOPT_ORPHANS, 1)
    else:
        limit_resources()
    if module:
        del sys.argv[0]
        name = f"{__package__.rpartition('.')[0]}.{module[0]}"
        sys.exit(apart(lambda: runpy.run_module(name, run_name="__main__"), asked_by))
    warnings.simplefilter("ignore", OldName)  # of which whoever asks tells once, not in every file
    answer = answering()
    answer({"ready": True})
    while True:
        work = partial(serve, listen(), listen, answer)
        answer({"ended": apart(work, asked_by)})


if __name__ == "__main__":
    main()
