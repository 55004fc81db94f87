"""Reading and writing files so that nothing is lost and every failure is one line that names the
file."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import sys
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

LINE_END = r"\r\n?|\n"  # str.splitlines cuts at \x0b, \x0c, \x1c, \x85, U+2028 and others, too
TEMPORARY = re.compile(r"\.minillm-[0-9a-f]{16}\.tmp")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, without their ends."""
    lines = re.split(LINE_END, text)
    return lines if lines[-1] else lines[:-1]


def read_bytes(path: Path) -> bytes:
    """Return what the file holds; InputError naming it if it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None


def read_json(path: Path):
    """Return what the JSON file holds; InputError naming the file if it is missing or not JSON."""
    data = read_bytes(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None


@contextmanager
def atomic_file(path: Path):
    """Open a temporary file beside `path` for writing bytes; rename it to `path` only when all is
    written.

    Each writer, be it a thread or a process, has one of its own, whose name cannot be foreseen. It
    is made anew: where something has its name, be it a link, FileExistsError.
    """
    temporary, file = path.with_name(f".minillm-{secrets.token_hex(8)}.tmp"), None
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None  # a full disk names no file
        raise
    finally:
        if file:
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as lasting as its files, where the system can: else a rename may
    be lost with the power."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems without it
            raise
    finally:
        os.close(descriptor)


def replace(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`; InputError where Windows refuses since `path` is in use."""
    try:
        os.replace(temporary, path)
    except OSError:
        if sys.platform != "win32" or not path.exists():
            raise
        raise InputError(
            f"{path}: the file is in use, perhaps by a model that was loaded from it, and Windows"
            " does not replace it; save into another folder, or end what uses it"
        ) from None


def remove_unfinished(folder: Path) -> None:
    """Remove what `atomic_file` left in `folder` itself when its process was killed."""
    if folder.is_dir():
        for entry in os.scandir(folder):
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                Path(entry).unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, all or nothing."""
    with atomic_file(path) as file:
        file.write(data)
