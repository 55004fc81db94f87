"""Runs minillm in forks of this process, which has imported everything, and kills them.

Each line of standard input is a request, JSON: argv, and when to kill -9: after `seconds`, or at
the n-th `write`, counted by what a write does: make a file, append to one, sync, rename. There the
file is left as a kill in the middle of it leaves it. Each line of standard output is an answer:
the exit code (-9 if it was killed), what it said on stderr, how long it took, how many writes it
did. A fork takes milliseconds where a start of Python takes a second.
"""

import builtins
import json
import os
import random
import signal
import sys
import time
from tempfile import TemporaryFile

import minillm.training.pretrain  # noqa: F401  (so that no fork has to)
from minillm.cli import main


def count_writes(kill_at):
    """Count what follows in the list that is returned, and be killed at number `kill_at`."""
    seen, really = [], {"open": builtins.open, "fsync": os.fsync, "replace": os.replace}

    def now() -> bool:
        seen.append(1)
        return len(seen) == kill_at

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def opened(path, mode="r", *args, **kwargs):
        file = really["open"](path, mode, *args, **kwargs)
        if mode[0] in "xa" and now():
            if mode == "a":
                file.write('{"step": 1, "lo')
                file.flush()
            die()
        return file

    def synced(descriptor):
        if now():
            if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
                size = os.fstat(descriptor).st_size
                os.ftruncate(descriptor, random.Random(kill_at).randrange(size + 1))
            die()
        really["fsync"](descriptor)

    def renamed(old, new):
        if now():
            die()
        really["replace"](old, new)

    builtins.open, os.fsync, os.replace = opened, synced, renamed
    return seen


def answer(argv, seconds=None, write=None) -> dict:
    with TemporaryFile("w+") as said, TemporaryFile("w+") as count:
        began = time.monotonic()
        if not (child := os.fork()):
            os.dup2(said.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            writes, code = count_writes(write), 1
            try:
                code = main(argv)
                count.write(str(len(writes)))
                count.flush()
            finally:
                os._exit(code)
        while not (done := os.waitpid(child, os.WNOHANG))[0]:
            if seconds is not None and time.monotonic() > began + seconds:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.0005)
        took = time.monotonic() - began
        said.seek(0)
        count.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(done[1]),
            "err": said.read(),
            "seconds": took,
            "writes": int(count.read() or 0),
        }


for line in sys.stdin:
    print(json.dumps(answer(**json.loads(line))), flush=True)
