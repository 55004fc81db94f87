"""One run at a time in a folder: run.lock names the process that trains in it, and its host."""

from __future__ import annotations

import functools
import json
import os
import platform
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from ..errors import InputError
from ..machine.distributed import ALONE
from ..machine.files import as_path, read_json

LOCK = "run.lock"


def one_run_a_folder(train):
    """Decorate train(out, ..., world=ALONE): rank 0 holds the folder's lock while it runs."""

    @functools.wraps(train)
    def locked(out, *args, world=ALONE, **kwargs):
        out = as_path(out)
        with held(out) if world.rank == 0 else nullcontext():
            return train(out, *args, world=world, **kwargs)

    return locked


@contextmanager
def held(folder: Path):
    """Hold the folder's lock; InputError where a process that is still alive holds it.

    The lock of one that was killed is taken over. Whether a process of another host is alive cannot
    be seen from here: then the message says what to delete.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path, here = folder / LOCK, platform.node()
    mine = {"process": os.getpid(), "host": here, "began": began(os.getpid())}
    with one_after_another(folder):
        if (other := read(path)) and is_held(path, other):
            hint = "" if other["host"] == here else f", or delete {path} if it has ended"
            raise InputError(
                f"{folder}: process {other['process']} on {other['host']:.100} trains in it; wait"
                f" for it, or choose another folder{hint}"
            )
        path.unlink(missing_ok=True)
        file = open(path, "xb", buffering=0)  # noqa: SIM115
        try:
            file.write(json.dumps(mine).encode())
        except OSError as error:  # a full disk, which names no file
            file.close()
            path.unlink(missing_ok=True)
            raise InputError(f"{path}: {error.strerror}") from None
    try:
        with file:  # which stays open, so that on Windows nobody can delete it
            yield
    finally:
        if read(path) == mine:
            path.unlink(missing_ok=True)
        if made:
            with suppress(OSError):  # not empty: a run has begun
                folder.rmdir()


def read(path: Path) -> dict | None:
    """What a lock says; None where there is none, or its process was killed before it wrote."""
    try:
        found = read_json(path)
    except InputError:
        return None
    forms = {"process": int, "host": str, "began": str}
    whole = isinstance(found, dict) and {n: type(v) for n, v in found.items()} == forms
    return found if whole and found["process"] > 0 else None  # others are groups of processes


def is_held(path: Path, holder: dict) -> bool:
    """Whether the process that a lock names is alive, or may be."""
    if os.name == "nt":
        try:
            path.unlink()
        except PermissionError:  # it is open
            return True
        return False
    if holder["host"] != platform.node():
        return True
    now = began(holder["process"])
    return now is not None and (now == holder["began"] or "" in (now, holder["began"]))


def began(process: int) -> str | None:
    """When a process of this machine began, as its system counts, which tells it from a later one
    with its number; "" where that is not said; None where there is no such process."""
    if os.name == "nt":
        return ""
    try:
        os.kill(process, 0)
    except PermissionError:
        pass  # another user's
    except (ProcessLookupError, OverflowError):
        return None
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # after the name
    return None if state in "ZX" else fields[18]  # ended, but not yet fetched by its parent


@contextmanager
def one_after_another(folder: Path):
    """Let the processes of this machine in one by one, where the system can: else two could take
    over the same lock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
