"""Students' code from outside: a process of its own runs it, and a new one goes on where one died."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import InputError
from . import EXERCISES
from .compare import Problem
from .exercise import Result

PACKAGE = Path(__file__).resolve().parents[2]
STARTING = 120  # seconds for Python and NumPy to start, on a slow disk
SLICE = 0.25  # seconds of one wait: a machine that sleeps in between counts as one of them
ONE_THREAD = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Ended(Exception):
    """The child has died, or was stopped; says why."""


class Child:
    """`python -m minillm.exercises.MODULE ARGUMENTS`, which answers in lines of JSON, the first
    when it is ready."""

    def __init__(self, module: str, *arguments: object, cwd: Path | None = None):
        path = os.pathsep.join(
            map(
                os.path.abspath,
                filter(None, [PACKAGE, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
            )
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"minillm.exercises.{module}", *map(str, arguments)],
            env=os.environ | dict.fromkeys(ONE_THREAD, "1") | {"PYTHONPATH": path},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.answer(STARTING)

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def answer(self, seconds: float):
        """Return the next answer; raise Ended if there is none within `seconds`, or none at all."""
        for _ in range(round(seconds / SLICE)):
            with suppress(queue.Empty):
                line = self._lines.get(timeout=SLICE)
                break
        else:
            raise Ended(f"still running after {seconds} s: is there a loop without end?")
        if line:
            return json.loads(line)
        code = self._process.wait()
        if code == -9:
            raise Ended("the system killed it: most often for too much memory")
        if code < 0:
            raise Ended(f"it crashed the interpreter ({signal.Signals(-code).name})")
        raise Ended(f"it ended the interpreter (exit code {code})")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error) -> None:
        self._process.kill()
        self._process.wait()


def check_folder(folder: Path, names: Iterable[str], seed: int = 0) -> Iterator[Result]:
    """Yield the result of each exercise in turn, each within its `seconds`; relative paths in the
    code are of its folder."""
    if seed < 0:
        raise InputError(f"seed {seed}: it must be 0 or more")
    waiting = [*names]
    while waiting:
        with Child("child", folder.resolve(), seed, *waiting, cwd=folder) as child:
            while waiting:
                name = waiting.pop(0)
                try:
                    result = Result(**child.answer(EXERCISES[name].seconds))
                except Ended as ended:
                    yield EXERCISES[name].found(Problem("stopped", str(ended)))
                    break
                yield result
