"""A process of its own that is asked, and answers, in lines of JSON.

`Child` is the end that asks. It waits no longer than it is told to, reads no line longer than LINE,
and says in words how the process ended; with `close` it ends that, and its group. `listening` and
`answering` are the end that answers.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from time import monotonic
from typing import IO

PACKAGE = Path(__file__).resolve().parents[2]
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
LINE = 8 << 20  # bytes of a line that it says
WAITING = 4  # lines that it may say before they are read
SAYING = 10  # seconds for it to read a line
PIPE = getattr(select, "PIPE_BUF", 1 << 16)  # bytes that a pipe with room takes without waiting
SLICE = 0.25  # seconds of one wait: a machine that sleeps in between counts as one of them
SHOWN = 60  # characters of what is no answer
NO_ANSWER = "what came from its process is no answer: does it write to files that it did not open?"


class Ended(Exception):
    """The child has died, or is given up; says why."""


class Child:
    """A command in a session of its own, whose libraries compute on so many threads.

    environment: variables beyond our own. messages: the file that takes its standard error.
    """

    ending = 0.0  # seconds that it has, when closed, to end itself and what it has started

    def __init__(
        self,
        command: Sequence[str],
        threads: int,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        messages: int | IO = subprocess.DEVNULL,
    ):
        own = dict.fromkeys(THREAD_VARIABLES, str(threads)) | dict(environment or {})
        self._process = subprocess.Popen(
            command,
            env=os.environ | own,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout  # pipes
        self._to, self._from = self._process.stdin, self._process.stdout
        self._lines: queue.Queue[bytes] = queue.Queue(WAITING)
        self._closed = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        line = b" "
        while line and not self._closed.is_set():
            with suppress(OSError, ValueError):  # it is being closed
                line = b""
                line = self._from.readline(LINE)
            while not self._closed.is_set():
                with suppress(queue.Full):
                    self._lines.put(line, timeout=SLICE)
                    break
        self._from.close()  # here: elsewhere, what outlives it may keep a reader waiting

    def ask(self, message: object, seconds: float | None = None) -> dict:
        """Say a line, and return the answer."""
        self.say(message)
        return self.answer(seconds)

    def say(self, message: object) -> None:
        """Say a line; raise Ended if it is not read."""
        line, file = memoryview(json.dumps(message).encode() + b"\n"), self._to.fileno()
        end = monotonic() + SAYING
        with suppress(BrokenPipeError):  # it has died: the answer says so
            while line:
                if os.name == "posix" and not select.select([], [file], [], SLICE)[1]:
                    if monotonic() > end:
                        raise Ended(NO_ANSWER)
                    continue
                line = line[os.write(file, line[:PIPE]) :]

    def answer(self, seconds: float | None = None, of: float | None = None) -> dict:
        """Return the next answer; raise Ended if there is none within `seconds` (the rest `of` a
        longer time; None: without a limit), or none at all."""
        for _ in count() if seconds is None else range(max(1, round(seconds / SLICE))):
            dead = self._process.poll() is not None  # then its last words are on their way
            with suppress(queue.Empty):
                line = self._lines.get(timeout=SLICE)
                break
            if dead:  # though something that it started may hold the pipe
                line = b""
                break
        else:
            raise Ended(f"still running after {of or seconds:g} s: is there a loop without end?")
        if not line:
            raise Ended(how_it_ended(self._process.wait()))
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            said = line[: 4 * SHOWN].decode(errors="replace").strip()[:SHOWN]
            raise Ended(f"{NO_ANSWER} It said {said!r}")
        return answer

    def close(self) -> None:
        """End it, and all that it has started."""
        self._closed.set()
        with suppress(OSError):
            self._to.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self.ending)
        with suppress(AttributeError, ProcessLookupError, PermissionError):  # Windows has no groups
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def ask_once(module: str, message: object, seconds: float) -> dict:
    """Start `python -m module`, one of this package, ask it once, and end it; raise Ended where no
    answer comes in time."""
    folders = [str(PACKAGE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    path = os.pathsep.join(map(os.path.abspath, filter(None, folders)))
    with Child([sys.executable, "-P", "-m", module], 1, {"PYTHONPATH": path}) as child:
        return child.ask(message, seconds)


def how_it_ended(code: object) -> str:
    """The exit code of a process, in a sentence."""
    if code == -9:
        return "the system killed it: most often for too much memory"
    with suppress(ValueError):
        if isinstance(code, int) and code < 0:
            return f"it crashed the interpreter ({signal.Signals(-code).name})"
    return f"it ended the interpreter (exit code {code!r:.20})"


# ---- inside the child


def limit_memory(nbytes: int) -> None:
    """Let this process have no more memory than that; Windows has no such limit."""
    with suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (nbytes, nbytes))


def listening() -> tuple[Callable[[], dict], int]:
    """Return a function that reads a line of JSON, and ends the process when there is none, and the
    file that it reads; from now on, standard input is empty."""
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def listen() -> dict:
        if not (line := lines.readline()):
            os._exit(0)
        return json.loads(line)

    return listen, lines.fileno()


def answering(printed: int | None = None) -> Callable[[dict], None]:
    """Return a function that answers a line of JSON; from now on, other output goes to the file
    `printed`, or nowhere."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY) if printed is None else printed, 1)

    def answer(value: dict) -> None:
        print(json.dumps(value), file=out, flush=True)

    return answer
