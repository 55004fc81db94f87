"""How long commands take until they say something, each in a fresh process, all in turn in each
round."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import IO

from ..errors import one_line
from ..machine.child import THREAD_VARIABLES
from .run import in_rounds, program

PATIENCE = 120  # seconds that a command has for its first character


@dataclass
class Start:
    """One command: of each round seconds, and seconds of processor time (where Linux says it), up
    to its first character; missing says why there are none.

    typed: what is piped in. fresh: as just installed, no kernel being compiled yet.
    """

    name: str
    arguments: list[str]
    typed: str = ""
    fresh: bool = False
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    missing: str | None = None


def commands(chat: str) -> list[Start]:
    """What is started; `chat` is the model that answers."""
    text = "Once upon a time"
    return [
        Start("generate", ["generate", text]),
        Start("generate", ["generate", text], fresh=True),
        Start("chat", ["chat", "--model", chat], "What is the capital of France?\n"),
        Start("probs", ["probs", text]),
        Start("clock", ["clock", text]),
        Start("train", ["train", "--data", "fables.txt", "--out", "run", "--preset", "tiny"]),
    ]


def run(chat: str = "smollm2", rounds: int = 5, threads: int = 2) -> list[Start]:
    """Start the commands in `rounds` rounds after one to warm up, which compiles what must be; in
    that alone those that are to be fresh: they take far longer."""
    starts = commands(chat)

    def one_round(keep: bool) -> None:
        for start in starts:
            if not start.missing and not (keep and start.fresh):
                _measure(start, threads, keep or start.fresh)

    in_rounds(rounds, one_round)
    return starts


def _measure(start: Start, threads: int, keep: bool) -> None:
    """Start a command, wait for its first character, and end it."""
    python, paths = program()
    pipe, command = subprocess.PIPE, [python, "-m", "minillm", *start.arguments]
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | paths
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled to bytecode
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        open(os.path.join(folder, "messages.txt"), "w+b") as messages,
    ):
        if start.fresh:
            environment["NUMBA_CACHE_DIR"] = folder
        began = perf_counter()
        how: dict = {"env": environment, "cwd": folder, "stderr": messages, "bufsize": 0}
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, **how) as process:
            assert process.stdin and process.stdout  # pipes
            try:
                process.stdin.write(start.typed.encode())
                process.stdin.close()
                said = _first(process.stdout)
                seconds, processor = perf_counter() - began, _processor_time(process.pid)
            finally:
                process.kill()
        if not said:
            messages.seek(0)
            why = messages.read().decode(errors="replace").strip()
            within = "" if said is not None else f" within {PATIENCE} s"
            start.missing = f"it said nothing{within}: {one_line(why)[:200]}"
        elif keep:
            start.seconds.append(seconds)
            start.processor += [processor] if processor else []


def _first(stdout: IO[bytes]) -> bytes | None:
    """The first byte; none where a command ends without, None where it takes too long."""
    if os.name == "posix" and not select.select([stdout], [], [], PATIENCE)[0]:
        return None
    return stdout.read(1)


def _processor_time(pid: int) -> float | None:
    """Seconds that all threads of a process have computed, and processes that it has waited for,
    such as one that compiles; None where the system does not say."""
    if not sys.platform.startswith("linux"):
        return None
    after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return sum(map(int, after_name[11:15])) / os.sysconf("SC_CLK_TCK")
